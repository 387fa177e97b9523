//! The forwarding database on the command line.

use std::{collections::BTreeSet, process::Command, thread, time::Duration};

use lab::Tap;
use serde_json::Value;

use crate::support::{
    frames::{Flow, Tag, hello, mac, tagged, text},
    program::{ip, run},
    switch::Switch,
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    a_static_address_stays_where_it_was_put,
    a_static_address_does_not_age,
    a_deleted_address_is_flooded_to,
    a_static_address_replaces_what_was_learned,
    a_flush_keeps_static_addresses_unless_told,
    a_flush_of_one_port_keeps_the_others_addresses,
    the_json_has_the_keys_of_iproute2,
    vlans_are_shown_and_deleted_each_by_itself,
    what_is_not_there_can_not_be_deleted,
];

/// Addresses with their ports and states, as shown.
fn shown(switch: &Switch) -> Vec<(String, String, String)> {
    let entries = switch.json("fdb show");
    let word = |entry: &Value, key: &str| entry[key].as_str().expect("a word").to_owned();
    let entries = entries.as_array().expect("entries").iter();
    entries
        .map(|entry| (word(entry, "mac"), word(entry, "ifname"), word(entry, "state")))
        .collect()
}

fn entry(station: u8, port: &str, state: &str) -> (String, String, String) {
    (text(mac(station)), port.into(), state.into())
}

fn a_static_address_stays_where_it_was_put() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.ok("fdb add 52:54:00:00:00:02 --dev vm2");
    send(vm3, &hello(2));
    drain(&[vm1, vm2]);
    let frame = Flow::udp(1, 2).frame(b"to the static one");
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_silent(&[vm1, vm2, vm3]);
    assert_eq!(shown(&switch), [entry(1, "vm1", ""), entry(2, "vm2", "static")]);
    let stats = switch.stats();
    assert_eq!(
        (stats.port("vm3").learned, stats.port("vm3").moved),
        (0, 0),
        "{stats:#?}"
    );
}

fn a_static_address_does_not_age() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.ok("set --ageing-time 1");
    switch.ok("fdb add 52:54:00:00:00:02 --dev vm2");
    thread::sleep(Duration::from_millis(1100));
    let frame = Flow::udp(1, 2).frame(b"still known");
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_silent(&[vm1, vm2, vm3]);
    assert_eq!(switch.stats().frames("vm1", "vm2"), (1, 0));
}

fn a_deleted_address_is_flooded_to() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    switch.ok("fdb add 52:54:00:00:00:02 --dev vm2");
    switch.ok("fdb del 52:54:00:00:00:02");
    switch.ok("fdb del 52:54:00:00:00:03");
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
    switch.ok("fdb add 52:54:00:00:00:02 --dev vm3");
    let frame = Flow::udp(1, 2).frame(b"to the third");
    send(vm1, &frame);
    assert_receives(vm3, &frame);
    assert_silent(&[vm1, vm2, vm3]);
    // Put elsewhere once more.
    switch.ok("fdb add 52:54:00:00:00:02 --dev vm2");
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

fn a_flush_keeps_static_addresses_unless_told() {
    let switch = Switch::of(2);
    switch.introduce();
    switch.ok("fdb add 52:54:00:00:00:09 --dev vm1");
    assert_eq!(switch.json("fdb flush")["flushed"], 2);
    assert_eq!(shown(&switch), [entry(9, "vm1", "static")]);
    assert_eq!(switch.json("fdb flush --static")["flushed"], 1);
    assert_eq!(shown(&switch), []);
}

fn a_flush_of_one_port_keeps_the_others_addresses() {
    let switch = Switch::of(2);
    switch.introduce();
    switch.ok("fdb add 52:54:00:00:00:08 --dev vm1");
    switch.ok("fdb add 52:54:00:00:00:09 --dev vm2");
    assert_eq!(switch.json("fdb flush --dev vm1 --static")["flushed"], 2);
    assert_eq!(shown(&switch), [entry(2, "vm2", ""), entry(9, "vm2", "static")]);
}

fn the_json_has_the_keys_of_iproute2() {
    let mut switch = Switch::of(2);
    switch.add(Tap::builder("vm3"));
    let [vm1, vm2, _] = switch.taps();
    send(vm1, &hello(1));
    send(vm1, &tagged(&hello(1), Tag::customer(7)));
    drain(&[vm2]);
    switch.ok("fdb add 52:54:00:00:00:02 --dev vm2");
    // The same addresses in a Linux bridge; its VLANs are no part of every kernel.
    ip("link add br0 up type bridge");
    ip("link set dev vm3 master br0");
    bridge("fdb add 52:54:00:00:00:01 dev vm3 master dynamic").success();
    bridge("fdb add 52:54:00:00:00:02 dev vm3 master static").success();
    let theirs = bridge("-j -s fdb show br br0").json();
    let ours = switch.json("fdb show");
    let keys = |entry: &Value| -> BTreeSet<String> {
        let keys = entry.as_object().expect("an object").keys();
        keys.filter(|key| *key != "vlan").cloned().collect()
    };
    for (mac, vlan) in [
        (mac(1), Value::Null),
        (mac(1), Value::from(7)),
        (mac(2), Value::Null),
    ] {
        let ours = find(&ours, mac, &vlan);
        let theirs = find(&theirs, mac, &Value::Null);
        assert!(
            keys(ours).is_subset(&keys(theirs)),
            "ours: {ours}, iproute2's: {theirs}"
        );
        for key in ["mac", "ifname", "flags", "master", "state"] {
            assert!(!ours[key].is_null(), "no {key} in {ours}");
        }
        for key in ["mac", "flags", "state"] {
            assert_eq!(ours[key], theirs[key], "{key} in {ours} and {theirs}");
        }
        assert_eq!(ours["master"], "tapbridge");
    }
}

fn bridge(words: &str) -> crate::support::program::Output {
    let mut command = Command::new("bridge");
    command.args(words.split_whitespace());
    run(command)
}

fn find<'a>(entries: &'a Value, mac: [u8; 6], vlan: &Value) -> &'a Value {
    let mac = text(mac);
    let mut all = entries.as_array().expect("entries").iter();
    let found = all.find(|entry| entry["mac"] == *mac && entry["vlan"] == *vlan);
    found.unwrap_or_else(|| panic!("no {mac} in VLAN {vlan}: {entries}"))
}

fn vlans_are_shown_and_deleted_each_by_itself() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    for frame in [
        hello(1),
        tagged(&hello(1), Tag::customer(5)),
        tagged(&hello(1), Tag::service(5)),
    ] {
        send(vm1, &frame);
    }
    switch.ok("fdb add 52:54:00:00:00:01 --vlan 6 --dev vm2");
    switch.ok("fdb add 52:54:00:00:00:01 --vlan 6 --service --dev vm1");
    drain(&[vm1, vm2]);
    let vlans = || -> Vec<(Option<u64>, bool)> {
        let entries = switch.json("fdb show");
        let entries = entries.as_array().expect("entries").iter();
        entries
            .map(|entry| (entry["vlan"].as_u64(), entry["vlan_protocol"] == "802.1ad"))
            .collect()
    };
    assert_eq!(
        vlans(),
        [
            (None, false),
            (Some(5), false),
            (Some(6), false),
            (Some(5), true),
            (Some(6), true)
        ]
    );
    switch.ok("fdb del 52:54:00:00:00:01 --vlan 5");
    switch.ok("fdb del 52:54:00:00:00:01 --vlan 6 --service");
    assert_eq!(vlans(), [(None, false), (Some(6), false), (Some(5), true)]);
}

fn what_is_not_there_can_not_be_deleted() {
    let switch = Switch::of(2);
    switch.introduce();
    let complaint = switch.fails("fdb del 52:54:00:00:00:01 --vlan 9");
    assert!(
        complaint.contains("52:54:00:00:00:01 vlan 9: no such entry in bridge tapbridge"),
        "{complaint}"
    );
    switch.ok("fdb del 52:54:00:00:00:01");
    switch.fails("fdb del 52:54:00:00:00:01");
    for (mac, reason) in [
        ("01:00:5e:00:00:01", "a group address"),
        ("00:00:00:00:00:00", "all zeroes"),
    ] {
        let complaint = switch.fails(&format!("fdb add {mac} --dev vm1"));
        assert!(complaint.contains(reason), "{complaint}");
    }
    let complaint = switch.fails("fdb add 52:54:00:00:00:01 --dev lo");
    assert!(complaint.contains("lo: not attached"), "{complaint}");
}
