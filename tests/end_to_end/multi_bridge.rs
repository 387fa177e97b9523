//! Several bridges: in one network namespace and in different ones.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use aya::maps::{Array, Map, MapData};
use lab::{Namespace, Tap};
use serde_json::{Value, json};
use tapbridge::common::fastpath::{Settings, map};

use crate::support::{
    frames::{BROADCAST, Flow, hello, payload},
    linux_bridge::stop_learning,
    program::{LIMIT, happens, ip, link, run},
    switch::{BRIDGE, Switch, command_in, unique},
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    bridges_side_by_side_leak_no_frames_into_each_other,
    a_bridge_is_detached_by_itself,
    what_is_attached_in_another_network_namespace_is_left_alone,
    bridges_of_different_network_namespaces_do_not_disturb_each_other,
    pins_without_devices_belong_to_their_namespace_while_something_keeps_that,
    pins_whose_namespace_is_gone_are_cleared_away,
    a_namespace_does_not_take_the_pins_of_one_that_had_its_inode,
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
    for tap in ["vm1", "vm4"] {
        stop_learning(tap);
    }
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
    let names: Vec<_> = stats.iter().map(|bridge| bridge.bridge.as_deref()).collect();
    assert_eq!(names, [Some("one"), Some("two")]);
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
    switch.ok("detach --master two");
    assert!(link("one").is_some() && link("two").is_none());
    let shown = switch.json("show");
    assert_eq!(shown["bridges"].as_array().map(Vec::len), Some(1));
    assert_eq!(shown["bridges"][0]["bridge"], "one");
    for words in [
        "detach --master two",
        "show --bridge two",
        "stats --bridge two",
        "fdb show --bridge two",
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

fn what_is_attached_in_another_network_namespace_is_left_alone() {
    let switch = Switch::detached(1);
    let elsewhere = Elsewhere::new(&switch, "far");
    let nothing = json!([]);
    assert_eq!(switch.json("show")["bridges"], nothing);
    assert_eq!(switch.json("fdb show"), nothing);
    assert_eq!(switch.all_stats(), []);
    for words in [
        "show --bridge far",
        "stats --bridge far",
        "fdb show --bridge far",
        "detach --master far",
    ] {
        let complaint = switch.fails(words);
        assert!(complaint.contains("far"), "{words}: {complaint}");
    }
    let detached = switch.json("detach --all");
    assert_eq!((&detached["ports"], &detached["cleared"]), (&nothing, &nothing));
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
    assert_eq!(switch.stats().bridge.as_deref(), Some("near"));
    elsewhere.ok("detach vm1");
    assert_eq!(switch.stats().ports.len(), 2);
    send(near[0], &Flow::udp(1, 2).frame(b"still here"));
    assert_receives(near[1], &Flow::udp(1, 2).frame(b"still here"));
}

/// Attaches a port. Its device is gone then.
fn attach_for_a_moment(state: &Path) {
    let tap = Tap::open("vm1").expect("open a tap");
    run(command_in(state, "attach vm1")).success();
    drop(tap);
    // Else the bridge would keep the devices of the namespace.
    ip(&format!("link del {BRIDGE}"));
}

fn change_settings(switch: &Switch, change: impl FnOnce(&mut Settings)) {
    let folder = switch.folder().expect("something pinned");
    let pinned = MapData::from_pin(folder.join(map::SETTINGS)).expect("the settings");
    let mut map: Array<_, Settings> = Map::Array(pinned).try_into().expect("an array of one");
    let mut settings = map.get(&0, 0).expect("the settings");
    change(&mut settings);
    map.set(0, settings, 0).expect("write the settings");
}

fn name_of(folder: &Path) -> Value {
    folder.file_name().expect("a name").to_string_lossy().into()
}

fn pins_without_devices_belong_to_their_namespace_while_something_keeps_that() {
    let switch = Switch::detached(1);
    let is_kept = || {
        switch.ok("attach vm1");
        let detached = switch.json("detach --all");
        assert_eq!(detached["cleared"], json!([]), "{detached}");
        assert!(switch.folder().is_some());
    };
    // A name.
    let named = Namespace::create(&unique("tbtest-")).expect("a namespace");
    let path = named.path().expect("a named namespace");
    let state = switch.state();
    named.run(|| attach_for_a_moment(state));
    let folder = switch.folder().expect("something pinned");
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
    assert_eq!(run(blind).json()["cleared"], json!([]));
    is_kept();
    child.kill().expect("kill sleep");
    child.wait().expect("wait for sleep");
    let cleared = switch.json("detach --all");
    assert_eq!(cleared["cleared"][0]["name"], name_of(&folder), "{cleared}");
}

fn pins_whose_namespace_is_gone_are_cleared_away() {
    let switch = Switch::detached(1);
    let abandon = || {
        let namespace = Namespace::create(&unique("tbtest-")).expect("a namespace");
        let state = switch.state();
        namespace.run(|| {
            ip("link add port0 up type veth peer name host0");
            run(command_in(state, "attach port0")).success();
        });
        let folder = switch.folder().expect("something pinned");
        let path = namespace.path().expect("a named namespace");
        let inode = fs::metadata(path).expect("the namespace").ino();
        drop(namespace);
        (
            name_of(&folder),
            format!("its network namespace (net:[{inode}]) is gone"),
        )
    };
    // The kernel takes its time.
    let eventually = |words: &str| {
        let mut cleared = Value::Null;
        let has_cleared = || {
            cleared = switch.json(words)["cleared"].take();
            cleared != json!([])
        };
        assert!(happens(LIMIT, has_cleared), "{words} clears nothing in {LIMIT:?}");
        cleared
    };
    let (name, reason) = abandon();
    assert_eq!(
        eventually("detach --all"),
        json!([{ "name": name, "reason": reason }])
    );
    assert!(!switch.state().exists());
    let (name, reason) = abandon();
    assert_eq!(
        eventually("attach vm1"),
        json!([{ "name": name, "reason": reason }])
    );
    assert_eq!(switch.stats().ports.len(), 1);
    switch.ok("detach --all");
    // Half made, as an upgrade's folder is.
    let (name, reason) = abandon();
    let folder = switch.folder().expect("something pinned");
    change_settings(&switch, |settings| settings.version = 0);
    fs::rename(&folder, format!("{}~", folder.display())).expect("rename a folder");
    assert_eq!(
        eventually("detach --all"),
        json!([{ "name": format!("{}~", name.as_str().expect("a name")), "reason": reason }])
    );
    assert!(!switch.state().exists());
    let (name, reason) = abandon();
    let mut said = String::new();
    let says = || {
        said = switch.tapbridge("detach --all").stderr;
        !said.is_empty()
    };
    assert!(happens(LIMIT, says), "nothing is cleared in {LIMIT:?}");
    assert_eq!(
        said,
        format!("{}: cleared away: {reason}\n", name.as_str().expect("a name"))
    );
    assert!(!switch.state().exists());
}

fn a_namespace_does_not_take_the_pins_of_one_that_had_its_inode() {
    let mut switch = Switch::detached(2);
    switch.ok("attach vm1");
    let folder = switch.folder().expect("something pinned");
    change_settings(&switch, |settings| settings.cookie ^= 1 << 31);
    // As they would lie there: the folder has the cookie's name.
    let cookie = folder.file_name().expect("a name").to_string_lossy().into_owned();
    let other = switch.state().join(format!("{cookie}0"));
    fs::rename(&folder, &other).expect("rename a folder");
    // As long as a port has its device there is no doubt that its namespace is there.
    assert_eq!(switch.json("detach --all")["cleared"], json!([]));
    switch.remove("vm1");
    let attached = switch.json("attach vm2");
    assert_eq!(attached["cleared"][0]["name"], name_of(&other), "{attached}");
    let ports = switch.stats().ports;
    assert_eq!(ports.len(), 1, "{ports:#?}");
    assert_eq!(ports[0].ifname, "vm2");
}
