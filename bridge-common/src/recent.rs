//! What the switch has just found out: most frames go between the same stations as a frame before them.
//!
//! Where a destination is, and that a source teaches nothing, stays true until the forwarding database changes. So a
//! CPU remembers it for the rest of a moment: until the kernel's clock ticks, some milliseconds, or something changes,
//! whichever comes first. Only the ageing of an address can go unnoticed for that long.

use crate::port::Ingress;

/// A time in which what was found out stays true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Moment {
    /// The kernel's clock, in ticks (`jiffies`).
    pub tick: u64,
    /// Grows with everything that commands change ([`crate::layout::Config::changes`]).
    pub changes: u64,
    /// Another number whenever a frame has changed the forwarding database.
    pub last_lesson: u64,
}

/// Frames from one station to another by the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// [`crate::fdb::FdbKey::to_bits`] of the source.
    pub source: u64,
    /// The same of the destination.
    pub destination: u64,
    /// The port that they come in by.
    pub ingress: Ingress,
}

impl Flow {
    /// Where the flow's answer is kept, of [`FLOWS`] places.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "less than `FLOWS`")]
    pub const fn place(&self) -> u32 {
        // The upper bits of a product depend on all bits of its factor (Knuth, The Art of Computer Programming, 6.4).
        const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = self.source.wrapping_mul(GOLDEN_RATIO).rotate_left(32) ^ self.destination;
        (mixed.wrapping_mul(GOLDEN_RATIO) >> (64 - FLOWS.ilog2())) as u32
    }
}

/// The port that an address is on, as an entry of the forwarding database names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Location {
    /// See [`crate::fdb::FdbEntry::generation`].
    pub generation: u32,
    /// The port.
    pub slot: u32,
}

impl Location {
    /// No port's. A value and not an absence: the verifier would have to be shown that nobody reads the location of an
    /// address that has none.
    pub const NOWHERE: Self = Self {
        generation: 0,
        slot: u32::MAX,
    };
}

/// Flows that a CPU remembers, a power of two.
pub const FLOWS: u32 = 1024;

/// An answer about a flow, as it lies in the map `RECENT_FLOWS`, at [`Flow::place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RecentFlow {
    /// When it was found out.
    pub moment: Moment,
    /// What was asked about.
    pub flow: Flow,
    /// Where the destination is, if anywhere. The source taught nothing.
    pub location: Location,
}

impl RecentFlow {
    /// The destination's location, if this is about that flow and still true.
    #[inline(always)]
    pub fn answer(&self, flow: &Flow, moment: Moment) -> Option<Location> {
        (self.flow == *flow && self.moment == moment).then_some(self.location)
    }
}

/// Devices that a CPU remembers, a power of two: twice as many as a bridge has ports unless told otherwise.
pub const DEVICES: u32 = 128;

/// The port that belongs to a device, as it lies in the map `RECENT_PORTS`, at the device's index modulo [`DEVICES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RecentPort {
    /// When it was found out.
    pub moment: Moment,
    /// The device's index.
    pub ifindex: u32,
    /// Keeps the struct free of padding.
    pub reserved: u32,
    /// The port.
    pub ingress: Ingress,
}

impl RecentPort {
    /// The device's port, if this is about that device and still true.
    #[inline(always)]
    pub fn answer(&self, ifindex: u32, moment: Moment) -> Option<Ingress> {
        (self.ifindex == ifindex && self.moment == moment).then_some(self.ingress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment {
        tick: 1000,
        changes: 7,
        last_lesson: 8,
    };
    const INGRESS: Ingress = Ingress {
        generation: 10,
        slot: 1,
    };
    const FLOW: Flow = Flow {
        source: 2,
        destination: 3,
        ingress: INGRESS,
    };
    const LOCATION: Location = Location {
        generation: 11,
        slot: 4,
    };

    fn later() -> [Moment; 3] {
        [
            Moment { tick: 1001, ..NOW },
            Moment { changes: 8, ..NOW },
            Moment {
                last_lesson: 9,
                ..NOW
            },
        ]
    }

    #[test]
    fn a_flow_is_known_in_the_moment_that_it_was_asked_about() {
        let recent = RecentFlow {
            moment: NOW,
            flow: FLOW,
            location: LOCATION,
        };
        assert_eq!(recent.answer(&FLOW, NOW), Some(LOCATION));
        for moment in later() {
            assert_eq!(recent.answer(&FLOW, moment), None, "{moment:?}");
        }
        let by = |generation, slot| Flow {
            ingress: Ingress { generation, slot },
            ..FLOW
        };
        for other in [
            Flow { source: 9, ..FLOW },
            Flow {
                destination: 9,
                ..FLOW
            },
            by(10, 2),
            by(12, 1),
        ] {
            assert_eq!(recent.answer(&other, NOW), None, "{other:?}");
        }
    }

    #[test]
    fn a_devices_port_is_known_in_the_moment_that_it_was_asked_about() {
        let recent = RecentPort {
            moment: NOW,
            ifindex: 5,
            reserved: 0,
            ingress: INGRESS,
        };
        assert_eq!(recent.answer(5, NOW), Some(INGRESS));
        assert_eq!(recent.answer(6, NOW), None);
        for moment in later() {
            assert_eq!(recent.answer(5, moment), None, "{moment:?}");
        }
    }

    #[test]
    fn flows_of_neighbouring_addresses_are_kept_apart() {
        let place = |source: u64, destination: u64| {
            let flow = Flow {
                source: 0x5254 | source << 40,
                destination: 0x5254 | destination << 40,
                ingress: INGRESS,
            };
            flow.place()
        };
        let mut places: Vec<u32> = (0..16)
            .flat_map(|source| (0..16).map(move |destination| place(source, destination)))
            .collect();
        assert!(places.iter().all(|&place| place < FLOWS));
        places.sort_unstable();
        places.dedup();
        // By chance 256 flows would take 226 of 1024 places.
        assert!(places.len() > 200, "{} places", places.len());
    }
}
