//! What is noted of a port.

/// Length of an interface name with its terminating zero (`IFNAMSIZ`).
pub const INTERFACE_NAME: usize = 16;

/// Flags of [`crate::fastpath::Port::flags`].
pub mod flag {
    /// It is attached.
    pub const ACTIVE: u32 = 1 << 0;
    /// The XDP program is attached, beside tcx.
    pub const XDP: u32 = 1 << 2;
    /// attach or detach has begun and not finished; whoever takes the lock next undoes it.
    pub const UNFINISHED: u32 = 1 << 3;
    /// `tapbridge run` may switch XDP on and off.
    pub const AUTO: u32 = 1 << 7;
    /// No rule of netfilter is meant for frames between this port and others that have this flag.
    pub const BYPASS_NETFILTER: u32 = 1 << 8;
}

/// Who chooses a port's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookMode {
    /// XDP to begin with; `tapbridge run` switches it off and on as the port's traffic makes it pay.
    Auto,
    /// XDP beside tcx, always.
    Xdp,
    /// tcx alone, always.
    Tcx,
}

impl HookMode {
    /// Of a port with these [`flag`]s.
    pub const fn of(flags: u32) -> Self {
        if flags & flag::AUTO != 0 {
            Self::Auto
        } else if flags & flag::XDP != 0 {
            Self::Xdp
        } else {
            Self::Tcx
        }
    }

    /// The name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
        }
    }
}
