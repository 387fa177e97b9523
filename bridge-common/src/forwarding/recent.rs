//! Why frames were left lately, so that one which is alike need not ask the tables again, nor one hook after the other.
//!
//! A reason serves for the rest of the tick of the kernel's clock in which it was found (4 ms where `HZ` is 250). That it
//! may be gone by then does no harm: a frame that is left is the bridge's to decide about, and the bridge knows. Where
//! frames go that are *not* left is never kept.

use super::{Reason, Received};
use crate::{Hook, frame::ETHERTYPE_8021AD};

const SLOTS: usize = 64;
/// Where the last octet of an address lies in its number.
const LAST_OCTET: u32 = 40;

/// Frames that are alike: one port received them for one destination, with one tag, in one tick; and why they were left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Left {
    /// What most often differs is compared first, and nothing else then.
    destination: u64,
    port_and_tick: u64,
    tag: u32,
    /// The number of a [`Reason`].
    reason: u32,
    reserved: u64,
}

/// What a CPU remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Recent([Left; SLOTS]);

impl Recent {
    /// Before any was left.
    pub const NOTHING: Self = Self([Left::NONE; SLOTS]);

    /// The place of frames that a port of this index receives for this destination. Many ports have the host's in common,
    /// and many stations all but the last octet.
    #[inline(always)]
    pub const fn of(&mut self, ifindex: u32, received: &Received) -> &mut Left {
        let slot = (received.destination >> LAST_OCTET) as u32 ^ ifindex;
        &mut self.0[slot as usize % SLOTS]
    }
}

impl Left {
    const NONE: Self = Self {
        destination: 0,
        port_and_tick: 0,
        tag: 0,
        reason: 0,
        reserved: 0,
    };

    /// The number of the reason to leave such a frame, if there is one for this hook.
    #[inline(always)]
    pub fn reason(
        &self,
        ifindex: u32,
        received: &Received,
        hook: Hook,
        jiffies: impl FnOnce() -> u64,
    ) -> Option<u32> {
        let is_alike = self.destination == received.destination
            && self.port_and_tick == port_and_tick(ifindex, jiffies())
            && self.tag == tag(received);
        let is_for_both = self.reason < Reason::Generic as u32;
        (is_alike && (is_for_both || matches!(hook, Hook::Xdp))).then_some(self.reason)
    }

    /// Remembers why one was left, if the next ones will be, too.
    #[inline(always)]
    pub const fn note(&mut self, ifindex: u32, received: &Received, jiffies: u64, reason: Reason) {
        if reason.lasts() {
            *self = Self {
                destination: received.destination,
                port_and_tick: port_and_tick(ifindex, jiffies),
                tag: tag(received),
                reason: reason as u32,
                reserved: 0,
            };
        }
    }
}

#[inline(always)]
const fn port_and_tick(ifindex: u32, jiffies: u64) -> u64 {
    (ifindex as u64) << 32 | jiffies & 0xffff_ffff
}

/// The tag without its priority; 0 for none.
#[inline(always)]
const fn tag(received: &Received) -> u32 {
    match received.tag {
        None => 0,
        Some(tag) => {
            let service = tag.protocol == ETHERTYPE_8021AD;
            1 << 16 | (service as u32) << 17 | tag.id() as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::{ETHERTYPE_8021Q, VlanTag},
        mac::Mac,
    };

    const RECEIVED: Received = Received {
        destination: Mac([2, 0, 0, 0, 0, 2]).to_bits(),
        source: Mac([2, 0, 0, 0, 0, 1]).to_bits(),
        ethertype: 0x0800,
        tag: None,
        length: 60,
        gso: false,
    };

    const fn tagged(protocol: u16, control: u16) -> Received {
        let tag = Some(VlanTag { protocol, control });
        Received { tag, ..RECEIVED }
    }

    /// A frame that a port received at some time.
    type Met = (u32, Received, u64);

    fn remembers(noted: Met, reason: Reason, asked: Met, hook: Hook) -> bool {
        let mut recent = Recent::NOTHING;
        let (ifindex, received, jiffies) = noted;
        recent
            .of(ifindex, &received)
            .note(ifindex, &received, jiffies, reason);
        let (ifindex, received, jiffies) = asked;
        let found = recent
            .of(ifindex, &received)
            .reason(ifindex, &received, hook, || jiffies);
        found == Some(reason as u32)
    }

    #[test]
    fn frames_are_alike_of_one_port_destination_tag_and_tick() {
        let one = (7, RECEIVED, 1000);
        let other_source = Received {
            source: Mac([2, 0, 0, 0, 0, 3]).to_bits(),
            ethertype: 0x86dd,
            length: 1514,
            ..RECEIVED
        };
        assert!(remembers(one, Reason::Host, (7, other_source, 1000), Hook::Tcx));
        // In the same place.
        let other_destination = Received {
            destination: Mac([2, 0, 0, 0, 1, 2]).to_bits(),
            ..RECEIVED
        };
        let others = [
            (8, RECEIVED, 1000),
            (7 + 64, RECEIVED, 1000),
            (7, RECEIVED, 1001),
            (7, other_destination, 1000),
            (7, tagged(ETHERTYPE_8021Q, 0), 1000),
            (7, tagged(ETHERTYPE_8021AD, 0), 1000),
            (7, tagged(ETHERTYPE_8021Q, 1), 1000),
        ];
        for (number, other) in others.into_iter().enumerate() {
            assert!(!remembers(one, Reason::Host, other, Hook::Tcx), "{number}");
            assert!(!remembers(other, Reason::Host, one, Hook::Tcx), "{number}");
            for another in &others[..number] {
                assert!(!remembers(*another, Reason::Host, other, Hook::Tcx), "{number}");
            }
        }
        // The priority says nothing about where it goes.
        let priority = (7, tagged(ETHERTYPE_8021Q, 0xe001), 1000);
        assert!(remembers(others[6], Reason::Host, priority, Hook::Tcx));
    }

    #[test]
    fn a_reason_that_lies_with_the_frame_is_not_remembered() {
        let one = (7, RECEIVED, 1000);
        for reason in Reason::ALL {
            let lasts = remembers(one, reason, one, Hook::Xdp);
            assert_eq!(lasts, reason.lasts(), "{}", reason.name());
        }
    }

    #[test]
    fn tcx_does_not_take_over_what_keeps_xdp_alone() {
        let one = (7, RECEIVED, 1000);
        for reason in Reason::ALL {
            let shared = reason.lasts() && !reason.is_of_xdp_alone();
            let remembered = remembers(one, reason, one, Hook::Tcx);
            assert_eq!(remembered, shared, "{}", reason.name());
        }
    }

    #[test]
    fn nothing_is_remembered_of_frames_that_nobody_has_left() {
        let nowhere = Received {
            destination: 0,
            ..RECEIVED
        };
        let mut recent = Recent::NOTHING;
        let found = recent.of(1, &nowhere).reason(1, &nowhere, Hook::Xdp, || 0);
        assert_eq!(found, None);
    }

    #[test]
    fn neighbours_have_places_of_their_own() {
        let mut recent = Recent::NOTHING;
        let mut places = std::collections::BTreeSet::new();
        for number in 0..64 {
            let destination = Mac([2, 0, 0, 0, 0, number]).to_bits();
            let received = Received {
                destination,
                ..RECEIVED
            };
            places.insert(&raw const *recent.of(7, &received));
        }
        assert_eq!(places.len(), 64);
        places.clear();
        for ifindex in 0..64 {
            places.insert(&raw const *recent.of(ifindex, &RECEIVED));
        }
        assert_eq!(places.len(), 64);
    }
}
