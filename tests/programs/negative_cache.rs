//! For how long the programs leave frames because they have left such a frame before.

use std::{
    thread,
    time::{Duration, Instant},
};

use tapbridge::common::{Hook, forwarding::Reason, mac::Mac};

use crate::{
    Test, frames,
    left::verdict_after_others,
    programs::Frames,
    rig::{Rig, shell},
};

pub const TESTS: &[Test] = &[
    (
        "why_a_frame_was_left_serves_both_hooks_for_a_tick_and_no_longer",
        for_a_tick,
    ),
    ("tcx_carries_at_once_what_xdp_has_left_to_it", left_to_tcx),
];

/// A tick may end between any two frames, the more likely the slower the machine.
const ATTEMPTS: u8 = 50;
/// Much shorter than a tick, which is 1 ms where `HZ` is 1000.
const QUICK: Duration = Duration::from_micros(500);
/// So many quick ones do not all have a tick between them.
const ENOUGH: u32 = 20;
/// Longer than a tick, which is 10 ms where `HZ` is 100.
const TICKS: Duration = Duration::from_millis(25);

/// Both hooks, after each; and the number of a station that no other pair of them has.
fn pairs() -> impl Iterator<Item = (Hook, Hook, u8)> {
    let pairs = Hook::ALL
        .into_iter()
        .flat_map(|first| Hook::ALL.map(|second| (first, second)));
    (0..)
        .zip(pairs)
        .map(|(number, (first, second))| (first, second, number))
}

/// A station that nobody knows says something between two frames to it.
fn for_a_tick() {
    let mut rig = Rig::new(Frames::Native);
    shell("bridge link set dev vm0 learning off");
    let to = rig.ifindex(1);
    for (first, second, number) in pairs() {
        let (mut cached, mut quick) = (0, 0);
        for attempt in 0..ATTEMPTS {
            let station = Mac([2, 1, 0, 0, number, attempt]);
            let frame = frames::to(station).bytes;
            let unknown = Err(Reason::DestinationUnknown);
            assert_eq!(
                verdict_after_others(&mut rig, first, &frame),
                unknown,
                "{first:?}"
            );
            let begin = Instant::now();
            rig.greet(1, station);
            let after = verdict_after_others(&mut rig, second, &frame);
            assert!(after == unknown || after == Ok(to), "{second:?}: {after:?}");
            quick += u32::from(begin.elapsed() < QUICK);
            cached += u32::from(after == unknown);
            thread::sleep(TICKS);
            for hook in Hook::ALL {
                let after = verdict_after_others(&mut rig, hook, &frame);
                assert_eq!(after, Ok(to), "{first:?}, then {hook:?}");
            }
        }
        // An emulated machine is too slow to tell.
        assert!(
            cached > 0 || quick < ENOUGH,
            "{second:?} asks again what {first:?} has asked"
        );
    }
}

fn left_to_tcx() {
    let mut rig = Rig::new(Frames::Native);
    shell(
        "bridge link set dev vm0 learning off; tc qdisc add dev vm1 root tbf rate 1gbit burst 10kb latency 1ms",
    );
    let to = rig.ifindex(1);
    let frame = frames::usual().bytes;
    for _ in 0..ATTEMPTS {
        let left = Err(Reason::Queueing);
        assert_eq!(verdict_after_others(&mut rig, Hook::Xdp, &frame), left);
        assert_eq!(verdict_after_others(&mut rig, Hook::Tcx, &frame), Ok(to));
        assert_eq!(verdict_after_others(&mut rig, Hook::Xdp, &frame), left);
    }
}
