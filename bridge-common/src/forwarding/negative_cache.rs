//! A cache of reasons to leave frames to the bridge, so that a frame which is like one before it need not ask the tables
//! again, nor tcx after XDP. Where frames go that are *not* left is never cached.
//!
//! An entry serves for the rest of the tick of the kernel's clock in which it was made, 4 ms where `HZ` is 250. That its
//! reason may be gone by then does no harm: a frame that is left is the bridge's to decide about, and the bridge knows.

use super::{reason::Reason, tables::Received};
use crate::{frame::ETHERTYPE_8021AD, hook::Hook};

const ENTRIES: usize = 64;
/// Where the last byte of an address lies in its number.
const LAST_BYTE: u32 = 40;

/// Frames that are alike: one port received them for one destination, with one tag, in one tick; and why they were left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NegativeEntry {
    /// What most often differs is compared first, and nothing else then.
    destination: u64,
    port_and_tick: u64,
    tag: u32,
    /// The number of a [`Reason`].
    reason: u32,
    reserved: u64,
}

/// What a CPU has cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NegativeCache([NegativeEntry; ENTRIES]);

impl NegativeCache {
    /// Nothing cached.
    pub const EMPTY: Self = Self([NegativeEntry::NONE; ENTRIES]);

    /// The entry that frames which a port of this index receives for this destination share, with others. Many ports have the
    /// host's address in common as a destination, and many stations all but the last byte.
    #[inline(always)]
    pub const fn entry_mut(&mut self, ifindex: u32, received: &Received) -> &mut NegativeEntry {
        let index = (received.destination >> LAST_BYTE) as u32 ^ ifindex;
        &mut self.0[index as usize % ENTRIES]
    }
}

impl NegativeEntry {
    const NONE: Self = Self {
        destination: 0,
        port_and_tick: 0,
        tag: 0,
        reason: 0,
        reserved: 0,
    };

    /// The number of the reason to leave such a frame, if it is cached for this hook.
    #[inline(always)]
    pub fn lookup(
        &self,
        ifindex: u32,
        received: &Received,
        hook: Hook,
        jiffies: impl FnOnce() -> u64,
    ) -> Option<u32> {
        let hit = self.destination == received.destination
            && self.port_and_tick == port_and_tick(ifindex, jiffies())
            && self.tag == tag(received);
        let is_for_hook = matches!(hook, Hook::Xdp) || !Reason::is_number_of_xdp_alone(self.reason);
        (hit && is_for_hook).then_some(self.reason)
    }

    /// Caches why a frame was left, if that is so of all that are like it.
    #[inline(always)]
    pub const fn insert(&mut self, ifindex: u32, received: &Received, jiffies: u64, reason: Reason) {
        if reason.is_cacheable() {
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

    const NOW: u64 = 1000;

    /// A frame that the port of an index received at some time.
    type Met = (u32, Received, u64);

    const MET: Met = (7, RECEIVED, NOW);

    /// Whether one frame hits what another, left for a reason, has put there.
    fn hits(inserted: Met, reason: Reason, looked_up: Met, hook: Hook) -> bool {
        let mut cache = NegativeCache::EMPTY;
        let (ifindex, received, jiffies) = inserted;
        let entry = cache.entry_mut(ifindex, &received);
        entry.insert(ifindex, &received, jiffies, reason);
        let (ifindex, received, jiffies) = looked_up;
        let entry = cache.entry_mut(ifindex, &received);
        entry.lookup(ifindex, &received, hook, || jiffies) == Some(reason as u32)
    }

    #[test]
    fn frames_are_alike_of_one_port_destination_tag_and_tick() {
        let other_source = Received {
            source: Mac([2, 0, 0, 0, 0, 3]).to_bits(),
            ethertype: 0x86dd,
            length: 1514,
            ..RECEIVED
        };
        assert!(hits(MET, Reason::Host, (7, other_source, NOW), Hook::Tcx));
        // In the same entry.
        let other_destination = Received {
            destination: Mac([2, 0, 0, 0, 1, 2]).to_bits(),
            ..RECEIVED
        };
        let others = [
            (8, RECEIVED, NOW),
            (7 + 64, RECEIVED, NOW),
            (7, RECEIVED, NOW + 1),
            (7, other_destination, NOW),
            (7, tagged(ETHERTYPE_8021Q, 0), NOW),
            (7, tagged(ETHERTYPE_8021AD, 0), NOW),
            (7, tagged(ETHERTYPE_8021Q, 1), NOW),
        ];
        for (number, other) in others.into_iter().enumerate() {
            assert!(!hits(MET, Reason::Host, other, Hook::Tcx), "{number}");
            assert!(!hits(other, Reason::Host, MET, Hook::Tcx), "{number}");
            for another in &others[..number] {
                assert!(!hits(*another, Reason::Host, other, Hook::Tcx), "{number}");
            }
        }
        // The priority says nothing about where it goes.
        let priority = (7, tagged(ETHERTYPE_8021Q, 0xe001), NOW);
        assert!(hits(others[6], Reason::Host, priority, Hook::Tcx));
    }

    #[test]
    fn a_reason_that_lies_with_the_frame_is_not_cached() {
        for reason in Reason::ALL {
            let is_hit = hits(MET, reason, MET, Hook::Xdp);
            assert_eq!(is_hit, reason.is_cacheable(), "{}", reason.name());
        }
    }

    #[test]
    fn what_keeps_xdp_alone_is_not_cached_for_tcx() {
        for reason in Reason::ALL {
            let expected = reason.is_cacheable() && !reason.is_of_xdp_alone();
            assert_eq!(hits(MET, reason, MET, Hook::Tcx), expected, "{}", reason.name());
        }
    }

    #[test]
    fn an_empty_cache_has_nothing_for_any_frame() {
        let nowhere = Received {
            destination: 0,
            ..RECEIVED
        };
        let mut cache = NegativeCache::EMPTY;
        // An index is never 0, so that the empty entry is nobody's.
        let found = cache.entry_mut(1, &nowhere).lookup(1, &nowhere, Hook::Xdp, || 0);
        assert_eq!(found, None);
    }

    #[test]
    fn neighbours_have_entries_of_their_own() {
        let mut cache = NegativeCache::EMPTY;
        let mut entries = std::collections::BTreeSet::new();
        for number in 0..64 {
            let destination = Mac([2, 0, 0, 0, 0, number]).to_bits();
            let received = Received {
                destination,
                ..RECEIVED
            };
            entries.insert(&raw const *cache.entry_mut(7, &received));
        }
        assert_eq!(entries.len(), 64);
        entries.clear();
        for ifindex in 0..64 {
            entries.insert(&raw const *cache.entry_mut(ifindex, &RECEIVED));
        }
        assert_eq!(entries.len(), 64);
    }
}
