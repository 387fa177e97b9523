//! What is noted and counted of ports and paths.

use crate::{Hook, counters::Traffic, forwarding::Reason, port::HookMode};

/// Places that paths are counted in without a search; each belongs to the first path that needs it.
pub const NEAR_PATHS: u32 = 1024;
/// Places that ports are counted in likewise.
pub const NEAR_PORTS: u32 = 256;
/// What the loader has noted of an attached port. Of it the programs read only [`crate::port::flag::BYPASS_NETFILTER`], where
/// netfilter looks at bridged frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Port {
    /// See [`crate::port::flag`].
    pub flags: u32,
    /// How often `tapbridge run` has switched XDP on or off.
    pub hook_changes: u32,
    /// When it did so last, in ns since boot (`CLOCK_BOOTTIME`); 0 for never.
    pub hook_changed_at: u64,
    /// The device's name when it was attached, zero-terminated.
    pub name: [u8; crate::port::INTERFACE_NAME],
    /// Index of the bridge that it was made a port of when it was attached: detach takes it out of that one. 0 where it had
    /// one of its own.
    pub bridge: u32,
    /// Zero.
    pub reserved: u32,
    /// What the device had transmitted when it was attached, in frames: later growth is the port's own.
    pub tx_frames_at_attach: u64,
    /// Likewise what it had dropped.
    pub tx_dropped_at_attach: u64,
}

impl Port {
    /// Whether all of the given flags are set.
    pub const fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }

    /// Who chooses its hooks.
    pub const fn hook_mode(&self) -> HookMode {
        HookMode::of(self.flags)
    }
}

/// From one port to another, by ifindex.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Path {
    /// Where frames come in.
    pub from: u32,
    /// Where they leave.
    pub to: u32,
}

impl Path {
    /// Stands for ports that are no more.
    pub const GONE: u32 = 0;

    /// As one number; zero stands for none.
    pub const fn to_bits(self) -> u64 {
        (self.from as u64) << 32 | self.to as u64
    }

    /// The place near that it may have. Neighbours have places of their own.
    pub const fn near(self) -> u32 {
        (self.from.wrapping_mul(37) ^ self.to) % NEAR_PATHS
    }
}

/// The place that may count a port, see [`NEAR_PORTS`].
pub const fn near_port(ifindex: u32) -> u32 {
    ifindex % NEAR_PORTS
}

/// What happened at one port. What it received = Σ paths from it + `left_traffic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PortCounters {
    /// Frames that tcx left to the bridge, and their bytes.
    pub left_traffic: Traffic,
    /// Frames that tcx met and native XDP can't take, and their bytes.
    pub bulk: Traffic,
    /// Frames of several segments.
    pub gso: u64,
    /// Partial checksums that XDP completed.
    pub checksums_completed: u64,
    /// Frames that a hook left to what comes behind it, by [`Hook`] and [`Reason`].
    pub left: [[u64; Reason::COUNT]; Hook::ALL.len()],
}

impl Default for PortCounters {
    fn default() -> Self {
        Self {
            left_traffic: Traffic::default(),
            bulk: Traffic::default(),
            gso: 0,
            checksums_completed: 0,
            left: [[0; Reason::COUNT]; Hook::ALL.len()],
        }
    }
}

impl core::ops::AddAssign for PortCounters {
    fn add_assign(&mut self, other: Self) {
        self.left_traffic += other.left_traffic;
        self.bulk += other.bulk;
        self.gso += other.gso;
        self.checksums_completed += other.checksums_completed;
        let left = self.left.as_flattened_mut();
        for (sum, count) in left.iter_mut().zip(other.left.as_flattened()) {
            *sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_cover_every_counter() {
        let mut one = PortCounters {
            left_traffic: Traffic { frames: 1, bytes: 2 },
            bulk: Traffic { frames: 3, bytes: 4 },
            gso: 5,
            checksums_completed: 6,
            ..PortCounters::default()
        };
        one.left.as_flattened_mut().fill(7);
        let mut sum = one;
        sum += one;
        assert_eq!(sum.left_traffic, Traffic { frames: 2, bytes: 4 });
        assert_eq!(sum.bulk, Traffic { frames: 6, bytes: 8 });
        assert_eq!((sum.gso, sum.checksums_completed), (10, 12));
        assert!(sum.left.as_flattened().iter().all(|count| *count == 14));
    }
}
