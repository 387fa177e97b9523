//! Frames that don't show what their checksum field holds: tcx forwards them with the skb's metadata.

use bridge_common::checksum::ChecksumAction;
use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, PacketBuilder};

use crate::{
    checksum_action::action,
    packet::{ADDRESSES, DESTINATION, Ip, Packet, SOURCE, Shape, Tag, Transport, noise},
};

/// A change to a packet that XDP would have completed.
struct Case {
    description: &'static str,
    applies: fn(Shape) -> bool,
    change: fn(&Packet, &mut Vec<u8>),
}

const fn both(_: Shape) -> bool {
    true
}

fn v4(shape: Shape) -> bool {
    shape.ip == Ip::V4
}

fn v6(shape: Shape) -> bool {
    shape.ip == Ip::V6
}

fn udp(shape: Shape) -> bool {
    shape.transport == Transport::Udp
}

fn set(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Sets the length that the IP header states of the transport segment.
fn state_length(packet: &Packet, bytes: &mut [u8], segment: usize) {
    let segment = u16::try_from(segment).unwrap();
    let network = packet.shape.network();
    match packet.shape.ip {
        Ip::V4 => set(bytes, network + 2, 20 + segment),
        Ip::V6 => set(bytes, network + 4, segment),
    }
}

/// Sets the protocol that the IP header states.
fn state_protocol(packet: &Packet, bytes: &mut [u8], protocol: u8) {
    let at = match packet.shape.ip {
        Ip::V4 => 9,
        Ip::V6 => 6,
    };
    bytes[packet.shape.network() + at] = protocol;
}

const CASES: &[Case] = &[
    Case {
        description: "a first fragment",
        applies: v4,
        change: |packet, bytes| set(bytes, packet.shape.network() + 6, 0x2000),
    },
    Case {
        description: "a last fragment",
        applies: v4,
        change: |packet, bytes| set(bytes, packet.shape.network() + 6, 0x0001),
    },
    Case {
        description: "a fragment far behind",
        applies: v4,
        change: |packet, bytes| set(bytes, packet.shape.network() + 6, 0x1fff),
    },
    Case {
        description: "an IPv4 header with options",
        applies: v4,
        change: |packet, bytes| bytes[packet.shape.network()] = 0x46,
    },
    Case {
        description: "an IPv4 header that says it is shorter than it can be",
        applies: v4,
        change: |packet, bytes| bytes[packet.shape.network()] = 0x44,
    },
    Case {
        description: "an IPv4 header of another version",
        applies: v4,
        change: |packet, bytes| bytes[packet.shape.network()] = 0x65,
    },
    Case {
        description: "an IPv6 header of another version",
        applies: v6,
        change: |packet, bytes| bytes[packet.shape.network()] = 0x40,
    },
    Case {
        description: "an IPv4 packet that says it is shorter than its header",
        applies: v4,
        change: |packet, bytes| set(bytes, packet.shape.network() + 2, 19),
    },
    Case {
        description: "an IPv4 packet that says it has no length",
        applies: v4,
        change: |packet, bytes| set(bytes, packet.shape.network() + 2, 0),
    },
    Case {
        description: "an IPv6 packet without a payload, or a jumbogram",
        applies: v6,
        change: |packet, bytes| set(bytes, packet.shape.network() + 4, 0),
    },
    Case {
        description: "a packet that says it is longer than the frame",
        applies: both,
        change: |packet, bytes| {
            let segment = bytes.len() - packet.shape.transport();
            state_length(packet, bytes, segment + 1);
        },
    },
    Case {
        description: "a packet that says it is as long as a packet can be",
        applies: both,
        change: |packet, bytes| state_length(packet, bytes, 65_515),
    },
    Case {
        description: "a segment shorter than its own header",
        applies: both,
        change: |packet, bytes| {
            let header = match packet.shape.transport {
                Transport::Tcp => 20,
                Transport::Udp => 8,
            };
            state_length(packet, bytes, header - 1);
        },
    },
    Case {
        description: "a datagram with a wrong checksum",
        applies: udp,
        change: |packet, bytes| {
            bytes.copy_from_slice(&packet.bytes);
            bytes[packet.shape.field()] ^= 1;
        },
    },
    Case {
        description: "a datagram that says it is shorter than its packet",
        applies: udp,
        change: |packet, bytes| set(bytes, packet.shape.field() - 2, 8 + 11 - 1),
    },
    Case {
        description: "a datagram that says it is longer than its packet",
        applies: udp,
        change: |packet, bytes| set(bytes, packet.shape.field() - 2, 8 + 11 + 1),
    },
    Case {
        description: "a frame that was cut",
        applies: both,
        change: |_, bytes| bytes.truncate(bytes.len() - 1),
    },
    Case {
        description: "ICMP",
        applies: both,
        change: |packet, bytes| state_protocol(packet, bytes, 1),
    },
    Case {
        description: "a tunnel of IP in IP",
        applies: both,
        change: |packet, bytes| state_protocol(packet, bytes, 4),
    },
    Case {
        description: "GRE",
        applies: both,
        change: |packet, bytes| state_protocol(packet, bytes, 47),
    },
    Case {
        description: "ICMPv6",
        applies: both,
        change: |packet, bytes| state_protocol(packet, bytes, 58),
    },
    Case {
        description: "SCTP",
        applies: both,
        change: |packet, bytes| state_protocol(packet, bytes, 132),
    },
    Case {
        description: "UDP-Lite",
        applies: both,
        change: |packet, bytes| state_protocol(packet, bytes, 136),
    },
    Case {
        description: "an IPv6 extension header: hop by hop",
        applies: v6,
        change: |packet, bytes| state_protocol(packet, bytes, 0),
    },
    Case {
        description: "an IPv6 extension header: fragment",
        applies: v6,
        change: |packet, bytes| state_protocol(packet, bytes, 44),
    },
    Case {
        description: "MPLS",
        applies: both,
        change: |packet, bytes| set(bytes, packet.shape.network() - 2, 0x8847),
    },
    Case {
        description: "a session of PPP over Ethernet",
        applies: both,
        change: |packet, bytes| set(bytes, packet.shape.network() - 2, 0x8864),
    },
    Case {
        description: "a second tag",
        applies: |shape| shape.tag != Tag::None,
        change: |packet, bytes| {
            let at = packet.shape.network() - 2;
            bytes.splice(at..at, [0x81, 0x00, 0, 9]);
        },
    },
];

#[test]
fn a_frame_that_does_not_show_what_its_checksum_field_holds_is_left_to_tcx() {
    for case in CASES {
        let mut tried = 0;
        for shape in Shape::all().filter(|&shape| (case.applies)(shape)) {
            // Short, so that UDP is kept or completed but for the change.
            let packet = shape.build(ADDRESSES, &noise(11));
            let mut bytes = packet.partial();
            assert_eq!(action(&bytes), packet.completed(), "{shape:?} before the change");
            (case.change)(&packet, &mut bytes);
            assert_eq!(
                action(&bytes),
                ChecksumAction::Pass,
                "{}, {shape:?}",
                case.description
            );
            tried += 1;
        }
        assert_ne!(tried, 0, "{}", case.description);
    }
}

#[test]
fn a_segment_as_short_as_its_header_is_completed() {
    for shape in Shape::all() {
        let packet = shape.build(ADDRESSES, &[]);
        assert_eq!(action(&packet.partial()), packet.completed(), "{shape:?}");
    }
}

#[test]
fn fragments_built_by_etherparse_are_left_to_tcx() {
    for (offset, more) in [(0, true), (185, true), (185, false)] {
        let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        header.more_fragments = more;
        header.dont_fragment = false;
        let builder = PacketBuilder::ethernet2(SOURCE, DESTINATION)
            .ip(IpHeaders::Ipv4(header, Ipv4Extensions::default()));
        let mut bytes = Vec::new();
        builder.udp(1, 2).write(&mut bytes, &noise(8)).unwrap();
        assert_eq!(
            action(&bytes),
            ChecksumAction::Pass,
            "offset {offset}, more {more}"
        );
    }
}
