//! `monitor`: what happens to ports, told to whoever wants to know, at once and with nothing lost unnoticed.

use std::{
    fs,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use lab::Tap;
use serde_json::{Value, json};
use tapbridge::common::{
    fastpath::{EVENTS_BYTES, Event, EventKind, SILENCE, program},
    forwarding::Reason,
};

use crate::support::{
    frames::{Flow, hello, mac, text},
    program::{bridge, ip, link, signal},
    running::Running,
    switch::{BRIDGE, Switch},
    wire::{assert_receives, drain, receive, send},
};

crate::tests![
    every_monitor_is_told_of_ports_that_come_and_go,
    the_first_frame_that_is_left_for_a_reason_is_told_of,
    a_port_that_is_stopped_is_told_of_once_and_again_after_a_silence,
    hooks_that_run_changes_are_told_of,
    monitors_that_read_take_nothing_from_each_other,
    what_a_monitor_misses_is_counted,
    a_monitor_follows_what_is_attached_anew,
    an_upgrade_is_no_news_of_what_was_told,
    people_are_told_in_words,
    at_trace_the_programs_tell_of_each_frame,
];

fn monitor(switch: &Switch) -> Running {
    Running::saying(
        switch.command("monitor -j"),
        "watching the ports of this network namespace; Ctrl-C ends",
    )
}

/// The next event without its time, which must be one.
#[track_caller]
fn next(monitor: &Running) -> Value {
    let mut event = monitor.next();
    let time = event["time"].take();
    let time = time.as_str().expect("a time");
    assert!(
        time.len() == "2026-01-02T03:04:05.678901Z".len() && time.starts_with("20") && time.ends_with('Z'),
        "{time}"
    );
    event.as_object_mut().expect("an object").remove("time");
    event
}

/// The next event of this kind; others are passed over.
#[track_caller]
fn next_of(monitor: &Running, kind: &str) -> Value {
    loop {
        let event = next(monitor);
        if event["event"] == kind {
            return event;
        }
    }
}

fn attached(device: &str, hooks: &[&str]) -> Value {
    json!({
        "event": "attached",
        "ifname": device,
        "ifindex": link(device).expect("a device")["ifindex"],
        "master": BRIDGE,
        "hooks": hooks,
    })
}

fn every_monitor_is_told_of_ports_that_come_and_go() {
    let mut switch = Switch::detached(3);
    let monitors = [monitor(&switch), monitor(&switch)];
    switch.ok("attach vm1 vm2 vm3 --hook xdp");
    switch.ok("attach vm1");
    let indexes = ["vm1", "vm2", "vm3"].map(|device| link(device).expect("a tap")["ifindex"].clone());
    for monitor in &monitors {
        for device in ["vm1", "vm2", "vm3"] {
            assert_eq!(next(monitor), attached(device, &["xdp", "tcx"]));
        }
    }
    switch.ok("attach vm1 --hook tcx");
    switch.remove("vm3");
    // What is gone is found by the next command.
    switch.ok("detach vm2");
    switch.fails("attach vm1 nowhere");
    for monitor in &monitors {
        let told = |index: usize, event: Value| {
            let mut expected = json!({
                "ifname": format!("vm{}", index + 1),
                "ifindex": indexes[index],
                "master": BRIDGE,
            });
            expected
                .as_object_mut()
                .expect("an object")
                .extend(event.as_object().expect("an object").clone());
            assert_eq!(next(monitor), expected);
        };
        told(
            0,
            json!({ "event": "hook", "hooks": ["tcx"], "reason": "command" }),
        );
        told(1, json!({ "event": "detached", "reason": "command" }));
        told(2, json!({ "event": "detached", "reason": "gone" }));
    }
    // The bridge goes with it, so what was its name is not told for sure.
    switch.ok("detach --all");
    for monitor in &monitors {
        let last = next(monitor);
        assert_eq!(
            (&last["event"], &last["ifname"], &last["reason"]),
            (&json!("detached"), &json!("vm1"), &json!("command"))
        );
        assert_eq!(monitor.change(), None);
    }
    for monitor in monitors {
        assert!(monitor.stop("INT").success());
    }
}

fn the_first_frame_that_is_left_for_a_reason_is_told_of() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    let monitor = monitor(&switch);
    for _ in 0..3 {
        send(vm1, &hello(1));
    }
    let left = |hook: &str, reason: Reason| {
        json!({
            "event": "left",
            "ifname": "vm1",
            "ifindex": vm1.ifindex(),
            "master": BRIDGE,
            "hook": hook,
            "reason": reason.name(),
        })
    };
    for hook in ["xdp", "tcx"] {
        assert_eq!(next(&monitor), left(hook, Reason::Group));
    }
    // Attached anew it is told of anew.
    switch.ok("detach vm1");
    switch.ok("attach vm1");
    send(vm1, &hello(1));
    assert_eq!(next(&monitor)["event"], "detached");
    assert_eq!(next(&monitor)["event"], "attached");
    for hook in ["xdp", "tcx"] {
        assert_eq!(next(&monitor), left(hook, Reason::Group));
    }
    drain(&[vm1, vm2]);
}

/// Sends from one to the other until the bridge has seen enough of both.
fn pass(from: &Tap, to: &Tap, frames: u32) {
    let frame = Flow::tcp(1, 2).frame(b"ack");
    for _ in 0..frames {
        send(from, &frame);
        receive(to);
    }
}

fn a_port_that_is_stopped_is_told_of_once_and_again_after_a_silence() {
    let switch = Switch::with_hook(2, "tcx");
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    let monitor = monitor(&switch);
    let promiscuous = |on: &str| ip(&format!("link set {BRIDGE} promisc {on}"));
    let stopped = || {
        let mut told = next_of(&monitor, "stopped");
        let text = told["text"].take();
        let text = text.as_str().expect("words");
        assert!(text.starts_with(&format!("{BRIDGE} is promiscuous")), "{text}");
        assert_eq!(
            (&told["ifname"], &told["reason"], &told["hook"]),
            (&json!("vm1"), &json!("promiscuous"), &json!("tcx"))
        );
    };
    promiscuous("on");
    pass(vm1, vm2, 10);
    stopped();
    let begin = Instant::now();
    promiscuous("off");
    pass(vm1, vm2, 10);
    promiscuous("on");
    pass(vm1, vm2, 10);
    promiscuous("off");
    // On a machine that is so busy it is a silence.
    let again = monitor.changes().iter().any(|event| event["event"] == "stopped");
    assert!(!again || begin.elapsed() > Duration::from_secs(SILENCE));
    std::thread::sleep(Duration::from_secs(SILENCE + 1));
    promiscuous("on");
    pass(vm1, vm2, 10);
    stopped();
    assert!(monitor.changes().iter().all(|event| event["event"] != "stopped"));
    drain(&[vm1, vm2]);
}

fn hooks_that_run_changes_are_told_of() {
    let switch = Switch::with_hook(2, "auto");
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    let monitor = monitor(&switch);
    let running = Running::start(&switch);
    let bulk = super::run::bulk(1, 2);
    let change = super::run::send_until_change(&running, vm1, vm2, &bulk);
    let told = next_of(&monitor, "hook");
    for key in ["ifname", "master", "hooks", "reason"] {
        assert_eq!(told[key], change[key], "{key}: {told} {change}");
    }
    assert_eq!(told["reason"], "cost");
}

/// Has a program tell of something, as often as that.
fn tell(switch: &Switch, times: u32) {
    let folder = switch.folder().expect("something pinned");
    let tell = SchedClassifier::from_pin(folder.join(program::TELL)).expect("open the program");
    let event = Event {
        kind: EventKind::Left as u32,
        ..Event::default()
    };
    let mut data = [0_u8; size_of::<Event>()];
    data[8..12].copy_from_slice(&event.kind.to_ne_bytes());
    let options = TestRunOptions {
        data_in: Some(&data),
        repeat: times,
        ..TestRunOptions::new()
    };
    tell.test_run(options).expect("run the program");
}

fn monitors_that_read_take_nothing_from_each_other() {
    let switch = Switch::of(1);
    let mut monitors = vec![monitor(&switch), monitor(&switch)];
    // Several times what there is room for.
    for round in 0..50 {
        tell(&switch, 100);
        for monitor in &monitors {
            for _ in 0..100 {
                let event = next(monitor);
                assert_eq!(event["event"], "left", "round {round}: {event}");
            }
        }
        // Nor does one that begins.
        if round == 4 {
            monitors.push(self::monitor(&switch));
        }
    }
}

fn what_a_monitor_misses_is_counted() {
    const TOLD: u32 = 3000;
    let switch = Switch::of(1);
    let (awake, asleep) = (monitor(&switch), monitor(&switch));
    tell(&switch, 1);
    assert_eq!(next(&asleep)["event"], "left");
    assert_eq!(next(&awake)["event"], "left");
    signal(asleep.child(), "STOP");
    // One that reads gets all, whoever does not.
    for _ in 0..TOLD / 100 {
        tell(&switch, 100);
        for _ in 0..100 {
            assert_eq!(next(&awake)["event"], "left");
        }
    }
    // When none reads there is no room for all.
    signal(awake.child(), "STOP");
    tell(&switch, TOLD);
    for monitor in [&awake, &asleep] {
        signal(monitor.child(), "CONT");
    }
    let count = |monitor: &Running, mut events: u64| {
        let mut lost = 0;
        while events > 0 {
            let event = next(monitor);
            let counted = match event["event"].as_str() {
                Some("lost") => event["events"].as_u64().expect("a number"),
                _ => 1,
            };
            lost += counted - u64::from(event["event"] != "lost");
            events = events.checked_sub(counted).expect("no more than there were");
        }
        lost
    };
    let told = u64::from(TOLD);
    let (missed, missed_asleep) = (count(&awake, told), count(&asleep, 2 * told));
    let record = u64::try_from(size_of::<Event>() + 8).expect("a small record");
    let at_least = told - u64::from(EVENTS_BYTES) / record;
    assert!(
        missed >= at_least && missed_asleep >= told + at_least,
        "{missed} {missed_asleep}"
    );
    assert_eq!((awake.change(), asleep.change()), (None, None));
}

fn a_monitor_follows_what_is_attached_anew() {
    let switch = Switch::detached(1);
    let monitor = monitor(&switch);
    for _ in 0..3 {
        switch.ok("attach vm1");
        assert_eq!(next(&monitor), attached("vm1", &["xdp", "tcx"]));
        switch.ok("detach vm1");
        assert_eq!(next(&monitor)["event"], "detached");
    }
    // Of what somebody removes there is nothing to tell, and it goes on.
    switch.ok("attach vm1");
    assert_eq!(next(&monitor)["event"], "attached");
    let folder = switch.folder().expect("something pinned");
    fs::remove_dir_all(folder).expect("remove it");
    switch.ok("detach --all");
    switch.ok("attach vm1");
    assert_eq!(next(&monitor)["event"], "attached");
}

fn an_upgrade_is_no_news_of_what_was_told() {
    let switch = Switch::with_hook(2, "tcx");
    let [vm1, vm2] = switch.taps();
    let monitor = monitor(&switch);
    send(vm1, &hello(1));
    assert_eq!(next(&monitor)["reason"], Reason::Group.name());
    switch.ok("upgrade");
    send(vm1, &hello(1));
    // What comes next is of the command that comes next.
    switch.ok("attach vm1 --hook xdp");
    assert_eq!(next(&monitor)["event"], "hook");
    drain(&[vm1, vm2]);
}

fn people_are_told_in_words() {
    let switch = Switch::detached(2);
    let monitor = Running::saying(
        switch.command("monitor"),
        "watching the ports of this network namespace; Ctrl-C ends",
    );
    switch.ok("attach vm1 vm2");
    let [vm1, vm2] = switch.taps();
    send(vm1, &hello(1));
    switch.ok("detach vm2");
    drain(&[vm1, vm2]);
    for words in [
        format!("{BRIDGE}: vm1 is attached by xdp + tcx"),
        format!("{BRIDGE}: vm2 is attached by xdp + tcx"),
        format!("{BRIDGE}: vm1: first frame left to tcx (group)"),
        format!("{BRIDGE}: vm1: first frame left to the bridge (group)"),
        format!("{BRIDGE}: vm2 is detached"),
    ] {
        let line = monitor.line();
        let (_, told) = line.split_once("Z ").expect("a time");
        assert_eq!(told, words);
    }
}

fn at_trace_the_programs_tell_of_each_frame() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    // Known, and no frame for many, however long the test takes.
    for (tap, station) in [(vm1, 1), (vm2, 2)] {
        let station = text(mac(station));
        bridge(&format!("fdb replace {station} dev {} master static", tap.name()));
    }
    let silent = Running::saying(
        switch.command("monitor --log-level trace"),
        "tapbridge: warn: the programs say nothing of frames; 'tapbridge upgrade --log-level trace' replaces them by some \
         that do",
    );
    assert!(silent.stop("INT").success());

    switch.ok("upgrade --log-level trace");
    let monitor = Running::saying(
        switch.command("monitor --log-level trace"),
        "watching the ports of this network namespace; Ctrl-C ends",
    );
    let frame = Flow::udp(1, 2).frame(b"known");
    // With the first one the bridge sees the source.
    for _ in 0..2 {
        send(vm1, &frame);
        assert_receives(vm2, &frame);
    }
    send(vm1, &hello(1));
    receive(vm2);
    let [from, to] = [vm1, vm2].map(Tap::ifindex);
    for told in [
        format!("xdp: 52:54:00:00:00:01 > 52:54:00:00:00:02: from device {from} to device {to}"),
        format!("xdp: 52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff: from device {from}, left: group"),
        format!("tcx: 52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff: from device {from}, left: group"),
    ] {
        let told = format!("tapbridge: trace: {told}");
        while monitor.complaint().trim_end() != told {}
    }

    switch.ok("upgrade");
    assert_eq!(
        monitor.complaint(),
        "tapbridge: warn: the programs say nothing of frames; 'tapbridge upgrade --log-level trace' replaces them by some \
         that do"
    );
    send(vm1, &frame);
    assert_receives(vm2, &frame);
}
