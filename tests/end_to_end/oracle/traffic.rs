//! The frames that stations send, each with a number of its own.

use etherparse::PacketBuilder;
use lab::VnetHeader;

use crate::support::frames::{
    Flow, MULTICAST, Mac, Network, Tag, Transport, arp_reply, arp_request, link_local, mac, partial,
    segmented, tagged,
};

/// Before a frame's number.
const MARK: [u8; 4] = *b"\xa5or\x5a";
/// A station that is nowhere.
pub const NOBODY: u8 = 9;
/// The address of the bridge.
pub const BRIDGE: Mac = mac(0xfe);
const MTU: usize = 1500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP whose checksum is the network card's to complete.
    Partial,
    /// UDP that is complete.
    Complete,
    /// TCP of several segments.
    Segmented,
    /// UDP of several datagrams.
    Datagrams,
    /// UDP over IPv6, with a partial checksum.
    Ipv6,
    /// An echo request.
    Icmpv6,
    /// UDP without a checksum.
    Unchecked,
    /// As long as the MTU allows.
    Long,
    /// With a VLAN tag.
    Tagged,
    /// No IP.
    Plain,
    /// Padding behind the packet.
    Padded,
    ArpRequest,
    ArpReply,
    /// A neighbour solicitation.
    Solicitation,
}

/// What every station sends to every other, each time.
pub const ALWAYS: [Kind; 3] = [Kind::Partial, Kind::Complete, Kind::Segmented];
/// What takes turns.
pub const IN_TURN: [Kind; 10] = [
    Kind::Ipv6,
    Kind::Unchecked,
    Kind::Long,
    Kind::Tagged,
    Kind::Plain,
    Kind::Icmpv6,
    Kind::Padded,
    Kind::ArpReply,
    Kind::ArpRequest,
    Kind::Datagrams,
];

/// Destinations that are no station's, and sources that no station may have.
pub const SPECIAL: [(Option<Mac>, Mac); 8] = [
    (None, mac(NOBODY)),
    (None, MULTICAST),
    (None, link_local(0x0e)),
    (None, link_local(0x03)),
    (None, BRIDGE),
    (Some([0x53, 0x54, 0, 0, 0, 1]), mac(2)),
    (Some([0; 6]), mac(2)),
    // To a station at the sender's own port, or to oneself.
    (Some(mac(1)), mac(1)),
];

/// A frame of a kind and number, from a station's address to another's.
pub fn frame(kind: Kind, from: Mac, to: Mac, number: u32) -> (VnetHeader, Vec<u8>) {
    let flow = |network, transport| Flow::new(from[5], to[5], network, transport).from(from).to(to);
    let tcp = flow(Network::V4, Transport::Tcp);
    let udp = flow(Network::V4, Transport::Udp);
    let complete = |frame| (VnetHeader::none(), frame);
    match kind {
        Kind::Partial => partial(&tcp.frame(&payload(number, 40))),
        Kind::Complete => complete(udp.frame(&payload(number, 40))),
        Kind::Segmented => segmented(&tcp.frame(&payload(number, 5000)), 1400),
        Kind::Datagrams => segmented(&udp.frame(&payload(number, 3000)), 1200),
        Kind::Ipv6 => partial(&flow(Network::V6, Transport::Udp).frame(&payload(number, 40))),
        Kind::Icmpv6 => complete(icmpv6(from, to, number)),
        Kind::Unchecked => complete(udp.without_checksum(&payload(number, 40))),
        Kind::Long => {
            let headers = tcp.frame(&[]).len();
            partial(&tcp.frame(&payload(number, MTU + 14 - headers)))
        }
        Kind::Tagged => complete(tagged(&udp.frame(&payload(number, 40)), Tag::customer(5))),
        Kind::Plain => complete([&to[..], &from, &[0x88, 0xb5], &payload(number, 60)].concat()),
        Kind::Padded => complete([udp.frame(&payload(number, 40)), vec![0; 7]].concat()),
        Kind::ArpRequest => {
            let mut request = with_number(arp_request(from[5], to[5]), number);
            request[..6].copy_from_slice(&to);
            complete(request)
        }
        Kind::Solicitation => complete(solicitation(from, to, number)),
        Kind::ArpReply => complete(with_number(arp_reply(from[5], to[5]), number)),
    }
}

fn payload(number: u32, bytes: usize) -> Vec<u8> {
    let mut payload = [&MARK[..], &number.to_be_bytes()].concat();
    payload.extend((1..=251).cycle().take(bytes - payload.len()));
    payload
}

fn with_number(mut frame: Vec<u8>, number: u32) -> Vec<u8> {
    frame.extend(payload(number, 18));
    frame
}

/// A station's.
fn address(mac: Mac) -> [u8; 16] {
    let mut address = [0; 16];
    (address[0], address[15]) = (0xfd, mac[5]);
    address
}

/// For the neighbour alone, as when it is asked whether it is still there (RFC 4861, 7.3.3).
fn solicitation(from: Mac, to: Mac, number: u32) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from, to)
        .ipv6(address(from), address(to), 255)
        .icmpv6_raw(135, 0, [0; 4]);
    // Source link-layer address: type 1, one unit of eight bytes.
    let body = [&address(to)[..], &[1, 1], &from, &payload(number, 8)].concat();
    let mut frame = Vec::new();
    packet.write(&mut frame, &body).expect("a short packet");
    frame
}

fn icmpv6(from: Mac, to: Mac, number: u32) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from, to)
        .ipv6(address(from), address(to), 255)
        .icmpv6_echo_request(1, 1);
    let mut frame = Vec::new();
    packet
        .write(&mut frame, &payload(number, 24))
        .expect("a short packet");
    frame
}

/// The number of a frame, if it has one.
pub fn number(frame: &[u8]) -> Option<u32> {
    let place = frame.windows(MARK.len()).position(|window| window == MARK)?;
    let number = frame.get(place + MARK.len()..)?.first_chunk()?;
    Some(u32::from_be_bytes(*number))
}
