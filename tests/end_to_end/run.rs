//! `run`: hooks that follow the traffic, and what must not happen meanwhile.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use lab::{Tap, VnetHeader};
use serde_json::{Value, json};
use tapbridge::common::{
    fastpath::{Port, map},
    hook_policy::INTERVAL,
    port::flag,
};

use super::attach::attach_xdp_of;
use crate::support::{
    bpffs,
    end::EndOnDrop,
    frames::{Flow, TCP_HEADERS, hello, partial, payload, segmented},
    linux_bridge::{introduce, linux_bridge},
    load::talk,
    program::{happens, ip, link, run, wait},
    random::Random,
    running::{LIMIT, Running},
    switch::{Switch, command_in, unique},
    text::squeezed,
    wire::{assert_receives, receive, send, send_with},
};

crate::tests![
    xdp_goes_off_a_bulk_sender_and_comes_back,
    hooks_of_a_linux_bridges_ports_follow_their_traffic,
    a_linux_bridges_ports_that_lost_their_pins_are_told_of,
    ports_with_a_hook_of_their_own_are_left_alone,
    bridges_that_come_and_go_are_looked_after,
    no_frame_is_lost_or_overtaken_while_hooks_change,
    a_signal_ends_it_and_leaves_the_hooks,
    a_killed_one_can_be_followed_by_another,
    a_second_one_is_refused,
    a_hook_that_can_not_be_had_is_told_of,
    a_killed_change_of_hooks_is_put_right_by_the_next_command,
    a_link_that_is_written_down_nowhere_goes_with_the_next_command,
];

/// The hooks of a port that has both.
fn both() -> Value {
    json!(["xdp", "tcx"])
}

/// A frame of several segments, and what its sender left to be done.
pub fn bulk(from: u8, to: u8) -> (VnetHeader, Vec<u8>) {
    segmented(&Flow::tcp(from, to).frame(&payload(60_000)), 1400)
}

fn short(from: u8, to: u8) -> (VnetHeader, Vec<u8>) {
    partial(&Flow::tcp(from, to).frame(b"ack"))
}

/// Sends frames from one tap to the other, all of which must arrive, until there is a change.
#[track_caller]
pub fn send_until_change(running: &Running, from: &Tap, to: &Tap, frame: &(VnetHeader, Vec<u8>)) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        for _ in 0..100 {
            send_with(from, &frame.0, &frame.1);
            let (_, received) = receive(to);
            assert_eq!(received.len(), frame.1.len());
        }
        if let Some(change) = running.change() {
            return change;
        }
        assert!(Instant::now() < deadline, "no change in {LIMIT:?}");
    }
}

fn has_program(tap: &str) -> bool {
    !link(tap).expect("a tap")["xdp"].is_null()
}

fn hooks(switch: &Switch, port: &str) -> (Value, Value) {
    let mut shown = switch.shown(port);
    (shown["hooks"].take(), shown["hook_changes"].take())
}

fn xdp_goes_off_a_bulk_sender_and_comes_back() {
    let switch = Switch::with_hook(2, "auto");
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    let running = Running::start(&switch);
    assert_eq!(hooks(&switch, "vm1"), (both(), json!(0)));
    assert_eq!(switch.shown("vm1")["hook_changed"], Value::Null);

    let change = send_until_change(&running, vm1, vm2, &bulk(1, 2));
    assert_eq!(
        (
            &change["event"],
            &change["ifname"],
            &change["master"],
            &change["hooks"]
        ),
        (
            &json!("hook"),
            &json!("vm1"),
            &json!("tapbridge"),
            &json!(["tcx"])
        )
    );
    let count = |key: &str| {
        change[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key} in {change}"))
    };
    assert!(
        count("bulk_frames") > 0 && count("bulk_bytes") >= 60_000 * count("bulk_frames"),
        "{change}"
    );
    assert!(count("xdp_costs_ns") > count("xdp_saves_ns"), "{change}");
    assert!(!has_program("vm1") && has_program("vm2"));
    assert_eq!(hooks(&switch, "vm1"), (json!(["tcx"]), json!(1)));
    assert_eq!(hooks(&switch, "vm2"), (both(), json!(0)));
    let ago = switch.shown("vm1")["hook_changed"].as_u64();
    assert!(ago.is_some_and(|seconds| seconds < LIMIT.as_secs()), "{ago:?}");
    assert!(squeezed(&switch.ok("show")).contains("tcx (auto) up 1500 1, last "));

    let change = send_until_change(&running, vm1, vm2, &short(1, 2));
    assert_eq!((&change["ifname"], &change["hooks"]), (&json!("vm1"), &both()));
    assert!(has_program("vm1"));
    assert_eq!(hooks(&switch, "vm1"), (both(), json!(2)));
    // It may have come after the last frame.
    let (header, frame) = short(1, 2);
    send_with(vm1, &header, &frame);
    receive(vm2);
    // What was counted by one hook and by the other is all there is.
    let stats = switch.stats();
    let (xdp, tcx) = stats.frames("vm1", "vm2");
    assert!(xdp > 0 && tcx > stats.port("vm1").gso_frames, "{stats:#?}");
    assert_eq!(
        stats.port("vm1").rx.frames,
        xdp + tcx + stats.port("vm1").left.frames
    );
    assert_eq!(stats.port("vm1").bulk.frames, stats.port("vm1").gso_frames);
}

fn hooks_of_a_linux_bridges_ports_follow_their_traffic() {
    let switch = linux_bridge(2, false);
    switch.ok("attach --master br0");
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    let running = Running::start(&switch);
    let change = send_until_change(&running, vm1, vm2, &bulk(1, 2));
    assert_eq!(
        (&change["ifname"], &change["master"], &change["hooks"]),
        (&json!("vm1"), &json!("br0"), &json!(["tcx"]))
    );
    assert!(!has_program("vm1") && has_program("vm2"));
    assert!(squeezed(&switch.ok("show")).contains("tcx (auto) up 1500 1, last "));

    let change = send_until_change(&running, vm1, vm2, &short(1, 2));
    assert_eq!((&change["ifname"], &change["hooks"]), (&json!("vm1"), &both()));
    assert!(has_program("vm1"));
    // What a command has said stays.
    switch.ok("attach vm1 --hook tcx");
    for _ in 0..20_000 {
        let (header, frame) = short(1, 2);
        send_with(vm1, &header, &frame);
        receive(vm2);
    }
    assert!(running.change().is_none() && !has_program("vm1"));
}

fn a_linux_bridges_ports_that_lost_their_pins_are_told_of() {
    let switch = linux_bridge(2, false);
    switch.ok("attach --master br0");
    let running = Running::start(&switch);
    let seen = || switch.json("status")["ports"] == 2;
    assert!(happens(LIMIT, seen), "it does not see them");
    fs::remove_dir_all(switch.state()).expect("remove the pins");
    let deadline = Instant::now() + LIMIT;
    let told = loop {
        match running.change() {
            Some(told) => break told,
            None => assert!(Instant::now() < deadline, "nothing is told in {LIMIT:?}"),
        }
        thread::sleep(INTERVAL);
    };
    assert_eq!(
        (&told["event"], &told["ports"]),
        (&json!("vanished"), &json!(["vm1", "vm2"]))
    );
    // What was pinned is detached by a worker of the kernel.
    let gone = || switch.untouched().is_ok();
    assert!(happens(LIMIT, gone), "{:?} {LIMIT:?} later", switch.untouched());
}

fn ports_with_a_hook_of_their_own_are_left_alone() {
    let switch = Switch::detached(4);
    switch.ok("attach vm1 --hook xdp");
    switch.ok("attach vm2 --hook tcx");
    switch.ok("attach vm3 vm4");
    let [vm1, vm2, vm3, vm4] = switch.taps();
    switch.introduce();
    let running = Running::start(&switch);
    // vm3 is looked at as long as the others, and changes.
    let ways = [
        (vm1, vm2, bulk(1, 2)),
        (vm2, vm1, short(2, 1)),
        (vm3, vm4, bulk(3, 4)),
    ];
    let deadline = Instant::now() + LIMIT;
    let change = loop {
        for (from, to, (header, frame)) in &ways {
            for _ in 0..30 {
                send_with(from, header, frame);
                receive(to);
            }
        }
        if let Some(change) = running.change() {
            break change;
        }
        assert!(Instant::now() < deadline, "no change in {LIMIT:?}");
    };
    assert_eq!(change["ifname"], "vm3");
    assert!(has_program("vm1") && !has_program("vm2"));
    // One that an administrator has chosen hooks for meanwhile is left alone too.
    switch.ok("attach vm3 --hook xdp");
    let deadline = Instant::now() + Duration::from_secs(2);
    let (header, frame) = &ways[2].2;
    while Instant::now() < deadline {
        send_with(vm3, header, frame);
        receive(vm4);
    }
    assert_eq!(running.change(), None);
    assert_eq!(hooks(&switch, "vm3").0, both());
    assert!(running.stop("TERM").success());
}

fn bridges_that_come_and_go_are_looked_after() {
    let switch = Switch::detached(2);
    let [vm1, vm2] = switch.taps();
    assert!(!switch.state().exists());
    let running = Running::start(&switch);
    for bridge in ["one", "two", "two"] {
        switch.ok(&format!("attach vm1 vm2 --bridge {bridge}"));
        switch.introduce();
        let change = send_until_change(&running, vm1, vm2, &bulk(1, 2));
        assert_eq!(
            (&change["master"], &change["hooks"]),
            (&json!(bridge), &json!(["tcx"]))
        );
        // A port that comes to a bridge that is known begins anew.
        switch.ok("detach vm1");
        switch.ok(&format!("attach vm1 --bridge {bridge}"));
        assert_eq!(hooks(&switch, "vm1"), (both(), json!(0)));
        switch.introduce();
        let change = send_until_change(&running, vm1, vm2, &bulk(1, 2));
        assert_eq!(
            (&change["ifname"], &change["hook_changes"]),
            (&json!("vm1"), &json!(1))
        );
        switch.ok("detach --all");
        assert!(!switch.state().exists());
    }
    assert!(running.stop("INT").success());
}

fn no_frame_is_lost_or_overtaken_while_hooks_change() {
    // Fewer than a ring holds.
    const BURST: u32 = 64;
    let switch = Switch::with_hook(2, "xdp");
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    let ready = AtomicBool::new(false);
    let numbered = |number: u32| {
        let length = if number.is_multiple_of(5) { 20_000 } else { 200 };
        let mut payload = payload(length);
        payload[..4].copy_from_slice(&number.to_be_bytes());
        let complete = Flow::tcp(1, 2).frame(&payload);
        if length > 1400 {
            segmented(&complete, 1400)
        } else {
            partial(&complete)
        }
    };
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut number = 0;
            while !ready.load(Ordering::Relaxed) {
                for number in number..number + BURST {
                    let (header, frame) = numbered(number);
                    send_with(vm1, &header, &frame);
                }
                for number in number..number + BURST {
                    let (_, frame) = numbered(number);
                    let (_, received) = receive(vm2);
                    assert_eq!(received[TCP_HEADERS..][..4], number.to_be_bytes(), "the next one");
                    assert_eq!(received.len(), frame.len());
                }
                number += BURST;
            }
            number
        });
        let end = EndOnDrop(&ready);
        for hook in ["tcx", "auto"].into_iter().cycle().take(40) {
            switch.ok(&format!("attach vm1 --hook {hook}"));
            assert!(!traffic.is_finished());
        }
        drop(end);
        let sent = u64::from(traffic.join().expect("every frame comes, in order"));
        let stats = switch.stats();
        let (xdp, tcx) = stats.frames("vm1", "vm2");
        // With the one that was sent to all, and one a second, which the bridge sees.
        let left = stats.port("vm1").left("source_refresh");
        assert_eq!(xdp + tcx + left, sent, "{stats:#?}");
        assert!(xdp > 0 && tcx > stats.port("vm1").gso_frames, "{stats:#?}");
        assert_eq!(stats.port("vm2").tx_dropped, 0, "{stats:#?}");
    });
}

fn a_signal_ends_it_and_leaves_the_hooks() {
    for signal in ["INT", "TERM"] {
        let switch = Switch::with_hook(2, "auto");
        let [vm1, vm2] = switch.taps();
        switch.introduce();
        let running = Running::start(&switch);
        send_until_change(&running, vm1, vm2, &bulk(1, 2));
        assert!(running.stop(signal).success(), "{signal}");
        assert_eq!(hooks(&switch, "vm1"), (json!(["tcx"]), json!(1)));
        send(vm1, &hello(1));
        assert_receives(vm2, &hello(1));
    }
}

fn a_killed_one_can_be_followed_by_another() {
    let switch = Switch::with_hook(2, "auto");
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    let running = Running::start(&switch);
    send_until_change(&running, vm1, vm2, &bulk(1, 2));
    assert!(!running.stop("KILL").success());
    send(vm1, &hello(1));
    assert_receives(vm2, &hello(1));
    let running = Running::start(&switch);
    let change = send_until_change(&running, vm1, vm2, &short(1, 2));
    assert_eq!((&change["hooks"], &change["hook_changes"]), (&both(), &json!(2)));
}

fn a_second_one_is_refused() {
    const MISSING: &str = "'tapbridge run' is not running";
    let switch = Switch::with_hook(2, "auto");
    let is_running = || {
        (
            switch.json("show")["running"].clone(),
            switch.ok("show").contains(MISSING),
        )
    };
    assert_eq!(is_running(), (json!(false), true));
    let running = Running::start(&switch);
    assert_eq!(is_running(), (json!(true), false));
    let complaint = switch.fails("run");
    assert!(
        complaint.contains("another 'tapbridge run' looks after"),
        "{complaint}"
    );
    assert!(running.stop("TERM").success());
    assert_eq!(is_running(), (json!(false), true));
    // Where no port has hooks that change, nothing is missing.
    switch.ok("attach vm1 vm2 --hook tcx");
    assert_eq!(is_running(), (json!(false), false));
    assert!(Running::start(&switch).stop("TERM").success());
}

fn a_hook_that_can_not_be_had_is_told_of() {
    let switch = Switch::detached(3);
    let stranger = switch.state().with_file_name(unique(bpffs::PREFIX));
    run(command_in(&stranger, "attach vm3")).success();
    switch.ok("attach vm1 vm2");
    let [vm1, vm2, _] = switch.taps();
    switch.introduce();
    let running = Running::start(&switch);
    send_until_change(&running, vm1, vm2, &bulk(1, 2));
    attach_xdp_of(&stranger, "vm1");
    let told = AtomicBool::new(false);
    thread::scope(|scope| {
        let traffic = scope.spawn(|| talk(vm1, vm2, &told));
        let end = EndOnDrop(&told);
        let complaint = running.complaint();
        drop(end);
        traffic.join().expect("frames go on");
        assert!(
            complaint.contains("vm1: attach xdp: another XDP program is attached"),
            "{complaint}"
        );
    });
    ip("link set dev vm1 xdp off");
    // It is tried again.
    let change = send_until_change(&running, vm1, vm2, &short(1, 2));
    assert_eq!(change["hooks"], both());
    run(command_in(&stranger, "detach --all")).success();
}

fn a_killed_change_of_hooks_is_put_right_by_the_next_command() {
    let switch = Switch::with_hook(2, "xdp");
    let mut random = Random::new(7);
    for round in 0..30 {
        let hook = if round % 2 == 0 { "tcx" } else { "xdp" };
        let mut child = switch
            .command(&format!("attach vm1 --hook {hook}"))
            .spawn()
            .expect("start");
        thread::sleep(Duration::from_micros(random.number() % 20_000));
        child.kill().expect("kill tapbridge");
        wait(&mut child, LIMIT).expect("a killed process ends");
        // The next one says nothing of vm1, and yet what the kernel has and what is shown are the same after it.
        switch.ok("attach vm2");
        let (hooks, _) = hooks(&switch, "vm1");
        assert_eq!(has_program("vm1"), hooks == both(), "round {round}: {hooks}");
    }
}

/// What an attach that is killed at just the wrong moment leaves.
fn a_link_that_is_written_down_nowhere_goes_with_the_next_command() {
    let switch = Switch::with_hook(2, "xdp");
    let folder = switch.folder().expect("something pinned");
    let pinned = MapData::from_pin(folder.join(map::PORTS)).expect("the ports");
    let mut ports: HashMap<_, u32, Port> = Map::HashMap(pinned).try_into().expect("a hash of ports");
    let ifindex = switch.taps::<2>()[0].ifindex();
    let mut port = ports.get(&ifindex, 0).expect("the first port");
    port.flags &= !flag::XDP;
    ports.insert(ifindex, port, 0).expect("write a port");
    assert!(has_program("vm1") && hooks(&switch, "vm1").0 == json!(["tcx"]));
    switch.ok("attach vm2");
    assert!(!has_program("vm1") && has_program("vm2"));
    switch.ok("attach vm1 --hook xdp");
    assert!(has_program("vm1") && hooks(&switch, "vm1").0 == both());
}
