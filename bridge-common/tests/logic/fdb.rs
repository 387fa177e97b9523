//! When an entry of the forwarding database expires.

use bridge_common::fdb::FdbEntry;
use proptest::prelude::*;

fn seen_at(last_seen: u64) -> FdbEntry {
    FdbEntry {
        last_seen,
        generation: 1,
        slot: 1,
        reserved: 0,
    }
}

#[test]
fn an_entry_lives_for_the_ageing_time_and_not_a_nanosecond_longer() {
    let entry = seen_at(1_000);
    for (now, ageing, expired) in [
        (1_000, 300, false),
        (1_299, 300, false),
        (1_300, 300, false),
        (1_301, 300, true),
        (u64::MAX, 300, true),
        (1_000, 0, false),
        (1_001, 0, true),
        (u64::MAX, u64::MAX, false),
    ] {
        assert_eq!(
            entry.is_expired(now, ageing),
            expired,
            "at {now}, ageing {ageing}"
        );
    }
}

proptest! {
    /// Two CPUs' clocks may differ by a tick: an entry from the future is a fresh one.
    #[test]
    fn an_entry_does_not_expire_when_the_clock_goes_backwards(last_seen: u64, back: u64, ageing: u64) {
        prop_assert!(!seen_at(last_seen).is_expired(last_seen.saturating_sub(back), ageing));
    }

    #[test]
    fn an_expired_entry_stays_expired(last_seen: u64, now: u64, later: u64, ageing: u64) {
        let entry = seen_at(last_seen);
        let (now, later) = (now.min(later), now.max(later));
        prop_assert!(!entry.is_expired(now, ageing) || entry.is_expired(later, ageing));
    }
}
