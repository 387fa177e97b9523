//! The forwarding database, which is the bridge's: what `fdb show` tells of it.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::support::{
    frames::{Flow, hello, mac, text},
    linux_bridge::stop_learning,
    program::run,
    switch::{BRIDGE, Switch},
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    a_static_address_stays_where_it_was_put,
    a_deleted_address_is_flooded_to,
    a_static_address_replaces_what_was_learned,
    the_json_has_the_keys_of_iproute2,
];

/// Addresses of stations with their ports and states, as shown.
fn shown(switch: &Switch) -> Vec<(String, String, String)> {
    let entries = switch.json("fdb show");
    let word = |entry: &Value, key: &str| entry[key].as_str().expect("a word").to_owned();
    let entries = entries.as_array().expect("entries").iter();
    entries
        .map(|entry| (word(entry, "mac"), word(entry, "ifname"), word(entry, "state")))
        .filter(|(_, _, state)| state != "permanent")
        .collect()
}

fn entry(station: u8, port: &str, state: &str) -> (String, String, String) {
    (text(mac(station)), port.into(), state.into())
}

fn a_static_address_stays_where_it_was_put() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    bridge("fdb replace 52:54:00:00:00:02 dev vm2 master sticky static").success();
    send(vm3, &hello(2));
    drain(&[vm1, vm2]);
    let frame = Flow::udp(1, 2).frame(b"to the static one");
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_silent(&[vm1, vm2, vm3]);
    assert!(shown(&switch).contains(&entry(2, "vm2", "static")));
    assert_eq!(switch.stats().frames("vm1", "vm2"), (1, 0));
}

fn a_deleted_address_is_flooded_to() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    bridge("fdb del 52:54:00:00:00:02 dev vm2 master").success();
    bridge("fdb del 52:54:00:00:00:03 dev vm3 master").success();
    assert_eq!(shown(&switch), [entry(1, "vm1", "")]);
    for station in [2, 3] {
        let frame = Flow::udp(1, station).frame(b"anybody");
        send(vm1, &frame);
        assert_receives(vm2, &frame);
        assert_receives(vm3, &frame);
    }
}

fn a_static_address_replaces_what_was_learned() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    bridge("fdb replace 52:54:00:00:00:02 dev vm3 master static").success();
    let frame = Flow::udp(1, 2).frame(b"to the third");
    send(vm1, &frame);
    assert_receives(vm3, &frame);
    assert_silent(&[vm1, vm2, vm3]);
    // Put elsewhere once more.
    bridge("fdb replace 52:54:00:00:00:02 dev vm2 master static").success();
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_silent(&[vm1, vm2, vm3]);
    assert_eq!(
        shown(&switch),
        [
            entry(1, "vm1", ""),
            entry(2, "vm2", "static"),
            entry(3, "vm3", "")
        ]
    );
}

fn the_json_has_the_keys_of_iproute2() {
    let switch = Switch::of(2);
    switch.introduce();
    bridge("fdb replace 52:54:00:00:00:02 dev vm2 master static").success();
    let theirs = bridge(&format!("-j -s fdb show br {BRIDGE}")).json();
    let ours = switch.json("fdb show");
    let keys = |entry: &Value| -> BTreeSet<String> {
        entry.as_object().expect("an object").keys().cloned().collect()
    };
    for mac in [mac(1), mac(2)] {
        let (ours, theirs) = (find(&ours, mac), find(&theirs, mac));
        let mut own = keys(ours);
        assert!(own.remove("fast"), "{ours}");
        assert!(own.is_subset(&keys(theirs)), "ours: {ours}, iproute2's: {theirs}");
        for key in ["mac", "ifname", "flags", "master", "state"] {
            assert!(!ours[key].is_null(), "no {key} in {ours}");
            assert_eq!(ours[key], theirs[key], "{key} in {ours} and {theirs}");
        }
    }
}

fn bridge(words: &str) -> crate::support::program::Output {
    let mut command = Command::new("bridge");
    command.args(words.split_whitespace());
    run(command)
}

fn find(entries: &Value, mac: [u8; 6]) -> &Value {
    let mac = text(mac);
    let mut all = entries.as_array().expect("entries").iter();
    let found = all.find(|entry| entry["mac"] == *mac && entry["state"] != "permanent");
    found.unwrap_or_else(|| panic!("no {mac}: {entries}"))
}
