//! Checksums that guests leave to their network cards.

use lab::{Offloads, Tap, VnetHeader};

use crate::support::{
    frames::{Flow, Network, Tag, Transport, hello, partial, payload, tagged},
    linux_bridge::{self, stop_learning},
    program::bridge,
    switch::Switch,
    wire::{assert_receives, assert_receives_with, assert_silent, drain, receive, send, send_with},
};

crate::tests![
    xdp_completes_partial_checksums_of_every_length,
    tcx_leaves_partial_checksums_to_the_receiver,
    complete_checksums_pass_unchanged,
    wrong_checksums_pass_unchanged,
    a_datagram_whose_field_nobody_prepared_gets_what_a_linux_bridge_gives_it,
    what_does_not_look_partial_and_nobody_prepared_passes_as_it_was_written,
    a_checksum_of_zero_is_sent_as_ones,
    padding_behind_the_packet_is_not_summed,
    a_reader_without_offloads_receives_complete_checksums,
    a_blocking_vmm_gets_no_native_xdp_and_right_checksums,
];

const NETWORKS: [Network; 2] = [Network::V4, Network::V6];
const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];
const TAGS: [Option<Tag>; 3] = [None, Some(Tag::customer(5)), Some(Tag::service(6))];

/// From no payload to a full frame: every short one, and those around the pieces that XDP sums in.
fn lengths() -> Vec<usize> {
    let around = [128, 256, 512, 1024, 1280].map(|length| length - 21..length + 4);
    (0..70)
        .chain(around.into_iter().flatten())
        .chain(1390..=1400)
        .collect()
}

/// Flows from station 1 to station 2 of every kind.
fn flows() -> Vec<Flow> {
    let networks = NETWORKS.into_iter();
    networks
        .flat_map(|network| TRANSPORTS.map(|transport| Flow::new(1, 2, network, transport)))
        .collect()
}

fn wrap(frame: &[u8], tag: Option<Tag>) -> Vec<u8> {
    tag.map_or_else(|| frame.to_vec(), |tag| tagged(frame, tag))
}

/// Makes station 2 known; frames from station 1 need not be seen.
fn introduce(vm1: &Tap, vm2: &Tap) {
    stop_learning("vm1");
    send(vm2, &hello(2));
    drain(&[vm1]);
}

fn xdp_completes_partial_checksums_of_every_length() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    let mut sent = 0;
    for flow in flows() {
        for tag in TAGS {
            for length in lengths() {
                let complete = wrap(&flow.frame(&payload(length)), tag);
                let (header, frame) = partial(&complete);
                assert_ne!(frame, complete, "a partial checksum is another");
                send_with(vm1, &header, &frame);
                assert_receives(vm2, &complete);
                sent += 1;
            }
        }
    }
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (sent, 0), "{stats:#?}");
    assert_eq!(stats.port("vm1").checksums_completed, sent, "{stats:#?}");
    assert_eq!(stats.port("vm1").passed_up, 0, "{stats:#?}");
}

fn tcx_leaves_partial_checksums_to_the_receiver() {
    let switch = Switch::with_hook(2, "tcx");
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    let mut sent = 0;
    for flow in flows() {
        for tag in TAGS {
            for length in [0, 1, 27, 28, 29, 500, 1400] {
                let (header, frame) = partial(&wrap(&flow.frame(&payload(length)), tag));
                send_with(vm1, &header, &frame);
                assert_receives_with(vm2, &header, &frame);
                sent += 1;
            }
        }
    }
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, sent), "{stats:#?}");
    assert_eq!(stats.port("vm1").checksums_completed, 0, "{stats:#?}");
}

fn complete_checksums_pass_unchanged() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    let mut sent = 0;
    for flow in flows() {
        for tag in TAGS {
            for length in lengths() {
                let frame = wrap(&flow.frame(&payload(length)), tag);
                send(vm1, &frame);
                assert_receives(vm2, &frame);
                sent += 1;
            }
        }
    }
    // UDP over IPv4 without any checksum may be a tunnel with a partial one inside, if it is long enough.
    for length in [0, 27, 28] {
        let frame = Flow::udp(1, 2).without_checksum(&payload(length));
        send(vm1, &frame);
        assert_receives(vm2, &frame);
    }
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (sent + 2, 1), "{stats:#?}");
    assert_eq!(stats.port("vm1").checksums_completed, 0, "{stats:#?}");
}

fn wrong_checksums_pass_unchanged() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    for (flow, offset) in [(Flow::tcp(1, 2), 50), (Flow::udp(1, 2), 40)] {
        let mut frame = flow.frame(b"spoilt");
        frame[offset] ^= 0x55;
        send(vm1, &frame);
        assert_receives(vm2, &frame);
    }
    let stats = switch.stats();
    // A datagram whose checksum is wrong may be a tunnel's.
    assert_eq!(stats.frames("vm1", "vm2"), (1, 1), "{stats:#?}");
    assert_eq!(stats.port("vm1").checksums_completed, 0, "{stats:#?}");
}

/// Frames from a guest that asks for a checksum and has not put the pseudo-header's sum where it belongs.
fn unprepared(transport: Transport) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut frames = Vec::new();
    for flow in NETWORKS.map(|network| Flow::new(1, 2, network, transport)) {
        for length in [0, 1, 27, 28, 100, 1400] {
            for field in [0_u16, 0xbeef] {
                let (header, mut frame) = partial(&flow.frame(&payload(length)));
                let at = usize::from(header.csum_start + header.csum_offset);
                frame[at..at + 2].copy_from_slice(&field.to_be_bytes());
                frames.push((header, frame));
            }
        }
    }
    frames
}

/// Whether a frame looks as if it were meant to have no checksum, and has no room for one inside.
fn looks_unchecked((header, frame): &(VnetHeader, Vec<u8>)) -> bool {
    const IPV4_AND_UDP: usize = 42;
    let at = usize::from(header.csum_start + header.csum_offset);
    at == IPV4_AND_UDP - 2 && frame[at..at + 2] == [0, 0] && frame.len() < IPV4_AND_UDP + 28
}

/// What vm2 receives of what vm1 sends, over a bridge alone or over one whose ports are attached.
fn received(
    frames: &[(VnetHeader, Vec<u8>)],
    reader: Offloads,
    attached: bool,
) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut switch = Switch::empty();
    switch.add(Tap::builder("vm1"));
    switch.add(Tap::builder("vm2").offloads(reader));
    linux_bridge::make(2, false);
    if attached {
        switch.attach_all("xdp");
    }
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    let pass = |(header, frame): &(VnetHeader, Vec<u8>)| {
        send_with(vm1, header, frame);
        receive(vm2)
    };
    frames.iter().map(pass).collect()
}

fn a_datagram_whose_field_nobody_prepared_gets_what_a_linux_bridge_gives_it() {
    let mut frames = unprepared(Transport::Udp);
    frames.retain(|frame| !looks_unchecked(frame));
    for reader in [Offloads::All, Offloads::None] {
        let attached = received(&frames, reader, true);
        assert_eq!(attached, received(&frames, reader, false), "{reader:?}");
    }
}

/// XDP does not see that its sender asked for anything.
fn what_does_not_look_partial_and_nobody_prepared_passes_as_it_was_written() {
    let mut frames = unprepared(Transport::Udp);
    frames.retain(looks_unchecked);
    assert_eq!(frames.len(), 3, "payloads of 0, 1 and 27 bytes");
    frames.extend(unprepared(Transport::Tcp));
    for reader in [Offloads::All, Offloads::None] {
        let attached = received(&frames, reader, true);
        let written: Vec<_> = frames
            .iter()
            .map(|(_, frame)| (VnetHeader::none(), frame.clone()))
            .collect();
        assert_eq!(attached, written, "{reader:?}");
    }
}

fn a_checksum_of_zero_is_sent_as_ones() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    let flow = Flow::udp(1, 2);
    // Adding a frame's checksum to what it sums makes the sum all ones, and its complement zero.
    let checksum = &flow.frame(&[0, 0])[40..42];
    let complete = flow.frame(checksum);
    assert_eq!(complete[40..42], [0xff, 0xff]);
    let (header, frame) = partial(&complete);
    send_with(vm1, &header, &frame);
    assert_receives(vm2, &complete);
    assert_eq!(switch.stats().port("vm1").checksums_completed, 1);
}

fn padding_behind_the_packet_is_not_summed() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    for flow in [Flow::udp(1, 2), Flow::tcp(1, 2)] {
        for padding in [[0; 6], [0xa5; 6]] {
            let complete = flow.frame(b"odd");
            let (header, frame) = partial(&complete);
            send_with(vm1, &header, &[&frame[..], &padding].concat());
            assert_receives(vm2, &[&complete[..], &padding].concat());
        }
    }
    assert_eq!(switch.stats().frames("vm1", "vm2"), (4, 0));
}

fn a_reader_without_offloads_receives_complete_checksums() {
    for hook in ["xdp", "tcx"] {
        let mut switch = Switch::empty();
        switch.add(Tap::builder("vm1"));
        switch.add(Tap::builder("vm2").offloads(Offloads::None));
        switch.attach_all(hook);
        let [vm1, vm2] = switch.taps();
        stop_learning("vm1");
        for flow in flows() {
            for tag in TAGS {
                // Unknown at first, then known.
                for known in [false, true] {
                    bridge("fdb flush dev vm2 master dynamic");
                    if known {
                        introduce(vm1, vm2);
                    }
                    let complete = wrap(&flow.frame(&payload(333)), tag);
                    let (header, frame) = partial(&complete);
                    send_with(vm1, &header, &frame);
                    assert_receives(vm2, &complete);
                }
            }
        }
        assert_silent(&[vm1, vm2]);
    }
}

fn a_blocking_vmm_gets_no_native_xdp_and_right_checksums() {
    let mut switch = Switch::empty();
    switch.add(Tap::builder("vm1").blocking());
    switch.add(Tap::builder("vm2"));
    switch.attach_all("xdp");
    let [vm1, vm2] = switch.taps();
    introduce(vm1, vm2);
    for flow in flows() {
        // Generic XDP sees an skb, which keeps its metadata: nothing is to be completed.
        let (header, frame) = partial(&flow.frame(&payload(99)));
        send_with(vm1, &header, &frame);
        assert_receives_with(vm2, &header, &frame);
    }
    send_with(vm1, &VnetHeader::none(), &Flow::tcp(1, 2).frame(b"complete"));
    assert_receives(vm2, &Flow::tcp(1, 2).frame(b"complete"));
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, 5), "{stats:#?}");
    assert_eq!(
        (stats.port("vm1").passed_up, stats.port("vm1").checksums_completed),
        (5, 0),
        "{stats:#?}"
    );
}
