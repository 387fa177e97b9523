//! The forwarding database: which port a MAC address was last seen on, per VLAN.

use crate::{frame::Vlan, mac::Mac};

/// How stale [`FdbEntry::last_seen`] may get before a frame refreshes it, in ns. Writing it on every frame would
/// bounce its cache line between the CPUs of a busy pair of guests; a second is nothing beside the ageing time.
pub const REFRESH_INTERVAL: u64 = 1_000_000_000;

/// The default ageing time in seconds (IEEE 802.1Q-2022, table 8-6, and the Linux bridge).
pub const DEFAULT_AGEING_SECONDS: u64 = 300;

/// An address in a broadcast domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct FdbKey {
    /// The address.
    pub mac: Mac,
    /// The broadcast domain.
    pub vlan: Vlan,
}

impl FdbKey {
    /// The key as it lies in the maps' memory, in one number: a program that stored it octet by octet would wait for
    /// each of them when the kernel reads it as words.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        self.mac.to_bits() | (self.vlan.0 as u64) << 48
    }
}

/// Where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FdbEntry {
    /// When a frame from the address was last seen: `CLOCK_MONOTONIC_COARSE`, ns. Unused in static entries.
    pub last_seen: u64,
    /// The port's generation when the entry was made. An entry of another generation is void.
    pub generation: u32,
    /// The port.
    pub slot: u16,
    /// Keeps the struct free of padding, which the verifier does not let into a map.
    pub reserved: u16,
}

impl FdbEntry {
    /// Whether a learned entry has not been refreshed for the ageing time (ns).
    #[inline(always)]
    pub const fn is_expired(&self, now: u64, ageing: u64) -> bool {
        now.saturating_sub(self.last_seen) > ageing
    }
}
