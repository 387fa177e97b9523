//! Which hook is chosen for which traffic, and when.

use std::time::Duration;

use bridge_common::{
    Hook,
    counters::Traffic,
    forwarding::Reason,
    hook_policy::{CALM_INTERVAL, CounterDelta, CounterSnapshot, HookPolicy, INTERVAL},
};
use proptest::prelude::*;

/// What a port sends in an interval.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    short: u64,
    /// Short frames that XDP leaves to tcx.
    left: u64,
    bulk: u64,
    /// Short frames that vhost-net sends.
    vhost_net: u64,
}

const SILENCE: Load = load(0, 0, 0);
const SHORT: Load = load(50_000, 0, 0);
const BULK: Load = load(200, 0, 5_000);
const TUNNELS: Load = load(0, 50_000, 0);
const VHOST_NET: Load = Load {
    vhost_net: 1,
    ..SHORT
};

const fn load(short: u64, left: u64, bulk: u64) -> Load {
    Load {
        short,
        left,
        bulk,
        vhost_net: 0,
    }
}

/// A port, and `run` looking at it.
struct Port {
    policy: HookPolicy,
    look: CounterSnapshot,
    now: Duration,
    /// When its hooks changed.
    changes: Vec<Duration>,
    /// XDP comes in the middle of an interval.
    comes: bool,
}

impl Port {
    fn new(xdp: bool) -> Self {
        Self {
            policy: HookPolicy::new(xdp),
            look: CounterSnapshot::default(),
            now: Duration::ZERO,
            changes: Vec::new(),
            comes: false,
        }
    }

    /// An interval passes; answers with what is to be done.
    fn pass(&mut self, load: Load) -> Option<bool> {
        let xdp = self.policy.xdp();
        let before = self.look;
        let CounterSnapshot { counters, forwarded } = &mut self.look;
        counters.bulk.frames += load.bulk;
        counters.bulk.bytes += load.bulk * 65_000;
        let all = load.short + load.left + load.bulk + load.vhost_net;
        let native = if xdp {
            let part = if self.comes { 2 } else { 1 };
            let left = &mut counters.left[Hook::Xdp as usize];
            left[Reason::Checksum as usize] += load.left / part;
            left[Reason::Generic as usize] += load.bulk / part;
            left[Reason::VhostNet as usize] += load.vhost_net;
            load.short / part
        } else {
            0
        };
        let passed = all - native;
        forwarded.via[Hook::Xdp as usize].frames += native;
        forwarded.via[Hook::Tcx as usize].frames += passed;
        self.now += INTERVAL;
        self.comes = false;
        let delta = CounterDelta::between(&before, &self.look, xdp);
        self.policy.observe(&delta, self.now)
    }

    /// An interval passes, and what is to be done is done.
    fn follow(&mut self, load: Load) {
        if let Some(xdp) = self.pass(load) {
            self.policy.changed(xdp, self.now);
            self.changes.push(self.now);
            self.comes = xdp;
        }
    }

    fn follow_for(&mut self, load: Load, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.follow(load);
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn xdp_goes_off_a_port_that_sends_bulk_after_two_intervals() {
    let mut port = Port::new(true);
    assert_eq!(port.pass(BULK), None);
    assert_eq!(port.pass(BULK), Some(false));
    // It stays wanted until it is done.
    assert_eq!(port.pass(BULK), Some(false));
}

#[test]
fn what_a_whole_second_has_brought_counts_as_all_its_intervals() {
    let mut port = Port::new(true);
    port.pass(SILENCE);
    port.now += CALM_INTERVAL.saturating_sub(INTERVAL);
    assert_eq!(port.pass(BULK), Some(false));
    // So does one that was looked at late.
    let mut port = Port::new(false);
    port.pass(SILENCE);
    port.now += INTERVAL;
    assert_eq!(port.pass(SHORT), Some(true));
}

#[test]
fn xdp_comes_to_a_port_that_sends_short_frames_after_two_intervals() {
    let mut port = Port::new(false);
    assert_eq!(port.pass(SHORT), None);
    assert_eq!(port.pass(SHORT), Some(true));
}

#[test]
fn a_port_with_little_traffic_need_not_be_looked_at_so_often() {
    for (load, calm) in [
        (SILENCE, true),
        (load(150, 0, 0), true),
        (load(0, 500, 0), true),
        (load(0, 0, 40), true),
        (load(200, 0, 0), false),
        (load(0, 600, 0), false),
        (load(0, 0, 60), false),
        (SHORT, false),
    ] {
        let mut port = Port::new(true);
        let before = port.look;
        port.pass(load);
        let delta = CounterDelta::between(&before, &port.look, true);
        assert_eq!(delta.balance(true).is_calm(), calm, "{load:?}");
    }
}

#[test]
fn xdp_goes_at_once_off_a_port_that_vhost_net_serves_and_is_tried_ever_so_rarely() {
    let mut port = Port::new(true);
    port.follow(VHOST_NET);
    assert!(!port.policy.xdp());
    port.follow_for(VHOST_NET, 600 * SECOND);
    let (off, on): (Vec<_>, Vec<_>) = port.changes.chunks(2).map(|pair| (pair[0], pair.get(1))).unzip();
    assert!((8..=10).contains(&off.len()), "{:?}", port.changes);
    for (on, off) in on.into_iter().flatten().zip(&off[1..]) {
        assert!(off.saturating_sub(*on) <= 2 * SECOND, "{:?}", port.changes);
    }
}

#[test]
fn a_port_keeps_the_hook_that_fits() {
    for (xdp, load) in [(true, SHORT), (false, BULK), (true, SILENCE), (false, SILENCE)] {
        let mut port = Port::new(xdp);
        port.follow_for(load, 60 * SECOND);
        assert_eq!(port.changes, [], "{load:?}");
    }
}

#[test]
fn silence_says_nothing_and_one_interval_is_not_enough() {
    let mut port = Port::new(true);
    for load in [SILENCE, BULK, SILENCE, SHORT, BULK, SILENCE, SILENCE] {
        assert_eq!(port.pass(load), None, "{load:?}");
    }
    assert_eq!(port.pass(BULK), Some(false), "with the one before the silence");
}

/// 1.2 ms of short frames a second, and 0.12 ms.
#[test]
fn a_change_is_made_when_it_has_paid() {
    for (rate, seconds) in [(400, 1), (40, 9)] {
        let mut port = Port::new(false);
        port.follow_for(load(rate, 0, 0), 60 * SECOND);
        let [change] = port.changes[..] else {
            panic!("{:?}", port.changes);
        };
        assert!(
            (seconds * SECOND / 2..=seconds * SECOND).contains(&change),
            "{change:?}"
        );
    }
}

#[test]
fn the_hook_follows_traffic_that_changes_now_and_then() {
    let mut port = Port::new(true);
    for _ in 0..10 {
        port.follow_for(BULK, 5 * SECOND);
        assert!(!port.policy.xdp());
        port.follow_for(SHORT, 5 * SECOND);
        assert!(port.policy.xdp());
    }
    assert_eq!(port.changes.len(), 20);
    for (number, change) in (0..).zip(&port.changes) {
        assert!(
            *change <= number * 5 * SECOND + 2 * INTERVAL,
            "{:?}",
            port.changes
        );
    }
}

#[test]
fn the_hook_changes_at_most_once_a_second() {
    let mut port = Port::new(true);
    for _ in 0..600 {
        port.follow_for(BULK, 2 * INTERVAL);
        port.follow_for(SHORT, 2 * INTERVAL);
    }
    let changes = port.changes.windows(2);
    assert!(
        changes.into_iter().all(|pair| pair[1] >= pair[0] + SECOND),
        "{:?}",
        port.changes
    );
}

#[test]
fn xdp_is_tried_ever_more_rarely_where_it_leaves_all_to_tcx() {
    let mut port = Port::new(true);
    port.follow_for(TUNNELS, 1200 * SECOND);
    assert!(!port.policy.xdp());
    // Seven times in the first minutes, with twice the pause each time, then once a minute.
    assert!((30..60).contains(&port.changes.len()), "{:?}", port.changes);
    let pauses = port
        .changes
        .windows(2)
        .step_by(2)
        .map(|pair| pair[1].saturating_sub(pair[0]));
    let pauses: Vec<_> = pauses.collect();
    assert!(
        pauses.is_sorted() && pauses.last() <= Some(&(65 * SECOND)),
        "{pauses:?}"
    );
    // What it is tried for is seen when it comes, and then it stays as long as that.
    port.follow_for(SHORT, 65 * SECOND);
    assert!(port.policy.xdp());
    let changes = port.changes.len();
    port.follow_for(SHORT, 60 * SECOND);
    port.follow_for(BULK, SECOND);
    port.follow_for(SHORT, 2 * SECOND);
    assert!(
        port.policy.xdp() && port.changes.len() == changes + 2,
        "{:?}",
        port.changes
    );
}

#[test]
fn a_change_that_fails_is_tried_again_later() {
    let mut port = Port::new(false);
    port.follow(SHORT);
    let mut attempts = Vec::new();
    for _ in 0..600 {
        if port.pass(SHORT).is_some() {
            attempts.push(port.now);
            port.policy.failed(port.now);
        }
    }
    assert!((6..10).contains(&attempts.len()), "{attempts:?}");
    assert!(!port.policy.xdp());
}

#[test]
fn counters_that_begin_anew_do_no_harm() {
    let mut before = CounterSnapshot::default();
    before.forwarded.via.fill(Traffic { frames: 9, bytes: 9 });
    before.counters.left_traffic.frames = 9;
    before.counters.left.as_flattened_mut().fill(9);
    for xdp in [true, false] {
        let delta = CounterDelta::between(&before, &CounterSnapshot::default(), xdp);
        assert_eq!(delta, CounterDelta::default());
    }
}

#[test]
fn what_is_left_to_the_bridge_counts_where_xdp_has_met_it() {
    let mut now = CounterSnapshot::default();
    now.counters.left_traffic.frames = 5;
    now.forwarded.via.fill(Traffic { frames: 1, bytes: 60 });
    for (xdp, frames) in [(true, 7), (false, 2)] {
        assert_eq!(
            CounterDelta::between(&CounterSnapshot::default(), &now, xdp).frames,
            frames
        );
    }
}

proptest! {
    #[test]
    fn steady_traffic_that_xdp_takes_changes_a_hook_once_at_most(
        xdp: bool,
        short in 0_u64..500_000,
        bulk in 0_u64..20_000,
    ) {
        let mut port = Port::new(xdp);
        port.follow_for(load(short, 0, bulk), 120 * SECOND);
        prop_assert!(port.changes.len() <= 1, "{:?}", port.changes);
    }
}
