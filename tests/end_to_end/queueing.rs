//! Taps have no queue before their ring while they are attached, unless an administrator wants one.

use lab::Tap;

use crate::support::{
    frames::Flow,
    program::{link, tc},
    switch::Switch,
    wire::{assert_receives, send},
};

crate::tests![
    a_tap_has_no_queue_while_it_is_attached,
    a_tap_that_is_down_is_given_its_queue_back_too,
    a_queue_that_was_chosen_before_attach_stays,
    a_queue_that_was_chosen_while_attached_stays,
    a_tap_that_was_to_have_none_still_has_none_after_detach,
];

fn queue(tap: &Tap) -> String {
    let link = link(tap.name()).expect("a tap");
    link["qdisc"].as_str().expect("a queueing discipline").to_owned()
}

/// Frames get through in both directions.
fn assert_works(switch: &Switch) {
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    for (from, to, flow) in [(vm1, vm2, Flow::udp(1, 2)), (vm2, vm1, Flow::udp(2, 1))] {
        let frame = flow.frame(&[7; 100]);
        send(from, &frame);
        assert_receives(to, &frame);
    }
}

fn a_tap_has_no_queue_while_it_is_attached() {
    let switch = Switch::detached(2);
    let taps: [&Tap; 2] = switch.taps();
    let before = taps.map(queue);
    assert_ne!(before, ["noqueue", "noqueue"]);
    for hook in ["xdp", "tcx"] {
        switch.attach_all(hook);
        assert_eq!(taps.map(queue), ["noqueue", "noqueue"], "{hook}");
        assert_works(&switch);
        switch.ok("detach vm1");
        assert_eq!(taps.map(queue), [before[0].as_str(), "noqueue"], "{hook}");
        switch.ok("detach vm2");
        assert_eq!(taps.map(queue), before, "{hook}");
    }
}

fn a_tap_that_is_down_is_given_its_queue_back_too() {
    let switch = Switch::detached(2);
    let [vm1, vm2] = switch.taps();
    let before = queue(vm1);
    vm1.down().expect("set a tap down");
    switch.attach_all("xdp");
    vm1.up().expect("set a tap up");
    assert_eq!(queue(vm1), "noqueue");
    assert_works(&switch);
    vm2.down().expect("set a tap down");
    switch.ok("detach --all");
    vm2.up().expect("set a tap up");
    assert_eq!([vm1, vm2].map(queue), [before.as_str(), &before]);
}

fn a_queue_that_was_chosen_before_attach_stays() {
    let switch = Switch::detached(2);
    let [vm1, _] = switch.taps();
    tc("qdisc replace dev vm1 root pfifo limit 77");
    switch.attach_all("xdp");
    assert_eq!(queue(vm1), "pfifo");
    assert_works(&switch);
    switch.ok("detach --all");
    assert_eq!(queue(vm1), "pfifo");
}

fn a_queue_that_was_chosen_while_attached_stays() {
    let switch = Switch::of(2);
    let [vm1, _] = switch.taps();
    tc("qdisc replace dev vm1 root pfifo limit 77");
    assert_works(&switch);
    switch.ok("detach --all");
    assert_eq!(queue(vm1), "pfifo");
}

fn a_tap_that_was_to_have_none_still_has_none_after_detach() {
    let switch = Switch::detached(2);
    let [vm1, _] = switch.taps();
    tc("qdisc replace dev vm1 root noqueue");
    switch.attach_all("xdp");
    switch.ok("detach --all");
    assert_eq!(queue(vm1), "noqueue");
    // The switch wants it as it was.
    tc("qdisc del dev vm1 root");
}
