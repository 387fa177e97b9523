//! Frames whose checksum the switch can't find by itself: they keep what their sender said of them, by tcx.

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, UdpHeader,
};
use lab::{Offloads, Tap, VnetHeader};

use crate::support::{
    frames::{Flow, Network, Transport, arp_reply, mac, partial, payload},
    linux_bridge::stop_learning,
    switch::Switch,
    wire::{assert_receives, assert_receives_with, send, send_with},
};

crate::tests![
    a_vxlan_frame_keeps_its_inner_partial_checksum,
    a_vxlan_frame_with_an_outer_checksum_keeps_its_inner_partial_one,
    a_vxlan_frame_with_an_outer_checksum_is_completed_for_a_reader_without_offloads,
    a_vxlan_frame_with_complete_checksums_passes_by_xdp,
    a_gre_frame_keeps_its_inner_partial_checksum,
    an_ip_in_ip_frame_keeps_its_inner_partial_checksum,
    fragments_pass_unchanged,
    ipv4_options_pass_unchanged,
    ipv6_extension_headers_pass_unchanged,
    sctp_keeps_its_partial_checksum,
    icmp_passes_unchanged,
    arp_passes_by_the_bridge,
    packets_shorter_than_they_say_pass_unchanged,
    other_ethertypes_pass_unchanged,
];

/// Sends frames from station 1 to station 2; each must arrive as it was sent, all of them by this hook.
#[track_caller]
fn assert_unchanged(via: &str, frames: &[(VnetHeader, Vec<u8>)]) {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    for (header, frame) in frames {
        send_with(vm1, header, frame);
        assert_receives_with(vm2, header, frame);
    }
    let stats = switch.stats();
    let count = frames.len() as u64;
    let expected = if via == "xdp" { (count, 0) } else { (0, count) };
    assert_eq!(stats.frames("vm1", "vm2"), expected, "{stats:#?}");
    assert_eq!(stats.port("vm1").checksums_completed, 0, "{stats:#?}");
}

fn complete(frame: Vec<u8>) -> (VnetHeader, Vec<u8>) {
    (VnetHeader::none(), frame)
}

/// An outer Ethernet and IPv4 header from station 1 to station 2 around something.
fn around(protocol: IpNumber, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a short packet");
    let ip = Ipv4Header::new(length, 64, protocol, [10, 0, 0, 1], [10, 0, 0, 2]);
    ipv4_frame(&ip.expect("a short packet"), content)
}

fn ipv4_frame(ip: &Ipv4Header, content: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(EtherType::IPV4);
    ip.write(&mut frame).expect("a header");
    frame.extend(content);
    frame
}

fn ethernet(ether_type: EtherType) -> Vec<u8> {
    let header = Ethernet2Header {
        source: mac(1),
        destination: mac(2),
        ether_type,
    };
    header.to_bytes().to_vec()
}

/// Puts a frame into an outer one, together with where its partial checksum lies.
fn within((header, inner): (VnetHeader, Vec<u8>), outer: impl Fn(&[u8]) -> Vec<u8>) -> (VnetHeader, Vec<u8>) {
    let frame = outer(&inner);
    let shift = u16::try_from(frame.len() - inner.len()).expect("short headers");
    let header = VnetHeader {
        csum_start: header.csum_start + shift,
        ..header
    };
    (header, frame)
}

/// Frames of other stations with partial checksums, to be put into tunnels.
fn inner_frames() -> Vec<(VnetHeader, Vec<u8>)> {
    complete_inner_frames()
        .iter()
        .map(|frame| partial(frame))
        .collect()
}

fn complete_inner_frames() -> Vec<Vec<u8>> {
    let networks = [Network::V4, Network::V6].into_iter();
    let flows = networks.flat_map(|network| {
        [Transport::Tcp, Transport::Udp].map(|transport| Flow::new(3, 4, network, transport))
    });
    flows
        .flat_map(|flow| [0, 1, 600].map(|length| flow.frame(&payload(length))))
        .collect()
}

fn a_vxlan_frame_keeps_its_inner_partial_checksum() {
    let vxlan = |inner: &[u8]| {
        let content = [&[0x08, 0, 0, 0, 0, 0, 42, 0], inner].concat();
        let length = UdpHeader::LEN + content.len();
        // As the kernel sends it: the outer checksum is zero.
        let udp = UdpHeader {
            source_port: 50_000,
            destination_port: 4789,
            length: u16::try_from(length).expect("a short datagram"),
            checksum: 0,
        };
        around(IpNumber::UDP, &[&udp.to_bytes()[..], &content].concat())
    };
    let frames: Vec<_> = inner_frames()
        .into_iter()
        .map(|inner| within(inner, vxlan))
        .collect();
    assert_unchanged("tcx", &frames);
}

/// A frame of VXLAN whose checksums are complete.
fn vxlan(network: Network, source_port: u16, inner: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(mac(1), mac(2));
    let outer = match network {
        Network::V4 => ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
        Network::V6 => ethernet.ipv6([0xfd; 16], [0xfe; 16], 64),
    };
    let mut frame = Vec::new();
    outer
        .udp(source_port, 4789)
        .write_to_vec(&mut frame, &[&[8, 0, 0, 0, 0, 0, 42, 0], inner].concat())
        .expect("a short packet");
    frame
}

/// The source port with which the outer checksum is the same, complete or partial: one in 65,535 has it by chance.
fn port_of_chance(network: Network, inner: &[u8]) -> u16 {
    let checksum = |frame: &[u8]| {
        let (header, _) = partial(frame);
        let at = usize::from(header.csum_start + header.csum_offset);
        u16::from_be_bytes([frame[at], frame[at + 1]])
    };
    let blank = vxlan(network, 0, inner);
    let (port, carry) = (!checksum(&partial(&blank).1)).overflowing_add(checksum(&blank));
    let port = port + u16::from(carry);
    let made = vxlan(network, port, inner);
    assert_eq!(made, partial(&made).1, "the chance is made");
    port
}

/// Frames of VXLAN whose outer checksum is complete and whose inner one is left to the card (`lco_csum`), each beside
/// what it is when the card has done its work.
fn vxlan_frames() -> Vec<(VnetHeader, Vec<u8>, Vec<u8>)> {
    let mut frames = Vec::new();
    for network in [Network::V4, Network::V6] {
        for inner in complete_inner_frames() {
            for source_port in [50_000, port_of_chance(network, &inner)] {
                let completed = vxlan(network, source_port, &inner);
                let outer = &completed[..completed.len() - inner.len()];
                let (header, frame) = within(partial(&inner), |inner| [outer, inner].concat());
                assert_ne!(frame, completed, "a partial checksum is another");
                frames.push((header, frame, completed));
            }
        }
    }
    frames
}

fn a_vxlan_frame_with_an_outer_checksum_keeps_its_inner_partial_one() {
    let frames = vxlan_frames().into_iter();
    let frames: Vec<_> = frames.map(|(header, frame, _)| (header, frame)).collect();
    assert_unchanged("tcx", &frames);
}

fn a_vxlan_frame_with_an_outer_checksum_is_completed_for_a_reader_without_offloads() {
    let mut switch = Switch::empty();
    switch.add(Tap::builder("vm1"));
    switch.add(Tap::builder("vm2").offloads(Offloads::None));
    switch.attach_all("xdp");
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    for (header, frame, completed) in vxlan_frames() {
        send_with(vm1, &header, &frame);
        assert_receives(vm2, &completed);
    }
}

fn a_vxlan_frame_with_complete_checksums_passes_by_xdp() {
    // Of each pair the one whose outer checksum does not look partial.
    let frames = vxlan_frames().into_iter().step_by(2);
    let frames: Vec<_> = frames.map(|(_, _, completed)| complete(completed)).collect();
    assert_unchanged("xdp", &frames);
}

fn a_gre_frame_keeps_its_inner_partial_checksum() {
    let gre = |inner: &[u8]| around(IpNumber::GRE, &[&[0, 0, 0x65, 0x58], inner].concat());
    let frames: Vec<_> = inner_frames()
        .into_iter()
        .map(|inner| within(inner, gre))
        .collect();
    assert_unchanged("tcx", &frames);
}

fn an_ip_in_ip_frame_keeps_its_inner_partial_checksum() {
    let frames: Vec<_> = inner_frames()
        .into_iter()
        .map(|(header, inner)| {
            let version = inner[14] >> 4;
            let protocol = if version == 4 {
                IpNumber::IPV4
            } else {
                IpNumber::IPV6
            };
            // Without the inner Ethernet header.
            within((header, inner), |inner| around(protocol, &inner[14..]))
        })
        .collect();
    assert_unchanged("tcx", &frames);
}

fn fragments_pass_unchanged() {
    let datagram = &Flow::udp(1, 2).frame(&payload(64))[34..];
    let v4 = |more_fragments, offset, content: &[u8]| {
        let length = u16::try_from(content.len()).expect("a short packet");
        let ip = Ipv4Header::new(length, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]);
        let ip = Ipv4Header {
            more_fragments,
            dont_fragment: false,
            fragment_offset: IpFragOffset::try_new(offset).expect("a small offset"),
            ..ip.expect("a short packet")
        };
        complete(ipv4_frame(&ip, content))
    };
    let v6 = |more_fragments, offset, content: &[u8]| {
        let fragment = Ipv6FragmentHeader {
            next_header: IpNumber::UDP,
            fragment_offset: IpFragOffset::try_new(offset).expect("a small offset"),
            more_fragments,
            identification: 7,
        };
        let extensions = Ipv6Extensions {
            fragment: Some(fragment),
            ..Ipv6Extensions::default()
        };
        complete(ipv6_frame(extensions, IpNumber::UDP, content))
    };
    assert_unchanged(
        "tcx",
        &[
            v4(true, 0, &datagram[..24]),
            v4(false, 3, &datagram[24..]),
            v4(true, 3, &datagram[24..48]),
            v6(true, 0, &datagram[..24]),
            v6(false, 3, &datagram[24..]),
        ],
    );
}

/// An IPv6 packet from station 1 to station 2 with extension headers.
fn ipv6_frame(extensions: Ipv6Extensions, last: IpNumber, content: &[u8]) -> Vec<u8> {
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    (source[0], source[15], destination[0], destination[15]) = (0xfd, 1, 0xfd, 2);
    let mut ip = IpHeaders::Ipv6(
        Ipv6Header {
            hop_limit: 64,
            source,
            destination,
            ..Ipv6Header::default()
        },
        extensions,
    );
    ip.set_next_headers(last);
    ip.set_payload_len(content.len()).expect("a short packet");
    let mut frame = ethernet(EtherType::IPV6);
    ip.write(&mut frame).expect("headers");
    frame.extend(content);
    frame
}

fn ipv4_options_pass_unchanged() {
    let frames = [Transport::Tcp, Transport::Udp].map(|transport| {
        let (header, frame) = partial(&Flow::new(1, 2, Network::V4, transport).frame(b"with options"));
        let (_, segment) = frame.split_at(34);
        let protocol = if transport == Transport::Tcp {
            IpNumber::TCP
        } else {
            IpNumber::UDP
        };
        let ip = Ipv4Header::new(0, 64, protocol, [10, 0, 0, 1], [10, 0, 0, 2]).expect("a short packet");
        let mut ip = Ipv4Header {
            // Router alert
            options: Ipv4Options::from([148, 4, 0, 0]),
            ..ip
        };
        ip.set_payload_len(segment.len()).expect("a short packet");
        let header = VnetHeader {
            csum_start: header.csum_start + 4,
            ..header
        };
        (header, ipv4_frame(&ip, segment))
    });
    assert_unchanged("tcx", &frames);
}

fn ipv6_extension_headers_pass_unchanged() {
    let options =
        || Some(Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[1, 4, 0, 0, 0, 0]).expect("eight bytes"));
    // In a Vec, since each has room for every extension header there is.
    let frames: Vec<_> = vec![
        Ipv6Extensions {
            hop_by_hop_options: options(),
            ..Ipv6Extensions::default()
        },
        Ipv6Extensions {
            destination_options: options(),
            ..Ipv6Extensions::default()
        },
    ]
    .into_iter()
    .map(|extensions| {
        let (header, frame) = partial(&Flow::new(1, 2, Network::V6, Transport::Tcp).frame(b"extended"));
        let header = VnetHeader {
            csum_start: header.csum_start + 8,
            ..header
        };
        (header, ipv6_frame(extensions, IpNumber::TCP, &frame[54..]))
    })
    .collect();
    assert_unchanged("tcx", &frames);
}

fn sctp_keeps_its_partial_checksum() {
    // Ports, verification tag, checksum (CRC-32c), an INIT chunk.
    let segment = [&[0, 7, 0, 8, 0, 0, 0, 9, 0, 0, 0, 0, 1, 0, 0, 20][..], &[3; 16]].concat();
    let frame = around(IpNumber::SCTP, &segment);
    assert_unchanged(
        "tcx",
        &[
            complete(frame.clone()),
            (VnetHeader::partial_checksum(34, 8), frame),
        ],
    );
}

fn icmp_passes_unchanged() {
    let mut v4 = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(1), mac(2)).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    packet
        .icmpv4_echo_request(1, 2)
        .write_to_vec(&mut v4, b"ping")
        .expect("a short packet");
    let mut v6 = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(1), mac(2)).ipv6([1; 16], [2; 16], 64);
    packet
        .icmpv6_echo_request(1, 2)
        .write_to_vec(&mut v6, b"ping")
        .expect("a short packet");
    assert_unchanged("tcx", &[complete(v4), complete(v6)]);
}

/// It may answer in a station's place.
fn arp_passes_by_the_bridge() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    send(vm1, &arp_reply(1, 2));
    assert_receives(vm2, &arp_reply(1, 2));
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, 0), "{stats:#?}");
    assert_eq!(stats.port("vm1").left_by_reason["protocol"], 1, "{stats:#?}");
}

fn packets_shorter_than_they_say_pass_unchanged() {
    let frames: Vec<_> = [Network::V4, Network::V6]
        .into_iter()
        .flat_map(|network| {
            let frame = Flow::new(1, 2, network, Transport::Tcp).frame(b"truncated");
            // In the IP header, in the TCP header, in the payload.
            [15, 30, 60, frame.len() - 1].map(|length| complete(frame[..length].to_vec()))
        })
        .collect();
    assert_unchanged("tcx", &frames);
}

fn other_ethertypes_pass_unchanged() {
    // LLC, loopback test, MPLS, PPPoE session.
    let frames = [46, 0x9000, 0x8847, 0x8864].map(|ether_type| {
        let mut frame = ethernet(EtherType(ether_type));
        frame.extend(payload(46));
        complete(frame)
    });
    assert_unchanged("tcx", &frames);
}
