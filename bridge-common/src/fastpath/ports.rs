//! What is noted and counted of ports and paths.

use crate::{counters::Traffic, forwarding::Reason, hook::Hook, port::HookMode};

/// Places that paths are counted in without a search; each belongs to the first path that needs it.
pub const NEAR_PATHS: u32 = 1024;
/// Places that ports are counted in without a search; each belongs to the first port that could have it.
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
    /// Tells this attachment of the device from earlier and later ones: when it was attached, in ms since boot without what goes
    /// beyond 32 bits (49 days). 0 if that is not known, of ports that an earlier version has attached.
    pub attachment: u32,
    /// What the device had transmitted when it was attached, in frames: later growth is the port's own.
    pub tx_frames_at_attach: u64,
    /// What the device had dropped on transmission when it was attached, in frames.
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
    /// When tcx last left a frame for a reason that stops the port ([`Reason::stops_port`]), in jiffies and to a second; 0
    /// for never. No counter, but here it costs no search of its own.
    pub stopped_at: u64,
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
            stopped_at: 0,
            left: [[0; Reason::COUNT]; Hook::ALL.len()],
        }
    }
}

impl PortCounters {
    /// As numbers: those before `left`, and all.
    const HEAD: usize = 4 + 2 + 1;
    /// How many numbers there are.
    pub const WORDS: usize = Self::HEAD + Hook::ALL.len() * Reason::COUNT;

    /// As numbers, in the order in which they lie.
    pub fn words(&self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let head = [
            self.left_traffic.frames,
            self.left_traffic.bytes,
            self.bulk.frames,
            self.bulk.bytes,
            self.gso,
            self.checksums_completed,
            self.stopped_at,
        ];
        words[..Self::HEAD].copy_from_slice(&head);
        words[Self::HEAD..].copy_from_slice(self.left.as_flattened());
        words
    }

    /// Of the numbers that a program of a [`VERSION`](super::VERSION) has counted, which may know fewer reasons, or more: the
    /// first of them are these. None if there can't be so many numbers.
    pub fn of_version(version: u32, words: &[u64]) -> Option<Self> {
        // Since 5 there is `stopped_at`.
        let head = if version < 5 { 6 } else { 7 };
        let (head, left) = words.split_at_checked(head)?;
        let reasons = left.len() / Hook::ALL.len();
        if reasons == 0 || left.len() % Hook::ALL.len() != 0 {
            return None;
        }
        let mut counters = Self {
            left_traffic: Traffic {
                frames: head[0],
                bytes: head[1],
            },
            bulk: Traffic {
                frames: head[2],
                bytes: head[3],
            },
            gso: head[4],
            checksums_completed: head[5],
            stopped_at: head.get(6).copied().unwrap_or(0),
            ..Self::default()
        };
        for (known, counted) in counters.left.iter_mut().zip(left.chunks_exact(reasons)) {
            for (known, counted) in known.iter_mut().zip(counted) {
                *known = *counted;
            }
        }
        Some(counters)
    }
}

impl core::ops::AddAssign for PortCounters {
    fn add_assign(&mut self, other: Self) {
        self.left_traffic += other.left_traffic;
        self.bulk += other.bulk;
        self.gso += other.gso;
        self.checksums_completed += other.checksums_completed;
        self.stopped_at = self.stopped_at.max(other.stopped_at);
        let left = self.left.as_flattened_mut();
        for (sum, count) in left.iter_mut().zip(other.left.as_flattened()) {
            *sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fastpath::VERSION;

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

    /// Counters that are all different.
    fn all_different() -> PortCounters {
        let mut counters = PortCounters {
            left_traffic: Traffic { frames: 1, bytes: 2 },
            bulk: Traffic { frames: 3, bytes: 4 },
            gso: 5,
            checksums_completed: 6,
            stopped_at: 7,
            ..PortCounters::default()
        };
        for (index, count) in (100..).zip(counters.left.as_flattened_mut()) {
            *count = index;
        }
        counters
    }

    #[test]
    fn numbers_of_this_version_are_read_as_they_were_written() {
        let counters = all_different();
        let words = counters.words();
        assert_eq!(size_of_val(&words), size_of::<PortCounters>());
        assert_eq!(PortCounters::of_version(VERSION, &words), Some(counters));
    }

    #[test]
    fn numbers_of_version_4_have_no_time_of_the_last_stop() {
        let expected = PortCounters {
            stopped_at: 0,
            ..all_different()
        };
        let words = expected.words();
        let earlier = [&words[..6], &words[7..]].concat();
        assert_eq!(PortCounters::of_version(4, &earlier), Some(expected));
    }

    #[test]
    fn reasons_that_another_program_does_not_know_are_none_and_further_ones_are_left_out() {
        let counters = all_different();
        let head = &counters.words()[..PortCounters::HEAD];
        let of = |reasons: usize| {
            let left = counters.left.map(|left| {
                let mut left = left.to_vec();
                left.resize(reasons, 9);
                left
            });
            [head, &left.concat()].concat()
        };
        let fewer = PortCounters::of_version(VERSION, &of(Reason::COUNT - 2)).expect("fewer");
        for (hook, left) in fewer.left.iter().enumerate() {
            let (known, unknown) = left.split_at(Reason::COUNT - 2);
            assert_eq!(known, &counters.left[hook][..known.len()]);
            assert_eq!(unknown, [0, 0]);
        }
        assert_eq!(
            PortCounters::of_version(VERSION, &of(Reason::COUNT + 3)),
            Some(counters)
        );
    }

    #[test]
    fn too_few_numbers_and_an_odd_number_of_them_are_refused() {
        let words = all_different().words();
        for length in [
            0,
            PortCounters::HEAD - 1,
            PortCounters::HEAD,
            PortCounters::WORDS - 1,
        ] {
            assert_eq!(
                PortCounters::of_version(VERSION, &words[..length]),
                None,
                "{length}"
            );
        }
    }
}
