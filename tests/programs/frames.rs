//! Frames for the tables.

use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};
use tapbridge::common::mac::Mac;

use crate::packet::{
    ADDRESSES, DESTINATION, Ip, Packet, SOURCE, Shape, Tag, Transport, noise, with_checksum,
};

/// A frame as a guest sends it, and as it must leave by each hook.
#[derive(Clone, Debug)]
pub struct Frame {
    pub bytes: Vec<u8>,
    pub leaves_xdp: Vec<u8>,
    pub leaves_tcx: Vec<u8>,
}

impl Frame {
    /// The same between other stations.
    pub fn between(mut self, source: Mac, destination: Mac) -> Self {
        for bytes in [&mut self.bytes, &mut self.leaves_xdp, &mut self.leaves_tcx] {
            bytes[..6].copy_from_slice(&destination.0);
            bytes[6..12].copy_from_slice(&source.0);
        }
        self
    }
}

impl From<Vec<u8>> for Frame {
    /// A frame that no program changes.
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            leaves_xdp: bytes.clone(),
            leaves_tcx: bytes.clone(),
            bytes,
        }
    }
}

/// The headers of a frame where they don't matter.
pub const USUAL: Shape = Shape {
    tag: Tag::None,
    ip: Ip::V4,
    transport: Transport::Tcp,
};

/// Any frame from the station on slot 0 to the one on slot 1, its checksum complete.
pub fn usual() -> Frame {
    complete(USUAL, 100)
}

/// A packet with its checksum complete.
pub fn complete(shape: Shape, payload: usize) -> Frame {
    packet(shape, payload).bytes.into()
}

/// A packet whose checksum the guest has left to its NIC.
pub fn partial(shape: Shape, payload: usize) -> Frame {
    let packet = packet(shape, payload);
    Frame {
        bytes: packet.partial(),
        leaves_tcx: packet.partial(),
        leaves_xdp: packet.bytes,
    }
}

fn packet(shape: Shape, payload: usize) -> Packet {
    shape.build(ADDRESSES, &noise(payload))
}

/// A frame between other stations, its checksum partial.
pub fn between(source: Mac, destination: Mac) -> Frame {
    partial(USUAL, 100).between(source, destination)
}

/// A frame from the station on slot 0 to another than the one on slot 1.
pub fn to(destination: Mac) -> Frame {
    between(Mac(SOURCE), destination)
}

/// A frame from another station than the one on slot 0 to the one on slot 1.
pub fn from(source: Mac) -> Frame {
    between(source, Mac(DESTINATION))
}

/// A whole frame of this many bytes.
pub fn of_length(tag: Tag, length: usize) -> Frame {
    let shape = Shape { tag, ..USUAL };
    partial(shape, length - shape.transport() - 20)
}

/// "Who has 10.0.0.2?", asked of one station as Linux does to confirm what it knows.
pub fn arp() -> Frame {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &SOURCE,
        &[10, 0, 0, 1],
        &[0; 6],
        &[10, 0, 0, 2],
    )
    .expect("lengths that fit");
    let mut bytes = Vec::new();
    let builder = PacketBuilder::ethernet2(SOURCE, DESTINATION).arp(packet);
    builder.write(&mut bytes).expect("an ARP packet");
    bytes.into()
}

/// A frame that ends inside its tag, or soon after.
pub fn cut(tag: Tag, length: usize) -> Frame {
    let mut bytes = packet(Shape { tag, ..USUAL }, 0).bytes;
    bytes.truncate(length);
    bytes.into()
}

/// A datagram of VXLAN between ports.
fn vxlan(ip: Ip, source_port: u16) -> Packet {
    let shape = Shape {
        ip,
        transport: Transport::Udp,
        ..USUAL
    };
    let content = [&[8, 0, 0, 0, 0, 0, 42, 0], &packet(USUAL, 100).bytes[..]].concat();
    shape.build_between(ADDRESSES, [source_port, 4789], &content)
}

/// A tunnel with nothing left to be done.
pub fn complete_tunnel(ip: Ip) -> Frame {
    vxlan(ip, 50_001).bytes.into()
}

/// A tunnel with a partial checksum inside; the outer one is as if that were complete (`lco_csum`).
pub fn tunnel(ip: Ip) -> Frame {
    with_partial_inside(vxlan(ip, 50_001))
}

/// Such a tunnel whose outer checksum looks partial by chance.
pub fn tunnel_by_chance(ip: Ip) -> Frame {
    let outer = with_checksum(Packet::pseudo_header, |port| vxlan(ip, u16::from_be_bytes(port)));
    assert_eq!(outer.checksum(), outer.pseudo_header(), "the chance is made");
    with_partial_inside(outer)
}

fn with_partial_inside(mut outer: Packet) -> Frame {
    let inside = packet(USUAL, 100).partial();
    let start = outer.bytes.len() - inside.len();
    outer.bytes[start..].copy_from_slice(&inside);
    outer.bytes.into()
}

/// A frame whose checksum field holds this.
pub fn with_field(shape: Shape, payload: usize, field: u16) -> Frame {
    let mut bytes = packet(shape, payload).bytes;
    bytes[shape.field()..][..2].copy_from_slice(&field.to_be_bytes());
    bytes.into()
}

/// A TCP segment in a fragment, with what looks like a partial checksum.
pub fn fragment() -> Frame {
    let mut bytes = partial(USUAL, 100).bytes;
    bytes[20] |= 0x20;
    bytes.into()
}
