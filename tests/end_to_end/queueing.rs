//! The queue before a tap's ring is the administrator's: it stays as it is, and decides by which hook frames can come.

use lab::Tap;

use crate::support::{
    frames::Flow,
    linux_bridge::stop_learning,
    program::{link, tc},
    switch::Switch,
    wire::{assert_receives, send},
};

crate::tests![
    a_taps_queue_stays_as_it_was,
    a_queue_that_was_chosen_before_attach_stays,
    a_queue_that_was_chosen_while_attached_stays_and_no_frame_passes_it_by,
    where_there_is_no_queue_xdp_redirects,
];

fn queue(tap: &Tap) -> String {
    let link = link(tap.name()).expect("a tap");
    link["qdisc"].as_str().expect("a queueing discipline").to_owned()
}

/// Frames get through in both directions; those to vm1 by this hook.
#[track_caller]
fn assert_works(switch: &Switch, via: &str) {
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    ["vm1", "vm2"].into_iter().for_each(stop_learning);
    let before = switch.stats().path("vm2", "vm1", via).frames;
    for (from, to, flow) in [(vm1, vm2, Flow::udp(1, 2)), (vm2, vm1, Flow::udp(2, 1))] {
        let frame = flow.frame(&[7; 100]);
        send(from, &frame);
        assert_receives(to, &frame);
    }
    assert_eq!(switch.stats().path("vm2", "vm1", via).frames, before + 1);
}

fn a_taps_queue_stays_as_it_was() {
    let switch = Switch::detached(2);
    let taps: [&Tap; 2] = switch.taps();
    let before = taps.map(queue);
    for hook in ["xdp", "tcx"] {
        switch.attach_all(hook);
        assert_eq!(taps.map(queue), before, "{hook}");
        assert_works(&switch, hook);
        switch.ok("detach vm1 vm2");
        assert_eq!(taps.map(queue), before, "{hook}");
    }
}

fn a_queue_that_was_chosen_before_attach_stays() {
    let switch = Switch::detached(2);
    let [vm1, _] = switch.taps();
    tc("qdisc replace dev vm1 root pfifo limit 77");
    switch.attach_all("xdp");
    assert_eq!(queue(vm1), "pfifo");
    // The kernel itself passes it by while it is empty (`TCQ_F_CAN_BYPASS`).
    assert_works(&switch, "xdp");
    switch.ok("detach --all");
    assert_eq!(queue(vm1), "pfifo");
}

fn a_queue_that_was_chosen_while_attached_stays_and_no_frame_passes_it_by() {
    let switch = Switch::of(2);
    let [vm1, _] = switch.taps();
    assert_works(&switch, "xdp");
    tc("qdisc replace dev vm1 root tbf rate 1gbit burst 10kb latency 1ms");
    assert_works(&switch, "tcx");
    switch.ok("detach --all");
    assert_eq!(queue(vm1), "tbf");
}

fn where_there_is_no_queue_xdp_redirects() {
    let switch = Switch::detached(2);
    let [vm1, _] = switch.taps();
    tc("qdisc replace dev vm1 root noqueue");
    switch.attach_all("xdp");
    assert_works(&switch, "xdp");
    switch.ok("detach --all");
    assert_eq!(queue(vm1), "noqueue");
    // The rig wants it as it was.
    tc("qdisc del dev vm1 root");
}
