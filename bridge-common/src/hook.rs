//! The two hooks.

/// Where a program meets a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// Native XDP: it carries what is whole without its metadata.
    Xdp = 0,
    /// tcx ingress: it carries every known unicast frame.
    Tcx = 1,
}

impl Hook {
    /// Both hooks, in the order of their counters.
    pub const ALL: [Self; 2] = [Self::Xdp, Self::Tcx];

    /// The name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
        }
    }
}
