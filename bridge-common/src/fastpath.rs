//! What the fast path of Linux bridges and its loader agree on: names, counters, and where the kernel's structures have
//! their members.

mod events;
mod offsets;
mod ports;

pub use self::{
    events::{Cause, EVENTS_BYTES, Event, EventKind, MAX_TOLD, SILENCE, Told},
    offsets::Offsets,
    ports::{NEAR_PATHS, NEAR_PORTS, Path, Port, PortCounters, near_port},
};
use crate::{
    forwarding::{Reason, Verdict},
    hook::Hook,
};

/// Version of everything pinned: maps, their types, their meaning. That further [`Reason`]s come behind those there are needs
/// no new one: how many a program knows shows in the size of its counters.
pub const VERSION: u32 = 5;
/// The oldest one that can be read, and whose programs can be replaced without detaching them.
pub const OLDEST_VERSION: u32 = 4;

/// Paths that are counted; frames of others are forwarded all the same.
pub const MAX_PATHS: u32 = 16_384;
/// Ports that can be attached in a network namespace.
pub const MAX_PORTS: u32 = 4096;

/// Names of the programs in the object file.
pub mod program {
    /// The hook in native XDP.
    pub const XDP: &str = "tapbridge_fast_xdp";
    /// The hook at tcx ingress.
    pub const TCX: &str = "tapbridge_fast_tcx";
    /// Says what the hooks would decide, see [`super::Answer`].
    pub const ASK: &str = "tapbridge_ask";
    /// Tells of an [`super::Event`].
    pub const TELL: &str = "tapbridge_tell";
    /// Adds to counters, see [`super::Addition`].
    pub const ADD: &str = "tapbridge_add";
    /// Says what the hooks would decide of frames that pass by, see [`crate::observed`].
    pub const OBSERVE: &str = "tapbridge_observe";
    /// Reads kernel memory for the loader.
    pub const PEEK: &str = "tapbridge_peek";
}

/// Names of the maps in the object file.
pub mod map {
    /// Array of one [`super::Settings`].
    pub const SETTINGS: &str = "SETTINGS";
    /// Hash of ifindex to [`super::Port`].
    pub const PORTS: &str = "PORTS";
    /// Array of the ifindex that a place belongs to; see [`super::near_port`].
    pub const PORT_OWNERS: &str = "PORT_OWNERS";
    /// Per-CPU array of those places' [`super::PortCounters`].
    pub const PORT_COUNTERS: &str = "PORT_COUNTERS";
    /// Per-CPU hash of ifindex to [`super::PortCounters`], of ports that have no place.
    pub const COUNTERS: &str = "COUNTERS";
    /// Hash of a place to the [`super::Path`] that it belongs to; see [`super::Path::near`].
    pub const NEAR: &str = "NEAR";
    /// Array of the numbers of those paths ([`super::Path::to_bits`]), by place.
    pub const NEAR_OWNERS: &str = "NEAR_OWNERS";
    /// Per-CPU array of those places' [`crate::counters::PathCounters`].
    pub const NEAR_COUNTERS: &str = "NEAR_COUNTERS";
    /// Per-CPU hash of [`super::Path`] to [`crate::counters::PathCounters`], of paths that have no place.
    pub const PATHS: &str = "PATHS";
    /// Per-CPU array of one [`crate::forwarding::NegativeCache`].
    pub const NEGATIVE_CACHE: &str = "NEGATIVE_CACHE";
    /// Ring buffer of [`super::Event`]s.
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU array of one number of events for which there was no room.
    pub const EVENTS_LOST: &str = "EVENTS_LOST";
    /// Hash of [`super::Told`] to when a frame was left so, in jiffies.
    pub const TOLD: &str = "TOLD";
    /// Per-CPU hash of [`crate::observed::Key`] to [`crate::counters::Traffic`].
    pub const OBSERVED: &str = "OBSERVED";
    /// Per-CPU array of one number of frames for which there was no room.
    pub const UNOBSERVED: &str = "UNOBSERVED";
    /// Array of one [`super::Peek`].
    pub const PEEK: &str = "PEEK";
}

/// Name of the global that holds [`Offsets`].
pub const OFFSETS: &str = "OFFSETS";

/// In the programs' loads of the kernel's memory this, and where an offset lies in [`Offsets`], is the place of what is
/// loaded, until the loader writes the offset there.
pub const MEMBERS: u16 = 0x5000;

/// In the programs' calls of the cast this is the type that lies at every address, until the loader writes its id there.
pub const ANYTHING: u32 = 0x7a70_0002;

/// What changes while the programs are loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// [`VERSION`] of the loader; 0 until all is pinned.
    pub version: u32,
    /// Id of the tcx program: without it at a port, XDP redirects nothing there.
    pub tcx_program: u32,
    /// Cookie of the network namespace that the programs are for (`net->net_cookie`).
    pub cookie: u64,
    /// Inode of that namespace, to find it by.
    pub network_namespace: u64,
}

/// What is to be added to the counters of a port or path: behind this lie numbers, a [`PortCounters`] or a
/// [`PathCounters`](crate::counters::PathCounters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Addition {
    /// A port, by ifindex, and zero, or a path.
    pub path: Path,
    /// Whether it is a path.
    pub is_path: u32,
    /// Zero.
    pub reserved: u32,
}

impl Addition {
    /// What the program answers with if it has been added.
    pub const DONE: u32 = 1;
}

/// A question to the kernel's memory, and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Peek {
    /// The index of a device.
    pub ifindex: u32,
    /// Whether the device was found.
    pub found: u32,
    /// Words of `net->gen->ptr[slot] + offset`, for each slot.
    pub offset: u64,
    /// The words.
    pub words: [u64; PEEK_SLOTS],
}

impl Peek {
    /// Before a question.
    pub const NOTHING: Self = Self {
        ifindex: 0,
        found: 0,
        offset: 0,
        words: [0; PEEK_SLOTS],
    };
}

/// What the two hooks would make of a frame now, as one number: a byte for each, a [`Reason`] or 255 for
/// "forward".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer(pub u32);

impl Answer {
    const FORWARD: u32 = 0xff;

    /// Nothing decided yet.
    pub const NONE: Self = Self(0);

    /// With what one hook would decide; XDP if it met the frame in native mode.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, hook: Hook, verdict: Verdict) -> Self {
        let code = match verdict {
            Verdict::Forward(..) => Self::FORWARD,
            Verdict::Leave(reason) => reason as u32,
        };
        Self(self.0 | code << (8 * hook as u32))
    }

    /// Why a hook would leave the frame; none if it would forward it.
    pub fn obstacle(self, hook: Hook) -> Option<Reason> {
        let code = self.0 >> (8 * hook as u32) & 0xff;
        Reason::ALL.into_iter().find(|&reason| reason as u32 == code)
    }
}

/// Slots of `struct net_generic` that are looked at.
pub const PEEK_SLOTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::Retag;

    #[test]
    fn answers_tell_the_hooks_apart() {
        for reason in Reason::ALL {
            for [leaves, forwards] in [[Hook::Xdp, Hook::Tcx], [Hook::Tcx, Hook::Xdp]] {
                let answer = Answer::NONE
                    .with(leaves, Verdict::Leave(reason))
                    .with(forwards, Verdict::Forward(7, Retag::Keep));
                assert_eq!(answer.obstacle(leaves), Some(reason));
                assert_eq!(answer.obstacle(forwards), None);
            }
        }
    }
}
