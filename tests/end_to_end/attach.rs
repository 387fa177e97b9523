//! Attaching and detaching: idempotent, all or nothing, and undone without a trace.

use std::{
    process::{Child, Command, Stdio},
    sync::mpsc::Receiver,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    bpffs,
    frames::{Flow, arp_request, hello},
    program::{happens, ip, lines, link, run, wait},
    switch::{Switch, command_in, ipv6, unique},
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
    the_host_receives_nothing_from_a_port_and_sends_nothing_on_it,
    an_alternative_name_will_do_wherever_a_device_is_named,
    xdp_that_a_device_can_not_have_is_said,
    nothing_is_touched_before_all_is_checked,
    a_device_that_goes_away_meanwhile_is_named,
];

/// How long a program may take.
const LIMIT: Duration = Duration::from_mins(1);

fn program(tap: &str) -> Value {
    link(tap).expect("a tap")["xdp"]["prog"]["id"].clone()
}

fn attaching_twice_changes_nothing() {
    let switch = Switch::detached(2);
    let first = switch.json("attach vm1 vm2");
    let port = |name: &str, changed: bool| {
        let ifindex = link(name).expect("a tap")["ifindex"].clone();
        json!({ "ifname": name, "ifindex": ifindex, "hook": "auto", "hooks": ["xdp", "tcx"], "changed": changed })
    };
    let report = |changed| json!({ "schema": 1, "bridge": "tapbridge", "ports": [port("vm1", changed), port("vm2", changed)], "unreadable": [], "cleared": [] });
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
    switch.speak_ipv6("vm1");
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
        assert!(ipv6("vm1") && !ipv6("vm2"));
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
    let pinned = stranger.join("tapbridge/tapbridge_xdp");
    ip(&format!("link set dev vm3 xdpdrv pinned {}", pinned.display()));
    let id = program("vm3");
    let complaint = switch.fails("attach vm1 vm2 vm3");
    for words in [
        &format!("vm3: attach xdp: another XDP program is attached (id {id}, \"tapbridge_xdp\")"),
        "'ip link set dev vm3 xdp off', or attach with --hook tcx",
    ] {
        assert!(complaint.contains(words), "{complaint}");
    }
    assert!(!switch.state().exists() && program("vm1").is_null() && program("vm3") == id);
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
        assert!(!ipv6("vm1") && !ipv6("vm2"));
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
    assert!(switch.state().join("tapbridge").exists());
    switch.ok("detach vm2");
    assert!(!switch.state().exists());
    assert_eq!(
        switch.json("show"),
        json!({ "schema": 1, "running": false, "bridges": [], "accelerated": [], "unreadable": [] })
    );
    assert_eq!(
        switch.json("stats"),
        json!({ "schema": 1, "bridges": [], "accelerated": [], "unreadable": [] })
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
    assert_eq!(
        stats.port("vm2").rx.frames,
        1,
        "the other's own counters stay: {stats:#?}"
    );
}

fn the_host_receives_nothing_from_a_port_and_sends_nothing_on_it() {
    let switch = Switch::detached(2);
    let [vm1, vm2] = switch.taps();
    // An address makes the host answer ARP on any device of the namespace.
    ip("address add 10.0.0.9/32 dev lo");
    switch.speak_ipv6("vm1");
    switch.attach_all("xdp");
    drain(&[vm1, vm2]);
    send(vm1, &arp_request(1, 9));
    assert_receives(vm2, &arp_request(1, 9));
    vm1.down().expect("vm1 down");
    vm1.up().expect("vm1 up");
    thread::sleep(Duration::from_millis(300));
    assert_silent(&[vm1, vm2]);
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
    switch.ok(&format!("fdb add 52:54:00:00:00:09 --dev {long}"));
    assert_eq!(switch.json("fdb show")[0]["ifname"], "vm1");
    let flushed = switch.json("fdb flush --static --dev first");
    assert_eq!(flushed["flushed"], 1);
    assert_eq!(switch.ok("detach first"), "vm1: detached (tapbridge)\n");
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

/// Queueing disciplines that change, in the calling thread's network namespace.
struct Changes {
    child: Child,
    lines: Receiver<String>,
}

impl Changes {
    /// All that come from now on.
    fn watch() -> Self {
        let mut monitor = Command::new("tc");
        monitor.arg("monitor").stdout(Stdio::piped());
        let mut child = monitor.spawn().expect("start tc");
        let changes = Self {
            lines: lines(child.stdout.take()),
            child,
        };
        ip("link add marker type veth peer name marked");
        // It begins at some time.
        let listens = happens(LIMIT, || {
            mark("begin");
            thread::sleep(Duration::from_millis(10));
            changes.lines.try_recv().is_ok()
        });
        assert!(listens, "tc monitor says nothing in {LIMIT:?}");
        changes
    }

    /// Those so far.
    #[track_caller]
    fn so_far(&self) -> Vec<String> {
        mark("end");
        let mut all = Vec::new();
        loop {
            let line = self.lines.recv_timeout(LIMIT).expect("the last change");
            if line.contains("dev marker") {
                if line.contains(" 4: ") {
                    return all;
                }
            } else {
                all.push(line);
            }
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A change of no device that matters, which can be told from another one.
fn mark(what: &str) {
    let handle = if what == "end" { 4 } else { 3 };
    let mut tc = Command::new("tc");
    tc.args(["qdisc", "replace", "dev", "marker", "root", "handle"]);
    tc.args([&format!("{handle}:"), "pfifo"]);
    run(tc).success();
}

fn nothing_is_touched_before_all_is_checked() {
    let switch = Switch::detached(4);
    ip("link add link vm4 name macvlan0 type macvlan");
    let changes = Changes::watch();
    for (words, reason) in [
        (
            "attach vm1 vm2 vm3 --max-ports 2",
            "bridge tapbridge: all 2 slots are taken and none is left for vm3; make a larger bridge",
        ),
        ("attach vm1 vm2 vm4", "vm4: can't be a port: macvlan0 lies on it"),
        ("attach vm1 vm2 vm9", "vm9: no such network device"),
    ] {
        let complaint = switch.fails(words);
        assert!(complaint.contains(reason), "{complaint}");
        assert!(!switch.state().exists(), "{words}");
    }
    assert_eq!(changes.so_far(), [""; 0]);
    // It would have seen them.
    switch.ok("attach vm1 vm2 --max-ports 3");
    let seen = changes.so_far();
    for device in ["dev vm1", "dev vm2"] {
        assert!(seen.iter().any(|line| line.contains(device)), "{seen:?}");
    }
    for words in ["attach vm3 vm4", "attach vm3 vm4 --hook tcx", "attach vm3 vm9"] {
        switch.fails(words);
    }
    assert_eq!(changes.so_far(), [""; 0]);
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
    let first = switch.state().join("tapbridge/link_0_tcx");
    assert!(happens(LIMIT, || first.exists()), "a port within {LIMIT:?}");
    drop(last);
    let status = wait(&mut child, LIMIT).expect("attach ends");
    assert_eq!(status.code(), Some(1), "{status}");
    assert_eq!(
        complaints.recv_timeout(LIMIT).expect("a complaint"),
        format!("tapbridge: vm{TAPS}: went away while it was being attached; attach the others without it")
    );
    assert!(!switch.state().exists(), "all or nothing");
    assert!(program("vm1").is_null());
}
