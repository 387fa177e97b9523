//! Several bridges: in one network namespace and in different ones.

use lab::{Namespace, Tap};

use crate::support::{
    frames::{BROADCAST, Flow, hello, payload},
    program::run,
    switch::{Switch, command_in, unique},
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    bridges_side_by_side_leak_no_frames_into_each_other,
    a_bridge_is_detached_by_itself,
    a_bridge_of_another_network_namespace_is_shown_and_otherwise_refused,
    bridges_of_different_network_namespaces_do_not_disturb_each_other,
];

fn bridges_side_by_side_leak_no_frames_into_each_other() {
    let switch = Switch::detached(4);
    let [vm1, vm2, vm3, vm4] = switch.taps();
    let all = [vm1, vm2, vm3, vm4];
    switch.ok("attach vm1 vm2 --bridge one");
    switch.ok("attach vm3 vm4 --bridge two");
    for destination in [BROADCAST, [2, 0, 0, 0, 0, 9]] {
        let frame = Flow::udp(1, 9).to(destination).frame(b"in one");
        send(vm1, &frame);
        assert_receives(vm2, &frame);
        assert_silent(&all);
    }
    // Station 1 is known in the first bridge only, station 2 in both, elsewhere.
    send(vm2, &hello(2));
    drain(&[vm1]);
    send(vm3, &hello(2));
    drain(&[vm4]);
    for (from, to) in [(vm1, vm2), (vm4, vm3)] {
        let frame = Flow::tcp(7, 2).frame(&payload(100));
        send(from, &frame);
        assert_receives(to, &frame);
        assert_silent(&all);
    }
    let frame = Flow::udp(7, 1).frame(b"unknown in two");
    send(vm4, &frame);
    assert_receives(vm3, &frame);
    assert_silent(&all);

    let stats = switch.all_stats();
    let names: Vec<_> = stats.iter().map(|bridge| &*bridge.bridge).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(stats[0].frames("vm1", "vm2"), (1, 0), "{stats:#?}");
    assert_eq!(stats[1].frames("vm4", "vm3"), (1, 0), "{stats:#?}");
    let only = switch.json("stats --bridge two");
    assert_eq!(only["bridges"].as_array().map(Vec::len), Some(1));
    assert_eq!(only["bridges"][0]["bridge"], "two");
}

fn a_bridge_is_detached_by_itself() {
    let switch = Switch::detached(3);
    switch.ok("attach vm1 --bridge one");
    switch.ok("attach vm2 vm3 --bridge two");
    let complaint = switch.fails("detach vm2 --bridge one");
    assert!(
        complaint.contains("vm2: not attached to bridge one"),
        "{complaint}"
    );
    switch.ok("detach --all --bridge two");
    let shown = switch.json("show");
    assert_eq!(shown["bridges"].as_array().map(Vec::len), Some(1));
    assert_eq!(shown["bridges"][0]["bridge"], "one");
    let complaint = switch.fails("detach --all --bridge two");
    assert!(
        complaint.contains("two") && complaint.contains("'tapbridge show' lists"),
        "{complaint}"
    );
    for words in [
        "show --bridge two",
        "stats --bridge two",
        "fdb show --bridge two",
        "fdb flush --bridge two",
    ] {
        let complaint = switch.fails(words);
        assert!(
            complaint.contains("two") && complaint.contains("'tapbridge show' lists"),
            "{words}: {complaint}"
        );
    }
}

/// A named network namespace with a bridge of taps vm1 and vm2 in it, pinned beside the bridges of a switch.
struct Elsewhere<'switch> {
    switch: &'switch Switch,
    namespace: Namespace,
    taps: [Tap; 2],
}

impl<'switch> Elsewhere<'switch> {
    fn new(switch: &'switch Switch, bridge: &str) -> Self {
        let namespace = Namespace::create(&unique("tbtest-")).expect("a namespace");
        let taps = namespace.run(|| {
            lab::netns::disable_ipv6().expect("a quiet namespace");
            ["vm1", "vm2"].map(|name| Tap::open(name).expect("open a tap"))
        });
        let elsewhere = Self {
            switch,
            namespace,
            taps,
        };
        elsewhere.ok(&format!("attach vm1 vm2 --bridge {bridge}"));
        elsewhere
    }

    fn ok(&self, words: &str) -> String {
        let state = self.switch.state();
        self.namespace.run(|| run(command_in(state, words)).success())
    }
}

impl Drop for Elsewhere<'_> {
    fn drop(&mut self) {
        self.ok("detach --all");
    }
}

fn a_bridge_of_another_network_namespace_is_shown_and_otherwise_refused() {
    let switch = Switch::detached(1);
    let elsewhere = Elsewhere::new(&switch, "far");
    let shown = switch.json("show --bridge far");
    let bridge = &shown["bridges"][0];
    assert_eq!(
        (bridge["here"].as_bool(), bridge["ports"][0]["state"].as_str()),
        (Some(false), Some("unknown"))
    );
    assert_eq!(bridge["ports"][1]["ifname"], "vm2");
    let path = elsewhere.namespace.path().expect("a named namespace");
    let expected = format!(
        "in another network namespace; use it from there: 'nsenter --net={} tapbridge …'",
        path.display()
    );
    for words in [
        "attach vm1 --bridge far",
        "detach --all --bridge far",
        "detach vm1 --bridge far",
        "stats --bridge far",
        "fdb show --bridge far",
        "fdb flush --bridge far",
        "fdb del 52:54:00:00:00:01 --bridge far",
        "set --ageing-time 9 --bridge far",
    ] {
        let complaint = switch.fails(words);
        assert!(
            complaint.contains("far") && complaint.contains(&expected),
            "{words}: {complaint}"
        );
    }
    // Without a name these concern the bridges of this namespace, and there are none.
    assert_eq!(switch.all_stats(), []);
    switch.ok("detach --all");
    let complaint = switch.fails("detach vm1");
    assert!(complaint.contains("vm1: not attached"), "{complaint}");
    let [vm1, vm2] = &elsewhere.taps;
    send(vm1, &hello(1));
    assert_receives(vm2, &hello(1));
}

fn bridges_of_different_network_namespaces_do_not_disturb_each_other() {
    let switch = Switch::detached(2);
    let elsewhere = Elsewhere::new(&switch, "far");
    // The taps have the same names and the same indexes.
    switch.ok("attach vm1 vm2 --bridge near");
    let near: [&Tap; 2] = switch.taps();
    let far: [&Tap; 2] = elsewhere.taps.each_ref();
    assert_eq!(near.map(Tap::ifindex), far.map(Tap::ifindex));
    for (this, other) in [(near, far), (far, near)] {
        send(this[0], &hello(1));
        assert_receives(this[1], &hello(1));
        send(this[1], &Flow::udp(2, 1).frame(b"back"));
        assert_receives(this[0], &Flow::udp(2, 1).frame(b"back"));
        assert_silent(&other);
    }
    assert_eq!(switch.stats().bridge, "near");
    elsewhere.ok("detach vm1");
    assert_eq!(switch.stats().ports.len(), 2);
    send(near[0], &Flow::udp(1, 2).frame(b"still here"));
    assert_receives(near[1], &Flow::udp(1, 2).frame(b"still here"));
}
