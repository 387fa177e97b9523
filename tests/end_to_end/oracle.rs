//! The Linux bridge is the oracle: the fast path may carry a frame only where the bridge would, as the bridge would.
//!
//! A script (what an administrator and the guests do) runs on the bridge alone, and again with the fast path attached in
//! several manners, in the same network namespace. After each step every station sends to every other, a frame at a time.
//! What the runs observed must be equal: where each frame arrived, how often, its bytes and header, the order between two
//! ports, the forwarding database, the counters of the devices.

mod churn;
mod ebtables;
mod newer;
mod record;
mod rig;
mod rows;
mod sequences;
mod shot;
mod tap_filter;
mod testbed;
mod traffic;

use std::{
    env,
    time::{Duration, Instant},
};

use bridge_common::{Hook, forwarding::Reason};

use self::{
    record::Record,
    rig::{Manner, Rig, Step},
    testbed::Testbed,
};

pub use self::testbed::remove_all;

pub const TESTS: [&[crate::Test]; 3] = [rows::TESTS, sequences::TESTS, churn::TESTS];

/// Those that need ebtables.
pub use self::ebtables::TESTS as EBTABLES_TESTS;

/// How long a test goes on whose length is free; the environment may say so.
fn seconds(default: u64) -> u64 {
    let wished = env::var("TAPBRIDGE_ORACLE_SECONDS");
    wished.map_or(default, |seconds| seconds.parse().expect("a number of seconds"))
}

/// Says now and then that a test goes on which was asked to take long: whoever runs it takes one that says nothing to hang.
struct Alive(Instant);

impl Alive {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn tell(&mut self, what: &str) {
        if self.0.elapsed() > Duration::from_mins(5) {
            *self = Self::new();
            println!("{what}");
        }
    }
}

/// Runs a script on the bridge alone and in each manner, and compares. With the fast path it must have met this reason to
/// leave frames to the bridge, if one is given.
#[track_caller]
fn compare(script: &[Step], reason: Option<Reason>) {
    let testbed = Testbed::take();
    let run = |manner| {
        let mut rig = Rig::new(&testbed, manner);
        for step in script {
            rig.take_step(step);
        }
        rig.finish()
    };
    let alone = run(Manner::Alone);
    for manner in [Manner::Tcx, Manner::Xdp, Manner::Some] {
        let record = run(manner);
        if let Some(difference) = alone.difference(&record, manner == Manner::Tcx) {
            panic!("{manner:?} is not as the bridge alone:\n{difference}");
        }
        assert_meaningful(&record, manner, reason);
    }
    testbed.give_back();
}

/// A run in which nothing went past the bridge, or nothing was kept from it, proves nothing.
#[track_caller]
fn assert_meaningful(record: &Record, manner: Manner, reason: Option<Reason>) {
    let hooks: &[Hook] = if manner == Manner::Xdp {
        &[Hook::Xdp, Hook::Tcx]
    } else {
        &[Hook::Tcx]
    };
    for &hook in hooks {
        let forwarded = record.forwarded[hook as usize];
        assert!(
            forwarded > 0,
            "{manner:?}: nothing went past the bridge by {hook:?}: {:?}",
            record.reasons()
        );
    }
    let Some(reason) = reason else { return };
    let asked_by = if reason.is_of_xdp_alone() {
        (Manner::Xdp, Hook::Xdp)
    } else {
        (Manner::Tcx, Hook::Tcx)
    };
    if manner == asked_by.0 {
        assert!(
            record.counters.left[asked_by.1 as usize][reason as usize] > 0,
            "{manner:?}: nothing was left because of {reason:?}: {:?}",
            record.reasons()
        );
    }
}
