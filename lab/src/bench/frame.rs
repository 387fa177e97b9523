//! The frames that are sent.

use std::ops::Range;

use etherparse::{PacketBuilder, checksum::Sum16BitWords};
use lab::VnetHeader;

pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];
/// The address of a testbed's bridge.
pub const HOST: Mac = [0x06, 0, 0, 0, 0, 0xfe];
/// Nobody has it.
pub const UNKNOWN: Mac = [0x06, 0, 0, 0, 0, 0xff];
/// Without the frame check sequence, which no tap has: "64 bytes" on a wire.
pub const SHORTEST: usize = 60;
/// Where a frame has the address of its sender.
pub const SOURCE: Range<usize> = 6..12;

/// The payload of a datagram as QUIC sends it at least (RFC 9000, 14.1).
pub const LEAST_QUIC: usize = 1200;
/// The payload of the datagrams that QUIC sends in bulk, where it does not find out what the path takes.
pub const BULK_QUIC: usize = 1350;
/// The one that ports have where VLANs are filtered.
pub const VLAN: u16 = 10;
/// Of a frame's two addresses, behind which a tag is.
const ADDRESSES: usize = 12;
const VXLAN_PORT: u16 = 4789;
/// The header of network 42.
const VXLAN: [u8; 8] = [8, 0, 0, 0, 0, 0, 42, 0];
/// Before what a VXLAN datagram carries: Ethernet, IPv4, UDP, VXLAN.
const VXLAN_HEADERS: usize = 50;
const TCP: u8 = 6;
const CHECKSUM_OFFSET: u16 = 16;
/// Segments of a long frame: as many full ones as 64 KiB of IP hold.
const SEGMENTS: usize = 44;
/// Of TCP, as Linux sends it in every segment of a connection: two bytes of nothing, then a timestamp.
const TIMESTAMP: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 3];

/// The stations inside a tunnel.
const INNER_FROM: Mac = [6, 0, 0, 0, 0, 1];
const INNER_TO: Mac = [6, 0, 0, 0, 0, 2];

/// The address number `number` of those behind a port.
pub fn station(port: usize, number: usize) -> Mac {
    let [a, b] = u16::try_from(port).expect("at most 1,000 ports").to_be_bytes();
    let [c, d] = u16::try_from(number)
        .expect("at most 32,768 addresses a port")
        .to_be_bytes();
    [0x02, 0, a, b, c, d]
}

/// The port behind which a station is.
pub fn port_of(station: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([station[2], station[3]]))
}

/// The address as `ip` takes it.
pub fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What a case sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// TCP over IPv4 in a frame of this length, its checksum complete.
    Complete(usize),
    /// TCP over IPv4 in a frame of this length, its checksum left to the device.
    Partial(usize),
    /// The shortest of the first kind, with a tag of [`VLAN`] more.
    Tagged,
    /// What the receiver of long segments sends back: TCP over IPv4 without payload, its checksum left to the device.
    Ack,
    /// UDP over IPv4 with so many bytes of payload, its checksum complete.
    Datagram(usize),
    /// A frame of 1514 bytes of VXLAN over IPv4: the outer checksum complete, that of TCP inside left to the device.
    Tunnel,
    /// A long segment over IPv4 or IPv6, still to be cut into frames of 1514 bytes.
    Tso4,
    Tso6,
}

/// A frame as a VMM writes it.
#[derive(Debug, Clone)]
pub struct Frame {
    pub header: [u8; VnetHeader::LEN],
    pub bytes: Vec<u8>,
}

impl Frame {
    pub fn new(kind: FrameKind, from: Mac, to: Mac) -> Self {
        // The packet whose checksum is left to the device lies behind these.
        let around = if kind == FrameKind::Tunnel {
            VXLAN_HEADERS
        } else {
            0
        };
        let ipv6 = kind == FrameKind::Tso6;
        let headers = if ipv6 { 74 } else { 54 };
        let mss = 1514 - headers;
        let (payload, options) = match kind {
            FrameKind::Complete(length) | FrameKind::Partial(length) => (length - headers, &[][..]),
            FrameKind::Tagged => (SHORTEST - headers, &[][..]),
            FrameKind::Ack => (0, &TIMESTAMP[..]),
            FrameKind::Datagram(payload) => (payload, &[][..]),
            FrameKind::Tunnel => (1514 - VXLAN_HEADERS - headers, &[][..]),
            FrameKind::Tso4 | FrameKind::Tso6 => (SEGMENTS * mss, &[][..]),
        };
        let mut bytes = match kind {
            FrameKind::Datagram(_) => udp(from, to, 443, &self::payload(payload)),
            FrameKind::Tunnel => {
                let inside = tcp(INNER_FROM, INNER_TO, ipv6, options, payload);
                udp(from, to, VXLAN_PORT, &[&VXLAN[..], &inside].concat())
            }
            _ => tcp(from, to, ipv6, options, payload),
        };
        if kind == FrameKind::Tagged {
            let [high, low] = VLAN.to_be_bytes();
            bytes.splice(ADDRESSES..ADDRESSES, [0x81, 0, high, low]);
        }
        let narrow = |bytes: usize| u16::try_from(bytes).expect("headers and segments are short");
        let (start, end, mss) = (narrow(around + headers - 20), narrow(headers), narrow(mss));
        let header = match kind {
            FrameKind::Complete(_) | FrameKind::Tagged | FrameKind::Datagram(_) => VnetHeader::none(),
            FrameKind::Partial(_) | FrameKind::Ack | FrameKind::Tunnel => {
                VnetHeader::partial_checksum(start, CHECKSUM_OFFSET)
            }
            FrameKind::Tso4 => VnetHeader::gso_tcpv4(start, end, mss),
            FrameKind::Tso6 => VnetHeader::gso_tcpv6(start, end, mss),
        };
        if header.needs_checksum() {
            // The tunnel's own stays as if the device had completed this one: so does Linux reckon it (`lco_csum`).
            leave_checksum(&mut bytes[around..], ipv6);
        }
        Self {
            header: header.to_bytes(),
            bytes,
        }
    }

    /// Changes whom it is from and to.
    pub fn address(&mut self, from: Mac, to: Mac) {
        self.bytes[..6].copy_from_slice(&to);
        self.bytes[SOURCE].copy_from_slice(&from);
    }
}

fn tcp(from: Mac, to: Mac, ipv6: bool, options: &[u8], payload: usize) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(from, to);
    let ip = if ipv6 {
        ethernet.ipv6(v6(1), v6(2), 64)
    } else {
        ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    };
    let mut bytes = Vec::new();
    ip.tcp(1111, 2222, 7, 1024)
        .ack(3)
        .options_raw(options)
        .expect("at most 40 bytes")
        .write_to_vec(&mut bytes, &self::payload(payload))
        .expect("a payload that IP holds");
    bytes
}

fn udp(from: Mac, to: Mac, port: u16, payload: &[u8]) -> Vec<u8> {
    let ip = PacketBuilder::ethernet2(from, to).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
    let mut bytes = Vec::new();
    ip.udp(1111, port)
        .write_to_vec(&mut bytes, payload)
        .expect("a payload that IP holds");
    bytes
}

fn payload(bytes: usize) -> Vec<u8> {
    (1..=251).cycle().take(bytes).collect()
}

fn v6(station: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, station]
}

/// Puts the pseudo-header's folded sum where the checksum belongs, as a guest does that leaves it to its card.
fn leave_checksum(bytes: &mut [u8], ipv6: bool) {
    let (start, addresses) = if ipv6 { (54, 22..54) } else { (34, 26..34) };
    let length = u16::try_from(bytes.len() - start).expect("IP's length");
    let sum = Sum16BitWords::new()
        .add_2bytes([0, TCP])
        .add_2bytes(length.to_be_bytes())
        .add_slice(&bytes[addresses]);
    let at = start + usize::from(CHECKSUM_OFFSET);
    bytes[at..at + 2].copy_from_slice(&(!sum.ones_complement()).to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Mac = [2, 0, 0, 0, 0, 1];
    const TO: Mac = [2, 0, 0, 1, 0, 1];

    #[test]
    fn frames_have_the_length_they_are_called_by() {
        for length in [SHORTEST, 1514, 9014] {
            assert_eq!(
                Frame::new(FrameKind::Complete(length), FROM, TO).bytes.len(),
                length
            );
            assert_eq!(
                Frame::new(FrameKind::Partial(length), FROM, TO).bytes.len(),
                length
            );
        }
        assert_eq!(Frame::new(FrameKind::Ack, FROM, TO).bytes.len(), 66);
        assert_eq!(Frame::new(FrameKind::Tagged, FROM, TO).bytes.len(), SHORTEST + 4);
        let datagram = |payload| Frame::new(FrameKind::Datagram(payload), FROM, TO).bytes.len();
        assert_eq!([LEAST_QUIC, BULK_QUIC].map(datagram), [1242, 1392]);
        assert_eq!(Frame::new(FrameKind::Tunnel, FROM, TO).bytes.len(), 1514);
        assert_eq!(Frame::new(FrameKind::Tso4, FROM, TO).bytes.len(), 54 + 44 * 1460);
        assert_eq!(Frame::new(FrameKind::Tso6, FROM, TO).bytes.len(), 74 + 44 * 1440);
    }

    /// Who completes a partial checksum sums the segment, the field included, and stores the complement.
    #[test]
    fn a_partial_checksum_completed_is_the_complete_one() {
        let complete = Frame::new(FrameKind::Complete(1514), FROM, TO).bytes;
        let partial = Frame::new(FrameKind::Partial(1514), FROM, TO).bytes;
        assert_ne!(complete[50..52], partial[50..52]);
        let completed = Sum16BitWords::new().add_slice(&partial[34..]).ones_complement();
        assert_eq!(complete[50..52], completed.to_ne_bytes());
    }

    #[test]
    fn a_tunnels_outer_checksum_is_right_when_the_inner_one_is_complete() {
        let outer_sum = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len() - 34).unwrap().to_be_bytes();
            Sum16BitWords::new()
                .add_2bytes([0, 17])
                .add_2bytes(length)
                .add_slice(&bytes[26..])
                .ones_complement()
        };
        let mut bytes = Frame::new(FrameKind::Tunnel, FROM, TO).bytes;
        assert_ne!(outer_sum(&bytes), 0);
        let inner = VXLAN_HEADERS + 34;
        let completed = Sum16BitWords::new().add_slice(&bytes[inner..]).ones_complement();
        bytes[inner + 16..inner + 18].copy_from_slice(&completed.to_ne_bytes());
        assert_eq!(outer_sum(&bytes), 0);
    }

    #[test]
    fn a_tagged_frame_is_the_untagged_one_with_a_tag() {
        let [tagged, mut bare] =
            [FrameKind::Tagged, FrameKind::Complete(SHORTEST)].map(|kind| Frame::new(kind, FROM, TO));
        bare.bytes.splice(12..12, [0x81, 0x00, 0, 10]);
        assert_eq!(tagged.bytes, bare.bytes);
    }

    #[test]
    fn no_two_ports_share_an_address() {
        assert_ne!(station(1, 0), station(0, 1));
        assert_eq!(text(station(255, 32_767)), "02:00:00:ff:7f:ff");
    }

    #[test]
    fn an_address_replaces_the_one_before() {
        let mut frame = Frame::new(FrameKind::Complete(SHORTEST), TO, FROM);
        frame.address(FROM, TO);
        assert_eq!(
            frame.bytes,
            Frame::new(FrameKind::Complete(SHORTEST), FROM, TO).bytes
        );
    }
}
