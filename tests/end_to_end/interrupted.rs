//! Commands that run at once, and commands that are killed.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use crate::support::{
    frames::{Flow, hello},
    program::{self, LIMIT, ip, link, wait},
    random::Random,
    switch::{BRIDGE, Switch},
    wire::{assert_receives, drain, send},
};

crate::tests![
    commands_at_once_end_consistently,
    a_killed_attach_to_a_bridge_is_undone_by_the_next_command,
    a_killed_attach_to_a_new_bridge_is_undone_by_the_next_command,
    a_killed_detach_is_finished_by_the_next_command,
    a_killed_detach_of_some_ports_leaves_the_others_counters_right,
    a_signal_waits_until_attach_is_done,
];

/// The bridge has so many ports, and frames from every tap reach all others.
#[track_caller]
fn assert_works(switch: &Switch, taps: &[&lab::Tap], count: usize) {
    drain(taps);
    for (sender, station) in taps.iter().zip(1..) {
        send(sender, &hello(station));
        for receiver in taps.iter().filter(|tap| tap.name() != sender.name()) {
            assert_receives(receiver, &hello(station));
        }
    }
    let overview = switch.json("show");
    assert_eq!(
        overview["bridges"].as_array().map(Vec::len),
        Some(1),
        "{overview}"
    );
    let ports = overview["bridges"][0]["ports"].as_array().expect("ports");
    assert_eq!(ports.len(), count, "{overview}");
}

fn commands_at_once_end_consistently() {
    let switch = Switch::detached(4);
    let [vm1, vm2, vm3, vm4] = switch.taps();
    for round in 0..3 {
        let commands = [
            "attach vm1 vm2",
            "attach vm2 vm3 --bridge other",
            "detach vm1",
            "attach vm3 vm4",
            "detach --all",
            "attach vm1 vm4 --hook tcx",
            "detach vm2 vm3",
            "show",
        ];
        let mut children = commands.map(|words| switch.start(words));
        for (child, words) in children.iter_mut().zip(commands) {
            let status = wait(child, LIMIT).unwrap_or_else(|| panic!("{words} takes more than {LIMIT:?}"));
            // Whether there is something to detach depends on who came first.
            let may_fail = words != "detach --all" && words != "show";
            assert!(
                status.success() || may_fail && status.code() == Some(1),
                "round {round}: {words}: {status}: {}",
                child
                    .stderr
                    .take()
                    .map(io::read_to_string)
                    .transpose()
                    .unwrap_or_default()
                    .unwrap_or_default()
            );
        }
        let overview = switch.json("show");
        let mut ports = Vec::new();
        for bridge in overview["bridges"].as_array().expect("bridges") {
            ports.extend(
                bridge["ports"]
                    .as_array()
                    .expect("ports")
                    .iter()
                    .filter(|port| port["attached"] == true)
                    .map(|port| port["ifname"].to_string()),
            );
        }
        let attached = ports.len();
        ports.sort();
        ports.dedup();
        assert_eq!(ports.len(), attached, "a port of one bridge only: {overview}");
        switch.ok("detach --all");
        for tap in ["vm1", "vm2", "vm3", "vm4"] {
            assert!(!is_port(tap), "round {round}: {tap}");
        }
    }
    switch.attach_all("xdp");
    assert_works(&switch, &[vm1, vm2, vm3, vm4], 4);
}

fn is_port(device: &str) -> bool {
    let link = link(device).expect("a device");
    !link["master"].is_null() || !link["xdp"].is_null()
}

/// Nothing is left of anything.
#[track_caller]
fn assert_clean(switch: &Switch, devices: &[&str], context: &str) {
    assert!(!switch.state().exists(), "{context}");
    assert_eq!(link(BRIDGE), None, "{context}");
    for device in devices {
        assert!(!is_port(device), "{device}, {context}");
    }
}

fn a_killed_attach_to_a_bridge_is_undone_by_the_next_command() {
    let switch = Switch::detached(2);
    ip("link add port0 up type veth peer name host0");
    let taps: [_; 2] = switch.taps();
    switch.ok("attach vm1");
    let mut random = Random::new(1);
    for round in 0..20 {
        let time = Duration::from_micros(random.number() % 60_000);
        switch.kill_after("attach port0 vm2", time);
        // Whatever comes next copes.
        match round % 4 {
            0 => drop(switch.json("show")),
            1 => drop(switch.json("stats")),
            2 => drop(switch.tapbridge("detach vm2")),
            _ => drop(switch.json("fdb show")),
        }
        switch.ok("attach vm1 port0 vm2");
        assert_works(&switch, &taps, 3);
        assert!(is_port("vm2") && is_port("port0"));
        switch.ok("detach port0 vm2");
        assert!(
            !is_port("vm2") && !is_port("port0") && is_port("vm1"),
            "round {round}, killed after {time:?}"
        );
    }
}

fn a_killed_attach_to_a_new_bridge_is_undone_by_the_next_command() {
    let switch = Switch::detached(3);
    let taps: [_; 3] = switch.taps();
    let mut random = Random::new(2);
    for round in 0..9 {
        // Trying the programs out takes most of its time.
        let time = Duration::from_millis(random.number() % 700);
        switch.kill_after("attach vm1 vm2 vm3", time);
        match round % 3 {
            0 => {
                switch.ok("attach vm1 vm2 vm3");
                assert_works(&switch, &taps, taps.len());
            }
            1 => drop(switch.tapbridge("show")),
            _ => {}
        }
        switch.ok("detach --all");
        assert_clean(
            &switch,
            &["vm1", "vm2", "vm3"],
            &format!("round {round}, killed after {time:?}"),
        );
    }
}

fn a_killed_detach_is_finished_by_the_next_command() {
    let switch = Switch::detached(3);
    let taps: [_; 3] = switch.taps();
    let mut random = Random::new(3);
    for round in 0..9 {
        switch.attach_all("xdp");
        let time = Duration::from_micros(random.number() % 60_000);
        switch.kill_after("detach --all", time);
        if round % 3 == 0 {
            switch.attach_all("xdp");
            assert_works(&switch, &taps, taps.len());
        }
        switch.ok("detach --all");
        assert_clean(
            &switch,
            &["vm1", "vm2", "vm3"],
            &format!("round {round}, killed after {time:?}"),
        );
    }
}

fn a_killed_detach_of_some_ports_leaves_the_others_counters_right() {
    let switch = Switch::of(6);
    let taps: [_; 6] = switch.taps();
    let mut random = Random::new(4);
    for round in 0..9 {
        switch.introduce();
        for (from, to) in [(1, 2), (2, 5), (5, 1), (6, 3), (4, 6), (5, 6), (6, 5)] {
            let frame = Flow::udp(from, to).frame(b"counted");
            send(taps[usize::from(from) - 1], &frame);
            assert_receives(taps[usize::from(to) - 1], &frame);
        }
        let time = Duration::from_micros(random.number() % 80_000);
        switch.kill_after("detach vm4 vm2 vm1 vm3", time);
        if round % 2 == 0 {
            // Finishes what was begun before it begins itself.
            switch.tapbridge("detach vm2");
        }
        switch.ok("attach vm1 vm2 vm3 vm4 --hook xdp");
        // In which every frame is in exactly one place.
        let ports = switch.stats().ports.len();
        assert_eq!(ports, 6, "round {round}, killed after {time:?}");
        assert_works(&switch, &taps, 6);
    }
}

fn a_signal_waits_until_attach_is_done() {
    let switch = Switch::detached(2);
    let [vm1, vm2] = switch.taps();
    for (signal, milliseconds) in [("INT", 0), ("TERM", 30), ("HUP", 60)] {
        let mut child = switch.start("attach vm1 vm2");
        // From its folder on it has something to finish; before, a signal ends it with nothing done.
        let end = Instant::now() + LIMIT;
        while switch.folder().is_none() {
            assert!(Instant::now() < end, "a folder within {LIMIT:?}");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(milliseconds));
        program::signal(&child, signal);
        let status = wait(&mut child, LIMIT).expect("attach ends");
        assert!(status.success(), "{signal}: {status}");
        assert_works(&switch, &[vm1, vm2], 2);
        switch.ok("detach --all");
    }
}
