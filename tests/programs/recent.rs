//! For how long the programs remember why they have left a frame.

use std::{thread, time::Duration};

use tapbridge::common::{Hook, forwarding::Reason, mac::Mac};

use crate::{
    Test, frames,
    programs::Frames,
    rig::{INGRESS, Rig, shell},
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
/// Longer than a tick, which is 10 ms where `HZ` is 100.
const TICKS: Duration = Duration::from_millis(25);

fn run(rig: &mut Rig, hook: Hook, frame: &[u8]) -> Result<u32, Vec<Reason>> {
    rig.programs.clear_counts();
    let from = rig.ifindex(INGRESS);
    match hook {
        Hook::Xdp => rig.programs.xdp(frame, from),
        Hook::Tcx => rig.programs.tcx(frame, from, 0),
    };
    if let [taken] = rig.programs.taken()[..] {
        return Ok(taken.path.to);
    }
    let left = rig.programs.counters()[&from].left[hook as usize];
    let reasons = Reason::ALL.into_iter();
    Err(reasons.filter(|&reason| left[reason as usize] != 0).collect())
}

/// A station that nobody knows says something between two frames to it.
fn for_a_tick() {
    let mut rig = Rig::new(Frames::Native);
    shell("bridge link set dev vm0 learning off");
    let to = rig.ifindex(1);
    for first in Hook::ALL {
        for second in Hook::ALL {
            let mut remembered = 0;
            for attempt in 0..ATTEMPTS {
                let station = Mac([2, 1, 0, first as u8, second as u8, attempt]);
                let frame = frames::to(station).bytes;
                let unknown = Err(vec![Reason::DestinationUnknown]);
                assert_eq!(run(&mut rig, first, &frame), unknown, "{first:?}");
                rig.greet(1, station);
                let after = run(&mut rig, second, &frame);
                assert!(after == unknown || after == Ok(to), "{second:?}: {after:?}");
                remembered += u32::from(after == unknown);
                thread::sleep(TICKS);
                for hook in Hook::ALL {
                    assert_eq!(run(&mut rig, hook, &frame), Ok(to), "{first:?}, then {hook:?}");
                }
            }
            assert!(remembered > 0, "{second:?} asks again what {first:?} has asked");
        }
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
        let left = Err(vec![Reason::Queueing]);
        assert_eq!(run(&mut rig, Hook::Xdp, &frame), left);
        assert_eq!(run(&mut rig, Hook::Tcx, &frame), Ok(to));
        assert_eq!(run(&mut rig, Hook::Xdp, &frame), left);
    }
}
