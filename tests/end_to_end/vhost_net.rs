//! Taps that vhost-net serves: its frames come in batches, in which native redirects would be overtaken.

use std::time::{Duration, Instant};

use lab::{Tap, VnetHeader};
use serde_json::json;

use crate::support::{
    frames::{BROADCAST, Flow, hello, partial, payload, segmented},
    running::{LIMIT, Running},
    switch::Switch,
    vhost_net::{VhostNet, Worker},
    wire::{drain, receive, send_with},
};

crate::tests![
    batches_arrive_in_order_with_both_hooks,
    batches_arrive_in_order_with_tcx_alone,
    batches_arrive_in_order_while_run_chooses_the_hooks,
    what_is_written_beside_vhost_net_is_redirected_natively,
    run_takes_xdp_off_a_tap_that_vhost_net_serves,
];

/// A frame that comes at all has come by now.
const SILENCE: Duration = Duration::from_millis(100);
const WORKERS: [Worker; 2] = [Worker::Task, Worker::Kthread];

/// Batches, a letter a frame, from station 1 to station 2.
const BATCHES: [&str; 12] = [
    "pppp",
    "pgp",
    "ppgppgpp",
    "pGp",
    "ppppppppppppppppppppgppp",
    "uUuU",
    "VUV",
    "pfp",
    "pxpbp",
    "ptgtp",
    "xbxb",
    "pJpjp",
];

/// A frame of a kind, whose payload begins with a number.
fn frame(kind: char, number: u32) -> (VnetHeader, Vec<u8>) {
    let data = |bytes: usize| [&number.to_be_bytes()[..], &payload(bytes)].concat();
    let complete = |flow: Flow, bytes| (VnetHeader::none(), flow.frame(&data(bytes)));
    let tcp = Flow::tcp(1, 2);
    match kind {
        'p' => partial(&tcp.frame(&data(40))),
        't' => partial(&tcp.frame(&data(1400))),
        'g' => segmented(&tcp.frame(&data(1500)), 500),
        'G' => segmented(&tcp.frame(&data(64_000)), 1448),
        'J' => segmented(&tcp.frame(&data(3500)), 1448),
        'j' => segmented(&tcp.frame(&data(3322)), 1448),
        'u' => complete(Flow::udp(1, 2), 16),
        'U' => (VnetHeader::none(), Flow::udp(1, 2).without_checksum(&data(96))),
        'V' => partial(&Flow::udp(1, 2).frame(&data(96))),
        'x' => partial(&tcp.to([2, 0, 0, 0, 0, 0x99]).frame(&data(40))),
        'b' => partial(&tcp.to(BROADCAST).frame(&data(40))),
        'f' => {
            let (header, mut frame) = complete(tcp, 40);
            // More fragments follow.
            frame[20] |= 0x20;
            (header, frame)
        }
        other => panic!("no frame of kind {other}"),
    }
}

/// The numbers of the frames that a tap receives, until nothing comes.
fn numbers(tap: &Tap) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some((_, frame)) = tap.receive(SILENCE).expect("receive") {
        let headers = if frame[23] == 17 { 42 } else { 54 };
        numbers.push(u32::from_be_bytes(
            *frame[headers..].first_chunk().expect("a number"),
        ));
    }
    numbers
}

/// vm1's frames, sent by vhost-net in every kind of batch, arrive at vm2, and at vm3 where they are for all.
#[track_caller]
fn batches_arrive_in_order(switch: &Switch) {
    let [vm1, vm2, vm3] = switch.taps();
    for worker in WORKERS {
        let mut vhost_net = VhostNet::serve(vm1, worker);
        switch.introduce();
        drain(&[vm1, vm2, vm3]);
        for batch in BATCHES {
            let frames: Vec<_> = batch
                .chars()
                .zip(0..)
                .map(|(kind, number)| frame(kind, number))
                .collect();
            vhost_net.send(&frames);
            let flooded: Vec<u32> = batch
                .chars()
                .zip(0..)
                .filter(|(kind, _)| "xb".contains(*kind))
                .map(|(_, number)| number)
                .collect();
            let all: Vec<u32> = batch.chars().zip(0..).map(|(_, number)| number).collect();
            assert_eq!(numbers(vm2), all, "{worker:?}: {batch} at vm2");
            assert_eq!(numbers(vm3), flooded, "{worker:?}: {batch} at vm3");
        }
    }
}

fn batches_arrive_in_order_with_both_hooks() {
    let switch = Switch::of(3);
    batches_arrive_in_order(&switch);
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2").0, 0, "{stats:#?}");
    assert!(stats.frames("vm1", "vm2").1 > 0, "{stats:#?}");
    assert!(
        stats.port("vm1").passed_up_by_reason["vhost_net"] > 0,
        "{stats:#?}"
    );
    let shown = switch.shown("vm1");
    assert_eq!(shown["obstacles"][0]["reason"], "vhost_net", "{shown}");
    assert!(switch.ok("show").contains("  vm1: is served by vhost-net"));
}

fn batches_arrive_in_order_with_tcx_alone() {
    batches_arrive_in_order(&Switch::with_hook(3, "tcx"));
}

fn batches_arrive_in_order_while_run_chooses_the_hooks() {
    let switch = Switch::with_hook(3, "auto");
    let running = Running::start(&switch);
    batches_arrive_in_order(&switch);
    drop(running);
}

fn what_is_written_beside_vhost_net_is_redirected_natively() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    for worker in WORKERS {
        let mut vhost_net = VhostNet::serve(vm1, worker);
        switch.introduce();
        let before = switch.stats();
        vhost_net.send(&[frame('p', 1), frame('p', 2)]);
        let (header, bytes) = frame('p', 3);
        // By the same tap's own descriptor, and by another tap.
        send_with(vm1, &header, &bytes);
        assert_eq!(numbers(vm2), [1, 2, 3], "{worker:?}");
        let (header, bytes) = partial(&Flow::tcp(3, 2).frame(b"12345"));
        send_with(vm3, &header, &bytes);
        receive(vm2);
        let stats = switch.stats();
        let xdp = |from| stats.frames(from, "vm2").0 - before.frames(from, "vm2").0;
        assert_eq!((xdp("vm1"), xdp("vm3")), (1, 1), "{worker:?}: {stats:#?}");
    }
}

fn run_takes_xdp_off_a_tap_that_vhost_net_serves() {
    let switch = Switch::with_hook(2, "auto");
    let [vm1, vm2] = switch.taps();
    let mut vhost_net = VhostNet::serve(vm1, Worker::Task);
    switch.introduce();
    let running = Running::start(&switch);
    let deadline = Instant::now() + LIMIT;
    let change = loop {
        vhost_net.send(&[frame('p', 1)]);
        receive(vm2);
        if let Some(change) = running.change() {
            break change;
        }
        assert!(Instant::now() < deadline, "no change in {LIMIT:?}");
    };
    assert_eq!(
        (&change["ifname"], &change["reason"]),
        (&json!("vm1"), &json!("vhost_net")),
        "{change}"
    );
    assert_eq!(switch.shown("vm1")["hooks"], json!(["tcx"]));
    // The other one keeps both.
    vm2.send(&VnetHeader::none(), &hello(2)).expect("send");
    assert_eq!(switch.shown("vm2")["hooks"], json!(["xdp", "tcx"]));
}
