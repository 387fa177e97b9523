//! Datagrams that carry packets: what is inside must not leave with a partial checksum, and needs no other way than
//! the datagram where it has none.

use bridge_common::checksum::ChecksumAction;
use proptest::prelude::*;

use crate::{
    checksum_action::action,
    packet::{ADDRESSES, Packet, Shape, Tag, Transport, noise, with_checksum},
};

/// L2TP, GTP-U, AMT, Teredo, LISP, GRE, VXLAN, VXLAN-GPE, GUE, Geneve, MPLS, and VXLAN before it had a port assigned.
const PORTS: [u16; 12] = [
    1701, 2152, 2268, 3544, 4341, 4754, 4789, 4790, 6080, 6081, 6635, 8472,
];
/// Where no tunnel is known to be.
const UNKNOWN_PORT: u16 = 443;
const UDP_HEADER: usize = 8;

/// A datagram with a packet inside.
#[derive(Clone, Debug)]
struct Tunnel {
    outer: Shape,
    addresses: [[u8; 16]; 2],
    /// The one that says what kind of tunnel it is.
    port: u16,
    /// Whether that is the source.
    reverse: bool,
    /// Of the tunnel itself.
    header: usize,
    inner: Shape,
    /// Whether the packet inside comes with its Ethernet header.
    ethernet: bool,
    payload: Vec<u8>,
}

/// What a tunnel's outer checksum is.
#[derive(Clone, Copy, Debug)]
enum Outer {
    /// Whatever it comes to.
    Any,
    /// What would be there if it were partial.
    LooksPartial,
}

impl Tunnel {
    fn inner(&self) -> Packet {
        self.inner.build(ADDRESSES, &self.payload)
    }

    /// Where the packet inside begins in its own bytes.
    fn skipped(&self) -> usize {
        if self.ethernet { 0 } else { self.inner.network() }
    }

    /// Both checksums complete.
    fn complete(&self, outer: Outer) -> Packet {
        let content = [&noise(self.header)[..], &self.inner().bytes[self.skipped()..]].concat();
        // The port at the other end is chosen by a hash: any is as likely.
        let between = |other: [u8; 2]| {
            let other = u16::from_be_bytes(other);
            let ports = if self.reverse {
                [self.port, other]
            } else {
                [other, self.port]
            };
            self.outer.build_between(self.addresses, ports, &content)
        };
        match outer {
            Outer::Any => between(50_001_u16.to_be_bytes()),
            Outer::LooksPartial => with_checksum(Packet::pseudo_header, between),
        }
    }

    /// As Linux sends it that leaves the inner checksum to its NIC: the outer one is as if that had done its work
    /// (`lco_csum`).
    fn partial_inside(&self, outer: Outer) -> Packet {
        let mut packet = self.complete(outer);
        let start = self.outer.transport() + UDP_HEADER + self.header;
        let field = start + self.inner.field() - self.skipped();
        packet.bytes[field..field + 2].copy_from_slice(&self.inner().pseudo_header());
        packet
    }

    /// Whether the checksum inside is another when it is complete.
    fn differs_inside(&self) -> bool {
        self.inner().checksum() != self.inner().pseudo_header()
    }
}

fn shapes(condition: fn(&Shape) -> bool) -> impl Strategy<Value = Shape> {
    prop::sample::select(Shape::all().filter(condition).collect::<Vec<_>>())
}

fn tunnels(ports: impl Strategy<Value = u16>) -> impl Strategy<Value = Tunnel> {
    let inside = (
        shapes(|_| true),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..1400),
    );
    let outer = shapes(|shape| shape.transport == Transport::Udp);
    (
        outer,
        any::<[[u8; 16]; 2]>(),
        ports,
        any::<bool>(),
        0_usize..80,
        inside,
    )
        .prop_map(
            |(outer, addresses, port, reverse, header, (inner, ethernet, payload))| Tunnel {
                outer,
                addresses,
                port,
                reverse,
                header,
                inner,
                ethernet,
                payload,
            },
        )
}

fn known_ports() -> impl Strategy<Value = u16> {
    prop::sample::select(PORTS.to_vec())
}

proptest! {
    #[test]
    fn a_partial_checksum_inside_a_tunnel_never_passes_whatever_the_port(tunnel in tunnels(any::<u16>())) {
        let packet = tunnel.partial_inside(Outer::Any);
        prop_assume!(tunnel.differs_inside() && packet.checksum() != packet.pseudo_header());
        prop_assert_eq!(action(&packet.bytes), ChecksumAction::Pass);
    }

    #[test]
    fn nor_on_a_known_port_where_the_outer_checksum_looks_partial_by_chance(tunnel in tunnels(known_ports())) {
        let packet = tunnel.partial_inside(Outer::LooksPartial);
        prop_assert_eq!(packet.checksum(), packet.pseudo_header(), "the chance is made");
        prop_assume!(tunnel.differs_inside());
        prop_assert_eq!(action(&packet.bytes), ChecksumAction::Pass);
    }

    #[test]
    fn a_tunnel_whose_checksums_are_complete_stays_as_it_is(
        tunnel in tunnels(prop_oneof![known_ports(), any::<u16>()]),
    ) {
        let packet = tunnel.complete(Outer::Any);
        prop_assume!(packet.checksum() != packet.pseudo_header());
        prop_assert_eq!(action(&packet.bytes), ChecksumAction::Keep);
    }

    #[test]
    fn so_does_one_on_an_unknown_port_whose_outer_checksum_looks_partial_by_chance(
        tunnel in tunnels(Just(UNKNOWN_PORT)),
    ) {
        let packet = tunnel.complete(Outer::LooksPartial);
        let [source, destination] = ports(&packet);
        prop_assume!(!PORTS.contains(&source) && !PORTS.contains(&destination));
        prop_assert_eq!(action(&packet.bytes), ChecksumAction::Keep);
    }

    #[test]
    fn a_tunnel_without_an_outer_checksum_is_left_to_tcx(tunnel in tunnels(any::<u16>())) {
        for mut packet in [tunnel.complete(Outer::Any), tunnel.partial_inside(Outer::Any)] {
            let field = packet.shape.field();
            packet.bytes[field..field + 2].fill(0);
            prop_assert_eq!(action(&packet.bytes), ChecksumAction::Pass);
        }
    }

    /// The outer checksum alone is partial where nothing inside is left to be done.
    #[test]
    fn a_partial_outer_checksum_is_completed_but_on_a_tunnels_port(tunnel in tunnels(any::<u16>())) {
        let packet = tunnel.complete(Outer::Any);
        prop_assume!(packet.checksum() != packet.pseudo_header());
        let expected = if PORTS.contains(&tunnel.port) { ChecksumAction::Pass } else { packet.completed() };
        prop_assert_eq!(action(&packet.partial()), expected);
    }
}

fn ports(packet: &Packet) -> [u16; 2] {
    let start = packet.shape.transport();
    [start, start + 2].map(|at| u16::from_be_bytes([packet.bytes[at], packet.bytes[at + 1]]))
}

fn usual(port: u16, reverse: bool) -> Tunnel {
    Tunnel {
        outer: shape(Transport::Udp),
        addresses: ADDRESSES,
        port,
        reverse,
        header: 8,
        inner: shape(Transport::Tcp),
        ethernet: true,
        payload: noise(100),
    }
}

fn shape(transport: Transport) -> Shape {
    let mut shapes = Shape::all();
    shapes
        .find(|shape| shape.tag == Tag::None && shape.transport == transport)
        .expect("an untagged shape")
}

#[test]
fn every_port_of_a_tunnel_is_known_as_source_and_as_destination() {
    for port in PORTS {
        for reverse in [false, true] {
            let partial = usual(port, reverse).complete(Outer::Any).partial();
            assert_eq!(
                action(&partial),
                ChecksumAction::Pass,
                "port {port}, reverse {reverse}"
            );
        }
    }
}

/// What remains, in one flow and length of 65,535: nothing in the frame says that it is a tunnel.
#[test]
fn a_tunnel_on_an_unknown_port_whose_outer_checksum_looks_partial_by_chance_is_taken_for_a_datagram() {
    let packet = usual(UNKNOWN_PORT, false).partial_inside(Outer::LooksPartial);
    assert!(matches!(action(&packet.bytes), ChecksumAction::Complete { .. }));
}

#[test]
fn a_datagram_too_short_for_a_packet_inside_is_completed_on_a_tunnels_port() {
    for shape in Shape::all().filter(|shape| shape.transport == Transport::Udp) {
        for (length, completed) in [(0, true), (27, true), (28, false)] {
            let packet = shape.build_between(ADDRESSES, [50_001, 4789], &noise(length));
            let expected = if completed {
                packet.completed()
            } else {
                ChecksumAction::Pass
            };
            assert_eq!(
                action(&packet.partial()),
                expected,
                "{shape:?}, payload of {length}"
            );
        }
    }
}
