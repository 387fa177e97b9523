//! Several bridges: in one network namespace and in different ones.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command, time::Duration};

use aya::maps::{Array, Map, MapData};
use lab::{Namespace, Tap};
use tapbridge::common::layout::{Bridge, map};

use crate::support::{
    frames::{BROADCAST, Flow, hello, payload},
    program::{happens, ip, run},
    switch::{Switch, command_in, unique},
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    bridges_side_by_side_leak_no_frames_into_each_other,
    a_bridge_is_detached_by_itself,
    a_bridge_of_another_network_namespace_is_shown_and_otherwise_refused,
    bridges_of_different_network_namespaces_do_not_disturb_each_other,
    a_bridge_without_devices_belongs_to_its_namespace_while_something_keeps_that,
    a_bridge_whose_namespace_is_gone_is_cleared_away,
    a_namespace_does_not_take_the_bridge_of_one_that_had_its_inode,
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

/// How long the kernel may take to clear a namespace away.
const LIMIT: Duration = Duration::from_secs(20);

/// Pins a bridge of one port. The port's device is gone then.
fn attach_for_a_moment(state: &Path, bridge: &str) {
    let tap = Tap::open("vm1").expect("open a tap");
    run(command_in(state, &format!("attach vm1 --bridge {bridge}"))).success();
    drop(tap);
}

fn change_record(switch: &Switch, bridge: &str, change: impl FnOnce(&mut Bridge)) {
    let pinned = MapData::from_pin(switch.state().join(bridge).join(map::BRIDGE)).expect("the record");
    let mut records: Array<_, Bridge> = Map::Array(pinned).try_into().expect("an array of one");
    let mut record = records.get(&0, 0).expect("the record");
    change(&mut record);
    records.set(0, record, 0).expect("write the record");
}

fn a_bridge_without_devices_belongs_to_its_namespace_while_something_keeps_that() {
    let switch = Switch::detached(1);
    let is_kept = || {
        let shown = &switch.json("show --bridge far")["bridges"][0];
        assert_eq!(
            (
                &shown["here"],
                &shown["namespace_gone"],
                &shown["ports"][0]["state"]
            ),
            (&false.into(), &false.into(), &"gone".into()),
            "{shown}"
        );
        for words in ["attach vm1 --bridge far", "detach --all --bridge far"] {
            let complaint = switch.fails(words);
            assert!(
                complaint.contains("far: is in another network namespace"),
                "{words}: {complaint}"
            );
        }
        assert_eq!(switch.json("detach --all")["cleared"], serde_json::json!([]));
    };
    // A name.
    let named = Namespace::create(&unique("tbtest-")).expect("a namespace");
    let path = named.path().expect("a named namespace");
    let state = switch.state();
    named.run(|| attach_for_a_moment(state, "far"));
    let open = Namespace::open(&path).expect("open the namespace");
    is_kept();
    // A descriptor.
    drop(named);
    is_kept();
    // A process.
    let mut sleep = open.command("sleep").expect("a command");
    let mut child = sleep.arg("20").spawn().expect("start sleep");
    drop((sleep, open));
    is_kept();
    // Who does not see that process is in doubt.
    let detach = command_in(state, "-j detach --all");
    let mut blind = Command::new("unshare");
    blind
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(detach.get_program());
    blind.args(detach.get_args());
    assert_eq!(run(blind).json()["cleared"], serde_json::json!([]));
    is_kept();
    child.kill().expect("kill sleep");
    child.wait().expect("wait for sleep");
    let cleared = switch.json("detach --all");
    assert_eq!(cleared["cleared"][0]["bridge"], "far", "{cleared}");
}

fn a_bridge_whose_namespace_is_gone_is_cleared_away() {
    let switch = Switch::detached(1);
    let abandon = || {
        let namespace = Namespace::create(&unique("tbtest-")).expect("a namespace");
        let state = switch.state();
        namespace.run(|| {
            ip("link add port0 up type veth peer name host0");
            run(command_in(state, "attach port0 --bridge far")).success();
        });
        let path = namespace.path().expect("a named namespace");
        let inode = fs::metadata(path).expect("the namespace").ino();
        drop(namespace);
        assert!(
            happens(LIMIT, || switch.json("show")["bridges"][0]["namespace_gone"]
                == true),
            "{}",
            switch.ok("show")
        );
        format!("its network namespace (net:[{inode}]) is gone")
    };
    let reason = abandon();
    assert!(switch.ok("show").contains(&reason));
    for words in ["stats", "fdb show", "set --ageing-time 9", "detach port0"] {
        let complaint = switch.fails(&format!("{words} --bridge far"));
        assert!(
            complaint.contains(&format!("bridge far: {reason}")) && complaint.contains("clears it away"),
            "{words}: {complaint}"
        );
    }
    let cleared = format!("bridge far: cleared away: {reason}\n");
    let output = switch.tapbridge("attach vm1 --bridge far");
    assert_eq!(output.stderr, cleared, "{output}");
    assert_eq!(output.success(), "vm1: attached to far (xdp + tcx, auto)\n");
    switch.ok("detach --all");

    let reason = abandon();
    let attached = switch.json("attach vm1 --bridge near");
    assert_eq!(
        attached["cleared"],
        serde_json::json!([{ "bridge": "far", "reason": reason }])
    );
    abandon();
    let cleared = switch.json("detach --all --bridge far");
    assert_eq!(cleared["cleared"][0]["bridge"], "far", "{cleared}");
    assert_eq!(switch.stats().bridge, "near");
    // One of another version is cleared away as others are: if it is named.
    abandon();
    change_record(&switch, "far", |record| record.version -= 1);
    switch.ok("detach --all --bridge far");
    let reason = abandon();
    let output = switch.tapbridge("detach --all");
    assert_eq!(
        output.stderr,
        format!("bridge far: cleared away: {reason}\n"),
        "{output}"
    );
    assert_eq!(output.success(), "vm1: detached (near)\n");
    assert!(!switch.state().exists());
}

fn a_namespace_does_not_take_the_bridge_of_one_that_had_its_inode() {
    let mut switch = Switch::detached(2);
    switch.ok("attach vm1");
    change_record(&switch, "tapbridge", |record| record.network_cookie ^= 1 << 31);
    // As long as a port has its device there is no doubt that its namespace is there.
    let shown = &switch.json("show")["bridges"][0];
    assert_eq!(
        (&shown["here"], &shown["namespace_gone"]),
        (&false.into(), &false.into())
    );
    switch.remove("vm1");
    let shown = &switch.json("show")["bridges"][0];
    assert_eq!(
        (&shown["here"], &shown["namespace_gone"]),
        (&false.into(), &true.into())
    );
    let attached = switch.json("attach vm2");
    assert_eq!(attached["cleared"][0]["bridge"], "tapbridge", "{attached}");
    let ports = switch.stats().ports;
    assert_eq!(ports.len(), 1, "{ports:#?}");
    assert_eq!(ports[0].ifname, "vm2");
}
