//! Targets whose readers don't read.

use std::process::Command;

use crate::support::{
    frames::{BROADCAST, Flow, hello},
    linux_bridge::stop_learning,
    program::{ip, link, run},
    switch::Switch,
    wire::{drain, send},
};

crate::tests![
    what_a_full_ring_loses_is_counted_whatever_way_it_came,
    a_full_ring_does_not_hurt_other_ports,
    losses_of_an_earlier_attachment_are_not_counted,
    a_longer_ring_takes_a_longer_burst,
];

const FRAMES: u64 = 1500;

fn ring(tap: &str) -> u64 {
    link(tap).expect("a tap")["txqlen"].as_u64().expect("a number")
}

/// Frames that a tap has lost, as `ip -s link` counts them.
fn lost(tap: &str) -> u64 {
    let mut command = Command::new("ip");
    command.args(["-s", "-j", "link", "show", "dev", tap]);
    let shown = run(command).json();
    shown[0]["stats64"]["tx"]["dropped"].as_u64().expect("a number")
}

/// So many frames fill a tap's ring. The kernel frees the places of frames that were read some at a time
/// (`__ptr_ring_discard_one`), so there may be a few less than the ring is long.
#[track_caller]
fn assert_full(tap: &str, received: u64) {
    let ring = ring(tap);
    assert!(
        received <= ring && received + 32 > ring,
        "{received} of {ring} places"
    );
}

fn what_a_full_ring_loses_is_counted_whatever_way_it_came() {
    for (hook, destination) in [("xdp", None), ("tcx", None), ("xdp", Some(BROADCAST))] {
        let switch = Switch::with_hook(2, hook);
        let [vm1, vm2] = switch.taps();
        switch.introduce();
        stop_learning("vm1");
        let frame = destination
            .map_or(Flow::udp(1, 2), |to| Flow::udp(1, 2).to(to))
            .frame(b"more");
        for _ in 0..FRAMES {
            send(vm1, &frame);
        }
        let received = vm2.drain().expect("receive") as u64;
        assert_full("vm2", received);
        let stats = switch.stats();
        assert_eq!(lost("vm2"), FRAMES - received, "{hook}: {stats:#?}");
        assert_eq!(
            stats.port("vm2").tx_dropped,
            FRAMES - received,
            "{hook}: {stats:#?}"
        );
        // With the frame by which vm1 was introduced.
        assert_eq!(stats.port("vm1").rx.frames, FRAMES + 1, "{hook}: {stats:#?}");
        let expected = match destination {
            Some(_) => 0,
            None => FRAMES,
        };
        assert_eq!(
            stats.path("vm1", "vm2", hook).frames,
            expected,
            "{hook}: {stats:#?}"
        );
    }
}

fn a_full_ring_does_not_hurt_other_ports() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let mut received = 0;
    for _ in 0..FRAMES / 100 {
        for _ in 0..100 {
            send(vm1, &Flow::udp(1, 2).frame(b"to the deaf"));
            send(vm1, &Flow::udp(1, 3).frame(b"to the other"));
            send(vm1, &hello(1));
        }
        received += vm3.drain().expect("receive");
    }
    assert_eq!(received as u64, 2 * FRAMES);
    assert_eq!(lost("vm3"), 0);
    let at_two = vm2.drain().expect("receive") as u64;
    assert_eq!(at_two + lost("vm2"), 2 * FRAMES);
    assert_full("vm2", at_two);
}

fn losses_of_an_earlier_attachment_are_not_counted() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    for _ in 0..ring("vm2") + 7 {
        send(vm1, &hello(1));
    }
    assert_eq!(switch.stats().port("vm2").tx_dropped, 7);
    switch.ok("detach vm2");
    switch.ok("attach vm2");
    assert_eq!(switch.stats().port("vm2").tx_dropped, 0);
    send(vm1, &hello(1));
    let stats = switch.stats();
    assert_eq!(stats.port("vm2").tx_dropped, 1, "{stats:#?}");
    assert_eq!(lost("vm2"), 8);
    drain(&[vm2]);
}

fn a_longer_ring_takes_a_longer_burst() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(2, hook);
        let [vm1, vm2] = switch.taps();
        switch.introduce();
        stop_learning("vm1");
        assert!(ring("vm2") < FRAMES);
        // While it is attached, too.
        ip(&format!("link set dev vm2 txqueuelen {FRAMES}"));
        for _ in 0..FRAMES {
            send(vm1, &Flow::udp(1, 2).frame(b"more"));
        }
        assert_eq!(vm2.drain().expect("receive") as u64, FRAMES, "{hook}");
        assert_eq!(lost("vm2"), 0, "{hook}");
    }
}
