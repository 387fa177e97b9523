//! Conservation: random traffic of all kinds, and every frame is accounted for.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use etherparse::SlicedPacket;
use lab::{
    Tap, VnetHeader,
    vnet::{GSO_TCPV6, GSO_UDP_L4},
};

use crate::support::{
    end::EndOnDrop,
    frames::{
        BROADCAST, Flow, MULTICAST, Network, Tag, Transport, hello, link_local, partial, payload, segmented,
        tagged,
    },
    program::ip,
    random::Random,
    statistics::{Bridge, Count},
    switch::Switch,
    wire,
};

crate::tests![
    random_traffic_is_accounted_for_frame_by_frame,
    random_traffic_from_all_ports_at_once_is_accounted_for,
    what_went_to_ports_that_have_been_detached_stays_counted,
    what_went_to_ports_whose_detach_was_killed_is_counted_once,
    malformed_frames_of_several_segments_are_accounted_for,
];

/// What is sent or received on one tap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    frames: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    fn count(self) -> Count {
        Count {
            frames: self.frames,
            bytes: self.bytes,
        }
    }
}

/// Four taps, one with a small MTU, one for jumbo frames, one with tcx alone.
fn switch() -> Switch {
    let mut switch = Switch::empty();
    for (name, mtu) in [("vm1", 1500), ("vm2", 1000), ("vm3", 9000), ("vm4", 1500)] {
        switch.add(Tap::builder(name).mtu(mtu));
    }
    switch.ok("attach vm1 vm2 vm3");
    switch.ok("attach vm4 --hook tcx");
    switch
}

/// A frame of some kind, as the guest of tap `station` might send it.
fn random_frame(random: &mut Random, station: u8) -> (VnetHeader, Vec<u8>) {
    let network = random.pick(&[Network::V4, Network::V6]);
    let transport = random.pick(&[Transport::Tcp, Transport::Udp]);
    let target = random.pick(&[1, 2, 3, 4]);
    let mut flow = Flow::new(station, target, network, transport);
    match random.below(20) {
        0 => flow = flow.to(BROADCAST),
        1 => flow = flow.to(MULTICAST),
        2 => flow = flow.to(link_local(5)),
        3 => flow = flow.to(link_local(0x20)),
        4 => flow = flow.to([2, 0, 0, 0, 0, 0x99]),
        5 => flow = flow.from([0; 6]),
        6 => flow = flow.from(BROADCAST),
        // A station that moves.
        7 => flow = flow.from([2, 0, 0, 0, 0, 0x55]),
        8 => flow = flow.to([2, 0, 0, 0, 0, 0x55]),
        _ => {}
    }
    let bytes = random.pick(&[0, 1, 17, 28, 100, 536, 999, 1400, 1460, 3000, 8000]);
    let mut complete = flow.frame(&payload(bytes));
    if let Some(tag) = random.pick(&[
        None,
        None,
        Some(Tag::customer(5)),
        Some(Tag::service(9)),
        Some(Tag::customer(0)),
    ]) {
        complete = tagged(&complete, tag.priority(3));
    }
    let (header, frame) = partial(&complete);
    let size = random.pick(&[100, 536, 1400]);
    match random.below(10) {
        0..=2 => (VnetHeader::none(), complete),
        3 if bytes > size => segmented(&complete, u16::try_from(size).expect("short")),
        // Cut short, down to the Ethernet header alone. A tagged frame of less than 20 bytes would not reach tcx:
        // the kernel drops it where it takes the tag out (`skb_vlan_untag`).
        4 => {
            let shortest =
                if SlicedPacket::from_ethernet(&complete).is_ok_and(|packet| packet.vlan().is_some()) {
                    20
                } else {
                    14
                };
            let length = shortest + random.below(complete.len() - shortest + 1);
            (VnetHeader::none(), complete[..length].to_vec())
        }
        _ => (header, frame),
    }
}

/// Sends a random frame; the tally has those that the tap took.
fn send_random(tap: &Tap, station: u8, random: &mut Random, sent: &mut Tally) {
    let (header, frame) = random_frame(random, station);
    if tap.send(&header, &frame).is_ok() {
        sent.add(frame.len());
    }
}

fn receive_all(tap: &Tap, received: &mut Tally) {
    while let Some((_, frame)) = tap.receive(Duration::ZERO).expect("receive") {
        received.add(frame.len());
    }
}

/// What the kernel says that a tap has received. It has not received what it was given while it was down.
fn taken(tap: &Tap) -> Count {
    let shown = ip(&format!("-s -j link show dev {}", tap.name()));
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let number = |key: &str| shown[0]["stats64"]["rx"][key].as_u64().expect("a number");
    Count {
        frames: number("packets"),
        bytes: number("bytes"),
    }
}

/// Every frame that a tap received went past the bridge or was left to it, and every one that arrived came past it, or
/// by it, or was dropped on the way out.
#[track_caller]
fn assert_accounted(stats: &Bridge, taps: [&Tap; 4], received: [Tally; 4], seed: u64) {
    for ((port, tap), received) in stats.ports.iter().zip(taps).zip(received) {
        let context = format!("seed {seed}, {}, received {received:?}: {stats:#?}", port.ifname);
        assert_eq!(port.rx, taken(tap), "{context}");
        assert_eq!(
            port.tx.frames + port.tx_by_bridge,
            received.frames + port.tx_dropped,
            "{context}"
        );
        assert!(port.forwarded.frames > 0 && port.left.frames > 0, "{context}");
        assert!(port.tx.frames > 0 && port.tx_by_bridge > 0, "{context}");
    }
}

fn random_traffic_is_accounted_for_frame_by_frame() {
    for seed in 0..3 {
        let switch = switch();
        let taps: [&Tap; 4] = switch.taps();
        let mut random = Random::new(seed);
        let (mut sent, mut received) = ([Tally::default(); 4], [Tally::default(); 4]);
        for round in 0..2000 {
            // Now and then a tap is down for a while.
            if round % 100 == 50 {
                random.pick(&taps).down().expect("tap down");
            } else if round % 100 == 70 {
                for tap in taps {
                    tap.up().expect("tap up");
                }
            }
            let from = random.below(4);
            send_random(
                taps[from],
                u8::try_from(from + 1).expect("small"),
                &mut random,
                &mut sent[from],
            );
            // Before it goes down, a tap's reader has read what there is.
            for (tap, received) in taps.iter().zip(&mut received) {
                receive_all(tap, received);
            }
        }
        let stats = switch.stats();
        assert_accounted(&stats, taps, received, seed);
        let reasons: Vec<_> = stats
            .ports
            .iter()
            .flat_map(|port| port.left_by_reason.keys())
            .collect();
        for reason in [
            "invalid_source",
            "group",
            "source_unknown",
            "source_elsewhere",
            "destination_unknown",
            "same_port",
            "egress_mtu",
        ] {
            assert!(
                reasons.iter().any(|found| *found == reason),
                "no {reason}: {stats:#?}"
            );
        }
    }
}

fn random_traffic_from_all_ports_at_once_is_accounted_for() {
    let switch = switch();
    let taps: [&Tap; 4] = switch.taps();
    let done = AtomicBool::new(false);
    let (sent, received) = thread::scope(|scope| {
        let readers = taps.map(|tap| {
            let done = &done;
            scope.spawn(move || {
                let mut received = Tally::default();
                while !done.load(Ordering::Relaxed) {
                    receive_all(tap, &mut received);
                    thread::sleep(Duration::from_millis(1));
                }
                received
            })
        });
        let writers = [0, 1, 2, 3].map(|from: u8| {
            let tap = taps[usize::from(from)];
            scope.spawn(move || {
                let mut random = Random::new(u64::from(from) + 100);
                let mut sent = Tally::default();
                for _ in 0..5000 {
                    send_random(tap, from + 1, &mut random, &mut sent);
                }
                sent
            })
        });
        let end = EndOnDrop(&done);
        let sent = writers.map(|writer| writer.join().expect("no panic in a writer"));
        drop(end);
        let received = readers.map(|reader| reader.join().expect("no panic in a reader"));
        (sent, received)
    });
    let received: Vec<_> = taps
        .iter()
        .zip(received)
        .map(|(tap, mut received)| {
            receive_all(tap, &mut received);
            received
        })
        .collect();
    let received = received.try_into().expect("four of them");
    assert!(sent.iter().all(|sent| sent.frames > 0), "{sent:?}");
    assert_accounted(&switch.stats(), taps, received, 100);
}

/// vm1 sends to vm2 and vm3, some of it by broadcast and some in several segments, while `disturb` is at work. Every
/// frame that vm1's tap took is counted once.
fn under_load(disturb: impl FnOnce(&Switch)) {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    let before = switch.stats().port("vm1").rx;
    let done = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let done = &done;
        let writer = scope.spawn(move || {
            let mut sent = Tally::default();
            for round in 0_u32.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let (header, frame) = match round % 8 {
                    0 => segmented(&Flow::tcp(1, 2).frame(&payload(3000)), 1000),
                    1 => partial(&Flow::tcp(1, 2).to(BROADCAST).frame(b"to all")),
                    odd if odd % 2 == 1 => partial(&Flow::tcp(1, 3).frame(b"to vm3")),
                    _ => partial(&Flow::tcp(1, 2).frame(b"to vm2")),
                };
                if vm1.send(&header, &frame).is_ok() {
                    sent.add(frame.len());
                }
                vm2.drain().expect("receive");
                vm3.drain().expect("receive");
            }
            sent
        });
        disturb(&switch);
        done.store(true, Ordering::Relaxed);
        writer.join().expect("no panic in the writer")
    });
    let stats = switch.stats();
    let vm1 = stats.port("vm1");
    assert_eq!(vm1.rx, before + sent.count(), "{stats:#?}");
    assert!(vm1.forwarded.frames > 0, "{stats:#?}");
}

fn what_went_to_ports_that_have_been_detached_stays_counted() {
    under_load(|switch| {
        for _ in 0..10 {
            switch.ok("detach vm2");
            switch.ok("attach vm2");
            wire::send(switch.taps::<3>()[1], &hello(2));
            thread::sleep(Duration::from_millis(20));
        }
    });
}

fn what_went_to_ports_whose_detach_was_killed_is_counted_once() {
    under_load(|switch| {
        let mut random = Random::new(7);
        for _ in 0..15 {
            let time = Duration::from_micros(random.number() % 30_000);
            switch.kill_after("detach vm2", time);
            switch.ok("attach vm2");
            wire::send(switch.taps::<3>()[1], &hello(2));
            thread::sleep(Duration::from_millis(10));
        }
        // On a loaded machine the others may have been killed before they had begun.
        switch.ok("detach vm2");
        switch.ok("attach vm2");
    });
}

/// Headers that contradict their frames: the kernel finds that out where it cuts them, behind the switch.
fn malformed_frames_of_several_segments_are_accounted_for() {
    for seed in 0..4 {
        let switch = Switch::of(4);
        let taps: [&Tap; 4] = switch.taps();
        switch.introduce();
        let before = switch.stats();
        let mut random = Random::new(seed);
        let (mut sent, mut received) = ([Tally::default(); 4], [Tally::default(); 4]);
        for _ in 0..500 {
            let from = random.below(4);
            let station = u8::try_from(from + 1).expect("small");
            let to = Flow::tcp(station, random.pick(&[1, 2, 3, 4]));
            let to = if random.below(2) == 0 {
                to.to(BROADCAST)
            } else {
                to
            };
            let frame = to.frame(&payload(random.pick(&[20, 600, 3000, 20_000])));
            let (header, mut frame) = segmented(&frame, random.pick(&[1, 100, 536, 1400]));
            let header = match random.below(6) {
                0 => VnetHeader {
                    gso_type: GSO_TCPV6,
                    ..header
                },
                1 => VnetHeader {
                    gso_type: GSO_UDP_L4,
                    csum_offset: 6,
                    ..header
                },
                2 => VnetHeader {
                    csum_start: header.csum_start + random.pick(&[2_u16, 20, 400]),
                    ..header
                },
                3 => VnetHeader {
                    hdr_len: random.pick(&[0, 14, 9000]),
                    ..header
                },
                4 => {
                    // A TCP header that claims to be longer than the frame, or shorter than itself.
                    frame[46] = random.pick(&[0x00, 0x30, 0xf0]);
                    header
                }
                _ => {
                    frame.truncate(random.pick(&[40, 54, 60]));
                    header
                }
            };
            if taps[from].send(&header, &frame).is_ok() {
                sent[from].add(frame.len());
            }
            for (tap, received) in taps.iter().zip(&mut received) {
                receive_all(tap, received);
            }
        }
        let stats = switch.stats();
        for (number, port) in stats.ports.iter().enumerate() {
            let context = format!("seed {seed}, {}: {stats:#?}", port.ifname);
            let before = &before.ports[number];
            assert_eq!(port.rx, before.rx + sent[number].count(), "{context}");
            assert_eq!(
                port.tx.frames + port.tx_by_bridge + before.tx_dropped,
                before.tx.frames + before.tx_by_bridge + received[number].frames + port.tx_dropped,
                "{context}"
            );
        }
    }
}
