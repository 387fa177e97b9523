//! Ports: a slot with a generation, holding one device.

/// Length of an interface name with its terminating zero (`IFNAMSIZ`).
pub const INTERFACE_NAME: usize = 16;

/// Flags of [`Port::flags`].
pub mod flag {
    /// The slot holds a port that takes part in forwarding.
    pub const ACTIVE: u32 = 1 << 0;
    /// The device accepts frames from native XDP (`ndo_xdp_xmit`).
    pub const NATIVE_TARGET: u32 = 1 << 1;
    /// The XDP program is attached, beside tcx.
    pub const XDP: u32 = 1 << 2;
    /// attach or detach has begun and not finished; whoever takes the lock next undoes it.
    pub const UNFINISHED: u32 = 1 << 3;
    /// `disable_ipv6` was 0 before attach: detach sets it back.
    pub const RESTORE_IPV6: u32 = 1 << 4;
    /// The device was not promiscuous before attach: detach sets it back.
    pub const RESTORE_PROMISCUOUS: u32 = 1 << 5;
    /// The device had the kernel's default queueing discipline before attach: detach gives it back.
    pub const RESTORE_QUEUE: u32 = 1 << 6;
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

/// A port as it lies in the map `PORTS`, indexed by slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Port {
    /// The device, 0 for an empty slot.
    pub ifindex: u32,
    /// Grows with every attach in the bridge, so that what was learned for an earlier port in this slot is void.
    pub generation: u32,
    /// See [`flag`].
    pub flags: u32,
    /// How often `tapbridge run` has switched XDP on or off.
    pub hook_changes: u32,
    /// When it did so last, in ns since boot (`CLOCK_BOOTTIME`); 0 for never.
    pub hook_changed_at: u64,
    /// The device's `tx_dropped` when it was attached: later growth is the port's own.
    pub tx_dropped_at_attach: u64,
    /// The device's name when it was attached, zero-terminated; it names a port whose device is gone.
    pub name: [u8; INTERFACE_NAME],
}

impl Port {
    /// An empty slot.
    pub const EMPTY: Self = Self {
        ifindex: 0,
        generation: 0,
        flags: 0,
        hook_changes: 0,
        hook_changed_at: 0,
        tx_dropped_at_attach: 0,
        name: [0; INTERFACE_NAME],
    };

    /// Who chooses its hooks.
    pub const fn hook_mode(&self) -> HookMode {
        HookMode::of(self.flags)
    }

    /// Whether all of the given flags are set.
    #[inline(always)]
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }
}

/// The port that a frame came in by, as it lies in the map `INGRESS`, keyed by ifindex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ingress {
    /// See [`Port::generation`].
    pub generation: u32,
    /// Index into `PORTS`.
    pub slot: u32,
}
