//! Frames that carry several segments, to be cut later (GSO).

use etherparse::{SlicedPacket, TransportSlice};
use lab::{Offloads, Tap, VnetHeader};

use crate::support::{
    frames::{Flow, Network, Tag, Transport, hello, payload, segmented, tagged},
    linux_bridge::stop_learning,
    switch::Switch,
    wire::{
        assert_receives_gso, assert_receives_with, assert_same, assert_silent, drain, receive, send,
        send_with,
    },
};

crate::tests![
    large_segments_arrive_whole_with_their_metadata,
    a_flooded_large_segment_arrives_whole_everywhere,
    small_gso_frames_are_told_from_native_ones,
    a_reader_without_offloads_receives_segments_with_right_checksums,
    gso_frames_larger_than_the_mtu_are_forwarded,
];

/// A frame of several segments, each with `size` bytes of payload.
fn gso(flow: Flow, tag: Option<Tag>, bytes: usize, size: u16) -> (VnetHeader, Vec<u8>) {
    let complete = flow.frame(&payload(bytes));
    segmented(
        &tag.map_or_else(|| complete.clone(), |tag| tagged(&complete, tag)),
        size,
    )
}

const FLOWS: [Flow; 4] = [
    Flow::new(1, 2, Network::V4, Transport::Tcp),
    Flow::new(1, 2, Network::V6, Transport::Tcp),
    Flow::new(1, 2, Network::V4, Transport::Udp),
    Flow::new(1, 2, Network::V6, Transport::Udp),
];
const TAGS: [Option<Tag>; 3] = [None, Some(Tag::customer(5)), Some(Tag::service(6))];

/// Makes station 2 known; frames from station 1 need not be seen.
fn introduce(vm1: &Tap, vm2: &Tap) {
    stop_learning("vm1");
    send(vm2, &hello(2));
    drain(&[vm1]);
}

/// UDP of many segments is for cards with few: at most 128 (`UDP_MAX_SEGMENTS`).
fn large(flow: Flow) -> usize {
    if flow.transport == Transport::Udp {
        40_000
    } else {
        65_000
    }
}

fn large_segments_arrive_whole_with_their_metadata() {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(2, hook);
        let [vm1, vm2] = switch.taps();
        introduce(vm1, vm2);
        for flow in FLOWS {
            for tag in TAGS {
                let (header, frame) = gso(flow, tag, large(flow), 1400);
                send_with(vm1, &header, &frame);
                // With tcx alone not even the hint changes.
                if hook == "tcx" && tag.is_none() {
                    assert_receives_with(vm2, &header, &frame);
                } else {
                    assert_receives_gso(vm2, &header, &frame);
                }
            }
        }
        let stats = switch.stats();
        assert_eq!(stats.frames("vm1", "vm2"), (0, 12), "{hook}: {stats:#?}");
        assert_eq!(stats.port("vm1").gso_frames, 12, "{hook}: {stats:#?}");
    }
}

fn a_flooded_large_segment_arrives_whole_everywhere() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    for flow in FLOWS {
        for tag in TAGS {
            let (header, frame) = gso(flow, tag, large(flow), 1400);
            send_with(vm1, &header, &frame);
            assert_receives_gso(vm2, &header, &frame);
            assert_receives_gso(vm3, &header, &frame);
        }
    }
    let stats = switch.stats();
    let vm1 = stats.port("vm1");
    assert_eq!(
        (vm1.left.frames, vm1.gso_frames, vm1.left),
        (12, 12, vm1.rx),
        "{stats:#?}"
    );
}

fn small_gso_frames_are_told_from_native_ones() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    for flow in FLOWS {
        for tag in TAGS {
            // Two segments of an MSS of 536, and of one byte.
            for (bytes, size) in [(1072, 536), (700, 536), (2, 1)] {
                let (header, frame) = gso(flow, tag, bytes, size);
                assert!(frame.len() < 1200);
                send_with(vm1, &header, &frame);
                assert_receives_gso(vm2, &header, &frame);
            }
        }
    }
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, 36), "{stats:#?}");
    assert_eq!(stats.port("vm1").checksums_completed, 0, "{stats:#?}");
    assert_eq!(stats.port("vm1").gso_frames, 36, "{stats:#?}");
}

fn a_reader_without_offloads_receives_segments_with_right_checksums() {
    for known in [true, false] {
        let mut switch = Switch::empty();
        switch.add(Tap::builder("vm1"));
        switch.add(Tap::builder("vm2").offloads(Offloads::None));
        switch.attach_all("xdp");
        let [vm1, vm2] = switch.taps();
        if known {
            introduce(vm1, vm2);
        }
        for flow in FLOWS {
            for tag in TAGS {
                for (bytes, size) in [(10_000, 1400), (1072, 536), (701, 536)] {
                    let (header, frame) = gso(flow, tag, bytes, size);
                    send_with(vm1, &header, &frame);
                    assert_receives_segments(vm2, flow, tag, bytes, size);
                }
            }
        }
        assert_silent(&[vm1, vm2]);
    }
}

/// Receives a frame in as many segments as it takes, each complete.
#[track_caller]
fn assert_receives_segments(tap: &Tap, flow: Flow, tag: Option<Tag>, bytes: usize, size: u16) {
    let expected = payload(bytes);
    for (index, part) in expected.chunks(usize::from(size)).enumerate() {
        let (header, frame) = receive(tap);
        let context = format!("segment {index} of {flow:?}, {tag:?}, {bytes} bytes");
        assert_eq!(header, VnetHeader::none(), "{context}");
        let packet = SlicedPacket::from_ethernet(&frame).expect("a frame");
        assert_eq!(
            packet.vlan_ids().first().map(|id| id.value()),
            tag.map(|tag| tag.id),
            "{context}"
        );
        let ip = packet.net.as_ref().expect("an IP header");
        let (received, found, right) = match packet.transport.as_ref().expect("a transport header") {
            TransportSlice::Tcp(tcp) => {
                let offset = u32::try_from(index * usize::from(size)).expect("a short frame");
                assert_eq!(tcp.sequence_number(), 7 + offset, "{context}");
                let right = match (ip.ipv4_ref(), ip.ipv6_ref()) {
                    (Some(ip), _) => tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()),
                    (_, Some(ip)) => tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()),
                    _ => panic!("no IP: {context}"),
                };
                (tcp.payload(), tcp.checksum(), right.expect("a short segment"))
            }
            TransportSlice::Udp(udp) => {
                let (header, payload) = (udp.to_header(), udp.payload());
                let right = match (ip.ipv4_ref(), ip.ipv6_ref()) {
                    (Some(ip), _) => header.calc_checksum_ipv4(&ip.header().to_header(), payload),
                    (_, Some(ip)) => header.calc_checksum_ipv6(&ip.header().to_header(), payload),
                    _ => panic!("no IP: {context}"),
                };
                (payload, udp.checksum(), right.expect("a short segment"))
            }
            other => panic!("{other:?}: {context}"),
        };
        assert_same(&context, received, part);
        assert_eq!(found, right, "checksum of {context}");
    }
}

fn gso_frames_larger_than_the_mtu_are_forwarded() {
    let mut switch = Switch::empty();
    switch.add(Tap::builder("vm1"));
    switch.add(Tap::builder("vm2").mtu(1000));
    switch.attach_all("xdp");
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    // Small enough for native XDP were it not GSO, larger than the target's MTU, each segment within it.
    let (header, frame) = gso(Flow::tcp(1, 2), None, 1072, 536);
    send_with(vm1, &header, &frame);
    assert_receives_gso(vm2, &header, &frame);
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, 1), "{stats:#?}");
}
