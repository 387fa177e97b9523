//! Frames that XDP meets as skbs: it leaves every one of them to tcx.

use std::process::Command;

use tapbridge::common::{
    counters::{PassReason, PortCounters},
    mac::Mac,
    port::{Ingress, Port, flag},
};

use crate::{
    Test,
    bench::{Bench, INGRESS, UNKNOWN, generation, untagged},
    cases::{XDP_PASS, XDP_REDIRECT},
    frames::{self, partial, usual},
    packet::{Ip, Shape, Tag},
    switch::Frames,
};

pub const TESTS: &[Test] = &[
    ("xdp_passes_every_generic_frame_up_untouched", every_frame),
    (
        "a_frame_of_any_of_a_devices_queues_is_told_from_a_native_one",
        every_queue,
    ),
    ("xdp_passes_generic_frames_of_a_tap_that_is_down_up", ingress_down),
];

fn every_frame() {
    let bench = Bench::new(Frames::Generic);
    let ifindex = bench.tap(INGRESS).ifindex();
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
    let learned = bench.switch.learned();
    for (passed_up, frame) in (1..).zip(&frames) {
        let ran = bench.switch.xdp(&frame.octets, ifindex);
        assert_eq!(ran.code, XDP_PASS);
        assert_eq!(ran.octets, frame.octets);
        let mut expected = PortCounters::default();
        expected.passed_up[PassReason::Generic as usize] = passed_up;
        assert_eq!(bench.switch.counters(INGRESS), expected);
    }
    assert_eq!(bench.switch.paths(), []);
    assert_eq!(bench.switch.learned(), learned);
    assert!(!learned.contains_key(&untagged(UNKNOWN)));
}

fn every_queue() {
    const QUEUES: u32 = 4;
    for (frames, code) in [(Frames::Generic, XDP_PASS), (Frames::Native, XDP_REDIRECT)] {
        let mut bench = Bench::new(frames);
        let ifindex: u32 = 4242;
        ip("link add queues index 4242 numrxqueues 4 type veth");
        ip("link set dev queues up");
        let port = Port {
            ifindex,
            generation: generation(3),
            flags: flag::ACTIVE,
            ..Port::EMPTY
        };
        bench.switch.set_port(3, port);
        let ingress = Ingress {
            generation: generation(3),
            slot: 3,
        };
        bench.switch.enter(ifindex, ingress);
        for queue in 0..QUEUES {
            let ran = bench.switch.xdp_on_queue(&usual().octets, ifindex, queue);
            assert_eq!(ran.code, code, "queue {queue}, {frames:?}");
        }
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .expect("run ip");
    assert!(status.success(), "ip {arguments}");
}

/// The tun driver drops these itself, behind XDP.
fn ingress_down() {
    let bench = Bench::new(Frames::Generic);
    let tap = bench.tap(INGRESS);
    tap.down().expect("set a tap down");
    assert_eq!(bench.switch.xdp(&usual().octets, tap.ifindex()).code, XDP_PASS);
    assert_eq!(bench.switch.counters(INGRESS).all_passed_up(), 1);
}
