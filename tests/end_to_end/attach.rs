//! Attaching and detaching: idempotent, all or nothing, and undone without a trace.

use std::{fs, path::Path, process::Stdio, thread, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    bpffs,
    frames::{Flow, arp_request, hello},
    linux_bridge::stop_learning,
    program::{LIMIT, happens, ip, lines, link, run, wait},
    switch::{BRIDGE, Switch, command_in, ipv6, unique},
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    attaching_twice_changes_nothing,
    a_device_named_twice_is_attached_once,
    the_hook_of_an_attached_port_can_be_changed,
    a_failed_attach_undoes_what_it_had_done,
    a_failed_attach_leaves_an_existing_bridge_as_it_was,
    another_xdp_program_is_named_and_left_alone,
    detach_gives_every_setting_back,
    a_bridge_goes_with_its_last_port,
    a_detach_of_several_is_all_or_nothing,
    counters_begin_anew_with_every_attach,
    the_host_answers_nothing_and_sends_nothing_on_a_bridge_that_was_made,
    a_device_without_a_bridge_becomes_a_port_of_one_as_long_as_it_is_attached,
    a_bridge_that_was_there_stays_with_what_others_have_put_there,
    an_alternative_name_will_do_wherever_a_device_is_named,
    xdp_that_a_device_can_not_have_is_said,
    nothing_is_touched_before_all_is_checked,
    a_device_that_goes_away_meanwhile_is_named,
];

fn program(tap: &str) -> Value {
    link(tap).expect("a tap")["xdp"]["prog"]["id"].clone()
}

fn attaching_twice_changes_nothing() {
    let switch = Switch::detached(2);
    let first = switch.json("attach vm1 vm2");
    let port = |name: &str, changed: bool| {
        let ifindex = link(name).expect("a tap")["ifindex"].clone();
        json!({ "ifname": name, "ifindex": ifindex, "master": BRIDGE, "enslaved": changed, "hook": "auto", "hooks": ["xdp", "tcx"], "changed": changed })
    };
    let report = |changed| json!({ "schema": 2, "ports": [port("vm1", changed), port("vm2", changed)], "without_ports": [], "cleared": [] });
    assert_eq!(first, report(true));
    switch.introduce();
    let before = (
        switch.stats(),
        switch.json("show"),
        program("vm1"),
        program("vm2"),
    );
    let known = switch.json("fdb show").as_array().map(Vec::len);
    assert_eq!(switch.json("attach vm1 vm2"), report(false));
    let after = (
        switch.stats(),
        switch.json("show"),
        program("vm1"),
        program("vm2"),
    );
    assert_eq!(before, after);
    assert_eq!(switch.json("fdb show").as_array().map(Vec::len), known);
}

fn a_device_named_twice_is_attached_once() {
    let switch = Switch::detached(2);
    let attached = switch.json("attach vm1 vm2 vm1");
    assert_eq!(attached["ports"].as_array().map(Vec::len), Some(2));
    switch.introduce();
    let detached = switch.json("detach vm1 vm2 vm1");
    assert_eq!(detached["ports"].as_array().map(Vec::len), Some(2));
}

fn the_hook_of_an_attached_port_can_be_changed() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let frame = Flow::udp(1, 2).frame(b"which way?");
    let mut expected = (0, 0);
    for (hook, hooks) in [
        ("xdp", json!(["xdp", "tcx"])),
        ("tcx", json!(["tcx"])),
        ("auto", json!(["xdp", "tcx"])),
        ("tcx", json!(["tcx"])),
        ("xdp", json!(["xdp", "tcx"])),
        ("auto", json!(["xdp", "tcx"])),
    ] {
        let changed = switch.json(&format!("attach vm1 --hook {hook}"))["ports"][0]["changed"].clone();
        assert_eq!(changed, expected != (0, 0), "{hook}");
        assert_eq!(switch.json("attach vm1")["ports"][0]["changed"], false, "{hook}");
        let shown = switch.shown("vm1");
        assert_eq!((&shown["hooks"], &shown["hook"]), (&hooks, &json!(hook)));
        assert_eq!(switch.shown("vm2")["hooks"], json!(["xdp", "tcx"]));
        assert_eq!(program("vm1").is_null(), hook == "tcx");
        send(vm1, &frame);
        assert_receives(vm2, &frame);
        if hook == "tcx" {
            expected.1 += 1;
        } else {
            expected.0 += 1;
        }
        // What was learned and counted stays.
        assert_eq!(switch.stats().frames("vm1", "vm2"), expected);
    }
    assert_silent(&[vm1, vm2]);
}

fn a_failed_attach_undoes_what_it_had_done() {
    let switch = Switch::detached(3);
    ip("link add link vm3 name macvlan0 type macvlan");
    let before = link("vm1");
    for (third, reason) in [
        ("vm9", "vm9: no such network device in this network namespace"),
        (
            "vm3",
            "vm3: can't be a port: macvlan0 lies on it and would get no more frames",
        ),
    ] {
        let complaint = switch.fails(&format!("attach vm1 vm2 {third}"));
        assert!(complaint.contains(reason), "{complaint}");
        assert!(!switch.state().exists());
        assert_eq!(link("vm1"), before);
        assert_eq!(link(BRIDGE), None);
    }
    let [vm1, vm2, _] = switch.taps();
    send(vm1, &hello(1));
    assert_silent(&[vm2]);
}

fn a_failed_attach_leaves_an_existing_bridge_as_it_was() {
    let switch = Switch::detached(5);
    ip("link add link vm5 name macvlan0 type macvlan");
    switch.ok("attach vm1 --hook tcx");
    switch.ok("attach vm2");
    switch.introduce();
    let before = (switch.json("show"), switch.stats());
    for hook in ["xdp", "tcx"] {
        // vm1 or vm2 gets another hook, vm3 becomes a port, and then vm5 can't.
        switch.fails(&format!("attach vm1 vm2 vm3 vm5 --hook {hook}"));
        assert_eq!((switch.json("show"), switch.stats()), before, "{hook}");
        assert!(program("vm1").is_null() && !program("vm2").is_null() && program("vm3").is_null());
    }
    let [vm1, vm2, vm3, vm4, vm5] = switch.taps();
    send(vm1, &Flow::udp(1, 2).frame(b"as before"));
    assert_receives(vm2, &Flow::udp(1, 2).frame(b"as before"));
    send(vm2, &hello(2));
    assert_receives(vm1, &hello(2));
    assert_silent(&[vm1, vm2, vm3, vm4, vm5]);
}

fn another_xdp_program_is_named_and_left_alone() {
    let switch = Switch::detached(4);
    // A program that nobody knows here: that of a bridge in another state folder.
    let stranger = switch.state().with_file_name(unique(bpffs::PREFIX));
    run(command_in(&stranger, "attach vm4")).success();
    attach_xdp_of(&stranger, "vm3");
    let id = program("vm3");
    let complaint = switch.fails("attach vm1 vm2 vm3");
    for words in [
        &format!("vm3: attach xdp: another XDP program is attached (id {id}, \"tapbridge_fast_\")"),
        "'ip link set dev vm3 xdp off', or attach with --hook tcx",
    ] {
        assert!(complaint.contains(words), "{complaint}");
    }
    assert!(!switch.state().exists() && program("vm1").is_null() && program("vm3") == id);
    let has_master = |tap: &str| !link(tap).expect("a tap")["master"].is_null();
    assert!(!["vm1", "vm2", "vm3"].into_iter().any(has_master) && has_master("vm4"));
    // Both of the next steps that it names are right.
    switch.ok("attach vm3 --hook tcx");
    assert_eq!(program("vm3"), id);
    switch.fails("attach vm3 --hook xdp");
    ip("link set dev vm3 xdp off");
    switch.ok("attach vm1 vm2 vm3");
    run(command_in(&stranger, "detach --all")).success();
}

fn detach_gives_every_setting_back() {
    let switch = Switch::detached(2);
    let [vm1, vm2] = switch.taps();
    switch.speak_ipv6("vm1");
    vm1.drain().expect("receive");
    let before = [link("vm1"), link("vm2")];
    for hook in ["xdp", "tcx"] {
        switch.attach_all(hook);
        assert!(ipv6("vm1") && !ipv6("vm2"), "what a port is like is not ours");
        switch.introduce();
        switch.ok("detach vm1 vm2");
        assert!(ipv6("vm1") && !ipv6("vm2"));
        assert_eq!([link("vm1"), link("vm2")], before, "{hook}");
        drain(&[vm1, vm2]);
    }
}

fn a_bridge_goes_with_its_last_port() {
    let switch = Switch::of(2);
    switch.ok("detach vm1");
    assert!(switch.state().exists() && link(BRIDGE).is_some());
    switch.ok("detach vm2");
    assert!(!switch.state().exists() && link(BRIDGE).is_none());
    assert_eq!(
        switch.json("show"),
        json!({ "schema": 2, "running": false, "bridges": [], "unreadable": [] })
    );
    let stats = switch.json("stats");
    assert_eq!(
        [
            &stats["schema"],
            &stats["since"],
            &stats["bridges"],
            &stats["unreadable"]
        ],
        [&json!(2), &Value::Null, &json!([]), &json!([])],
        "{stats}"
    );
    // Nothing to do is no error where nothing is named.
    switch.ok("detach --all");
}

fn a_detach_of_several_is_all_or_nothing() {
    let switch = Switch::of(2);
    let complaint = switch.fails("detach vm1 vm9");
    assert!(
        complaint.contains("vm9: not attached; 'tapbridge show' lists the ports there are"),
        "{complaint}"
    );
    assert_eq!(switch.stats().ports.len(), 2);
}

fn counters_begin_anew_with_every_attach() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    send(vm1, &Flow::udp(1, 2).frame(b"counted"));
    assert_receives(vm2, &Flow::udp(1, 2).frame(b"counted"));
    switch.ok("detach vm1");
    switch.ok("attach vm1");
    let stats = switch.stats();
    assert_eq!(stats.paths, []);
    assert_eq!(
        (stats.port("vm1").rx.frames, stats.port("vm1").tx.frames),
        (0, 0),
        "{stats:#?}"
    );
    let vm2 = stats.port("vm2");
    assert_eq!(vm2.rx.frames, 1, "the other's own counters stay: {stats:#?}");
    // What the bridge sent is what it flooded when vm1 was introduced.
    assert_eq!((vm2.tx.frames, vm2.tx_by_bridge), (1, 1), "{stats:#?}");
}

fn the_host_answers_nothing_and_sends_nothing_on_a_bridge_that_was_made() {
    let switch = Switch::detached(2);
    let [vm1, vm2] = switch.taps();
    // An address makes the host answer ARP on any device of the namespace.
    ip("address add 10.0.0.9/32 dev lo");
    // As outside of quiet namespaces.
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0").expect("write a setting");
    switch.attach_all("xdp");
    assert!(!ipv6(BRIDGE));
    drain(&[vm1, vm2]);
    send(vm1, &arp_request(1, 9));
    assert_receives(vm2, &arp_request(1, 9));
    vm1.down().expect("vm1 down");
    vm1.up().expect("vm1 up");
    thread::sleep(Duration::from_secs(1));
    assert_silent(&[vm1, vm2]);
}

fn a_device_without_a_bridge_becomes_a_port_of_one_as_long_as_it_is_attached() {
    let switch = Switch::detached(3);
    ip("link add br1 up type bridge mcast_snooping 0");
    ip("link set vm3 master br1");
    let master = |tap: &str| link(tap).expect("a tap")["master"].clone();
    let attached = switch.json("attach vm1 vm3");
    assert_eq!(
        [&attached["ports"][0], &attached["ports"][1]].map(|port| (&port["master"], &port["enslaved"])),
        [(&json!(BRIDGE), &json!(true)), (&json!("br1"), &json!(false))]
    );
    let made = link(BRIDGE).expect("a bridge");
    assert_eq!(
        made["ifalias"], "made by tapbridge, goes with its last port",
        "{made}"
    );
    let data = &made["linkinfo"]["info_data"];
    assert_eq!(
        (&data["stp_state"], &data["mcast_snooping"]),
        (&json!(0), &json!(0)),
        "{made}"
    );
    assert_eq!(switch.json("show")["bridges"][1]["own"], true);
    // Its address does not go with the port that it might have been taken from.
    switch.ok("attach vm2 --bridge tapbridge");
    assert_eq!(switch.ok("detach vm1"), "vm1: detached (out of tapbridge)\n");
    assert_eq!(link(BRIDGE).expect("a bridge")["address"], made["address"]);
    assert_eq!(switch.ok("detach vm3"), "vm3: detached (br1)\n");
    assert_eq!(
        [master("vm1"), master("vm2"), master("vm3")],
        [json!(null), json!(BRIDGE), json!("br1")]
    );
    // With its last port: one that others have put there is one.
    ip("link set vm1 master tapbridge");
    switch.ok("detach vm2");
    assert!(link(BRIDGE).is_some());
    switch.ok("attach vm1");
    switch.ok("detach vm1");
    assert!(link(BRIDGE).is_none());
}

fn a_bridge_that_was_there_stays_with_what_others_have_put_there() {
    let switch = Switch::detached(2);
    ip("link add br1 up type bridge mcast_snooping 0");
    ip("link set vm2 master br1");
    let master = |tap: &str| link(tap).expect("a tap")["master"].clone();
    switch.ok("attach vm1 vm2 --bridge br1");
    assert_eq!([master("vm1"), master("vm2")], [json!("br1"), json!("br1")]);
    let complaint = switch.fails("attach vm2 --bridge br2");
    assert!(
        complaint.contains("vm2: can't be a port: a port of br1, and not of br2"),
        "{complaint}"
    );
    let complaint = switch.fails("attach vm1 --bridge vm2");
    assert!(complaint.contains("a port of br1, and not of vm2"), "{complaint}");
    switch.ok("detach vm1 vm2");
    assert_eq!([master("vm1"), master("vm2")], [json!(null), json!("br1")]);
    let complaint = switch.fails("attach vm1 --bridge vm2");
    assert!(complaint.contains("vm2: not a Linux bridge"), "{complaint}");
    // Who takes it out, or puts it elsewhere, wants it there.
    ip("link add br2 up type bridge mcast_snooping 0");
    switch.ok("attach vm1 --bridge br1");
    ip("link set vm1 master br2");
    assert_eq!(switch.ok("detach vm1"), "vm1: detached (br2)\n");
    assert_eq!(master("vm1"), "br2");
    ip("link set vm1 nomaster");
    switch.ok("attach vm1 --bridge br1");
    ip("link set vm1 nomaster");
    switch.ok("attach vm1");
    assert_eq!(master("vm1"), BRIDGE);
    switch.ok("detach --all");
    assert_eq!(master("vm1"), Value::Null);
    assert!(link("br1").is_some() && link("br2").is_some());
}

/// Attaches the XDP program that is pinned in a state folder to a device.
pub fn attach_xdp_of(state: &Path, device: &str) {
    let folder = fs::read_dir(state).expect("a state folder").flatten().next();
    let pinned = folder.expect("a folder").path().join("tapbridge_fast_xdp");
    ip(&format!(
        "link set dev {device} xdpdrv pinned {}",
        pinned.display()
    ));
}

fn an_alternative_name_will_do_wherever_a_device_is_named() {
    let switch = Switch::detached(2);
    // As long as the kernel allows.
    let long = format!("en{}", "x".repeat(125));
    ip("link property add dev vm1 altname first");
    ip(&format!("link property add dev vm1 altname {long}"));
    let attached = switch.json(&format!("attach {long} vm2 vm1"));
    assert_eq!(attached["ports"].as_array().map(Vec::len), Some(2), "{attached}");
    assert_eq!(attached["ports"][0]["ifname"], "vm1");
    assert_eq!(switch.ok("detach first"), "vm1: detached (out of tapbridge)\n");
    let complaint = switch.fails(&format!("detach {long}"));
    assert!(
        complaint.contains(&format!("{long}: not attached")),
        "{complaint}"
    );
}

fn xdp_that_a_device_can_not_have_is_said() {
    let switch = Switch::detached(1);
    ip("link add port0 up type veth peer name host0");
    for again in [false, true] {
        let attached = switch.json("attach port0 vm1 --hook xdp");
        let [port0, vm1] = [&attached["ports"][0], &attached["ports"][1]];
        assert_eq!(port0["hooks"], json!(["tcx"]), "{attached}");
        assert_eq!(port0["note"], "no XDP, which runs on taps only");
        assert_eq!(
            (&vm1["hooks"], &vm1["note"]),
            (&json!(["xdp", "tcx"]), &Value::Null)
        );
        assert_eq!(port0["changed"], !again);
    }
    assert_eq!(
        switch.ok("attach port0 --hook xdp"),
        "port0: was attached already to tapbridge (tcx); no XDP, which runs on taps only\n"
    );
    // Nothing is amiss where XDP was not asked for.
    for hook in ["auto", "tcx"] {
        let attached = switch.json(&format!("attach port0 --hook {hook}"));
        assert_eq!(attached["ports"][0]["note"], Value::Null, "{hook}");
    }
}

/// The index of a device that is made now, one more than that of the one made before.
fn next_index() -> u64 {
    ip("link add probe type bridge");
    let index = link("probe").expect("a device")["ifindex"]
        .as_u64()
        .expect("an index");
    ip("link del probe");
    index
}

fn nothing_is_touched_before_all_is_checked() {
    let switch = Switch::detached(4);
    ip("link add link vm4 name macvlan0 type macvlan");
    let before = link("vm1");
    let index = next_index();
    for (words, reason) in [
        ("attach vm1 vm2 vm4", "vm4: can't be a port: macvlan0 lies on it"),
        ("attach vm1 vm2 vm9", "vm9: no such network device"),
        ("attach vm1 vm2 --master vm3", "vm3: not a Linux bridge"),
        ("attach vm1 lo", "lo: can't be a port"),
    ] {
        let complaint = switch.fails(words);
        assert!(complaint.contains(reason), "{complaint}");
        assert!(!switch.state().exists(), "{words}");
        assert_eq!(link("vm1"), before, "{words}");
    }
    assert_eq!(next_index(), index + 1, "no bridge was made");
    switch.ok("attach vm1 vm2");
    let before = [link("vm1"), link("vm3"), link(BRIDGE)];
    for words in [
        "attach vm1 vm3 vm4",
        "attach vm1 vm3 vm4 --hook tcx",
        "attach vm3 vm9",
    ] {
        switch.fails(words);
        assert_eq!([link("vm1"), link("vm3"), link(BRIDGE)], before, "{words}");
    }
}

fn a_device_that_goes_away_meanwhile_is_named() {
    const TAPS: usize = 40;
    let mut switch = Switch::detached(TAPS);
    let last = switch.take(&format!("vm{TAPS}"));
    let names: Vec<String> = (1..=TAPS).map(|number| format!("vm{number}")).collect();
    let mut command = switch.command(&format!("attach {}", names.join(" ")));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start tapbridge");
    let complaints = lines(child.stderr.take());
    let has_port = || link("vm1").is_some_and(|tap| !tap["xdp"].is_null());
    assert!(happens(LIMIT, has_port), "a port within {LIMIT:?}");
    drop(last);
    let status = wait(&mut child, LIMIT).expect("attach ends");
    assert_eq!(status.code(), Some(1), "{status}");
    assert_eq!(
        complaints.recv_timeout(LIMIT).expect("a complaint"),
        format!("tapbridge: vm{TAPS}: went away while it was being attached; attach the others without it")
    );
    assert!(
        !switch.state().exists() && link(BRIDGE).is_none(),
        "all or nothing"
    );
    assert!(program("vm1").is_null());
}
