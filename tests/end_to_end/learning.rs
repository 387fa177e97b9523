//! Learning, ageing and moving.

use std::{thread, time::Duration};

use crate::support::{
    frames::{Flow, hello, text},
    switch::Switch,
    wire::{assert_receives, assert_silent, drain, send},
};

crate::tests![
    the_first_frame_floods_and_the_reply_goes_to_one_port_by_xdp,
    every_hook_learns,
    an_address_is_forgotten_after_the_ageing_time,
    a_frame_within_the_ageing_time_renews_an_address,
    an_address_moves_with_its_station,
    a_source_that_can_not_be_a_stations_teaches_nothing,
];

/// More than [`AGEING`] and a tick of the coarse clock.
const AGED: Duration = Duration::from_millis(5100);
/// In seconds: longer than a busy machine takes from a frame to what the next command shows.
const AGEING: u32 = 5;

fn the_first_frame_floods_and_the_reply_goes_to_one_port_by_xdp() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    let question = Flow::udp(1, 2).frame(b"question");
    send(vm1, &question);
    assert_receives(vm2, &question);
    assert_receives(vm3, &question);

    let answer = Flow::udp(2, 1).frame(b"answer");
    send(vm2, &answer);
    assert_receives(vm1, &answer);
    assert_silent(&[vm1, vm2, vm3]);

    let stats = switch.stats();
    assert_eq!(stats.frames("vm2", "vm1"), (1, 0), "{stats:#?}");
    assert_eq!(stats.port("vm1").flooded.frames, 1, "{stats:#?}");
    assert_eq!(stats.paths.len(), 1, "{stats:#?}");
    assert_eq!(
        (stats.port("vm1").learned, stats.port("vm2").learned),
        (1, 1),
        "{stats:#?}"
    );
}

fn every_hook_learns() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(2, hook);
        let [vm1, vm2] = switch.taps();
        send(vm1, &hello(1));
        drain(&[vm2]);
        // Known unicast: the XDP program learns its source too.
        send(vm2, &Flow::udp(2, 1).frame(b"known"));
        drain(&[vm1]);
        let expected = if hook == "xdp" { (1, 0) } else { (0, 1) };
        assert_eq!(switch.stats().frames("vm2", "vm1"), expected, "{hook}");
        send(vm1, &Flow::udp(1, 2).frame(b"known too"));
        drain(&[vm2]);
        assert_eq!(switch.stats().frames("vm1", "vm2"), expected, "{hook}");
        let learned: Vec<_> = switch.stats().ports.iter().map(|port| port.learned).collect();
        assert_eq!(learned, [1, 1], "{hook}");
    }
}

fn an_address_is_forgotten_after_the_ageing_time() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.ok(&format!("set --ageing-time {AGEING}"));
    switch.introduce();
    thread::sleep(AGED);
    let frame = Flow::udp(1, 2).frame(b"who is two?");
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_receives(vm3, &frame);
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, 0), "{stats:#?}");

    let known = switch.json("fdb show");
    let known: Vec<_> = known.as_array().expect("entries").iter().collect();
    assert!(
        known.len() == 1 && known[0]["ifname"] == "vm1",
        "only what has sent since: {known:?}"
    );
}

fn a_frame_within_the_ageing_time_renews_an_address() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.ok("set --ageing-time 3");
    switch.introduce();
    // The switch renews an entry that is older than a second, here by a frame on the fast path.
    thread::sleep(Duration::from_millis(1500));
    let renewing = Flow::udp(2, 1).frame(b"still here");
    send(vm2, &renewing);
    assert_receives(vm1, &renewing);
    thread::sleep(Duration::from_secs(2));
    let frame = Flow::udp(1, 2).frame(b"are you?");
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_silent(&[vm1, vm2, vm3]);
    assert_eq!(switch.stats().port("vm2").learned, 1, "renewed, not learned anew");
}

fn an_address_moves_with_its_station() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    // By the fast path: station 2 speaks from vm3 now.
    let moved = Flow::udp(2, 1).frame(b"I have moved");
    send(vm3, &moved);
    assert_receives(vm1, &moved);
    let frame = Flow::udp(1, 2).frame(b"there?");
    send(vm1, &frame);
    assert_receives(vm3, &frame);
    // And back, by a frame that goes up to tcx.
    send(vm2, &hello(2));
    drain(&[vm1, vm3]);
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_silent(&[vm1, vm2, vm3]);
    let stats = switch.stats();
    assert_eq!(
        (stats.port("vm2").moved, stats.port("vm3").moved),
        (1, 1),
        "{stats:#?}"
    );
    assert_eq!(
        stats.port("vm2").learned + stats.port("vm3").learned,
        2,
        "{stats:#?}"
    );
}

fn a_source_that_can_not_be_a_stations_teaches_nothing() {
    let switch = Switch::of(2);
    let [vm1, _] = switch.taps();
    for source in [[0; 6], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
        send(vm1, &Flow::udp(1, 2).from(source).frame(b""));
    }
    assert_eq!(switch.json("fdb show"), serde_json::json!([]));
    send(vm1, &hello(1));
    assert_eq!(
        switch.json("fdb show")[0]["mac"],
        text(crate::support::frames::mac(1))
    );
}
