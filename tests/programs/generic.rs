//! Frames that XDP meets as skbs: it leaves every one of them to tcx.

use lab::Tap;
use tapbridge::common::{Hook, fastpath::PortCounters, forwarding::Reason, mac::Mac};

use crate::{
    Test,
    cases::{XDP_PASS, XDP_REDIRECT},
    frames::{self, partial, usual},
    packet::{Ip, Shape, Tag},
    programs::Frames,
    rig::{INGRESS, Rig, UNKNOWN, shell},
};

pub const TESTS: &[Test] = &[
    ("xdp_passes_every_generic_frame_up_untouched", every_frame),
    (
        "a_frame_of_any_of_a_taps_queues_is_told_from_a_native_one",
        every_queue,
    ),
    ("xdp_passes_generic_frames_of_a_tap_that_is_down_up", ingress_down),
];

fn every_frame() {
    let rig = Rig::new(Frames::Generic);
    let ifindex = rig.ifindex(INGRESS);
    let mut frames = vec![
        usual(),
        frames::arp(),
        frames::cut(Tag::Customer, 17),
        frames::fragment(),
        frames::tunnel(Ip::V4),
        frames::from(UNKNOWN),
        frames::to(UNKNOWN),
        frames::to(Mac([0xff; 6])),
        frames::from(Mac([0xff; 6])),
    ];
    frames.extend(Shape::all().map(|shape| partial(shape, 100)));
    for (passed, frame) in (1..).zip(&frames) {
        let ran = rig.programs.xdp(&frame.bytes, ifindex);
        assert_eq!(ran.code, XDP_PASS);
        assert_eq!(ran.bytes, frame.bytes);
        let mut expected = PortCounters::default();
        expected.left[Hook::Xdp as usize][Reason::Generic as usize] = passed;
        assert_eq!(rig.programs.counters()[&ifindex], expected);
    }
    assert_eq!(rig.programs.taken(), []);
}

fn every_queue() {
    const QUEUES: u32 = 4;
    for (frames, code) in [(Frames::Generic, XDP_PASS), (Frames::Native, XDP_REDIRECT)] {
        let mut rig = Rig::new(frames);
        let tap = Tap::builder("vm9").multi_queue().open().expect("open a tap");
        tap.up().expect("set it up");
        let others = (1..QUEUES).map(|_| tap.another_queue().expect("another queue"));
        let _others: Vec<Tap> = others.collect();
        // It need not know the stations behind it.
        shell("ip link set vm9 master br0; bridge link set dev vm9 learning off");
        rig.programs.enter("vm9", tap.ifindex());
        for queue in 0..QUEUES {
            let ran = rig.programs.xdp_on_queue(&usual().bytes, tap.ifindex(), queue);
            assert_eq!(ran.code, code, "queue {queue}, {frames:?}");
        }
    }
}

/// The tun driver drops these itself, behind XDP.
fn ingress_down() {
    let rig = Rig::new(Frames::Generic);
    let tap = &rig.taps[INGRESS];
    tap.down().expect("set a tap down");
    assert_eq!(rig.programs.xdp(&usual().bytes, tap.ifindex()).code, XDP_PASS);
    let left = rig.programs.counters()[&tap.ifindex()].left;
    assert_eq!(left[Hook::Xdp as usize][Reason::Generic as usize], 1);
}
