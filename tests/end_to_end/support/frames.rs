//! Frames between stations. Station n has the address `52:54:00:00:00:n`, `10.0.0.n` and `fd00::n`.

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, IpNumber, NetSlice, PacketBuilder,
    SingleVlanHeader, SlicedPacket, TransportSlice, VlanId, VlanPcp, checksum::Sum16BitWords,
};
use lab::VnetHeader;

pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];
/// The group of IPv4 multicast 224.0.0.251.
pub const MULTICAST: Mac = [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb];
/// Bytes of the headers before the payload of [`Flow::tcp`].
pub const TCP_HEADERS: usize = 54;

/// A station's address.
pub const fn mac(station: u8) -> Mac {
    [0x52, 0x54, 0, 0, 0, station]
}

/// The last of 01:80:C2:00:00:nn.
pub const fn link_local(last: u8) -> Mac {
    [0x01, 0x80, 0xc2, 0, 0, last]
}

/// An address as the command line has it.
pub fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// What a frame's headers say.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    pub from: Mac,
    pub to: Mac,
    pub network: Network,
    pub transport: Transport,
}

impl Flow {
    /// UDP over IPv4 from station to station.
    pub const fn udp(from: u8, to: u8) -> Self {
        Self::new(from, to, Network::V4, Transport::Udp)
    }

    /// TCP over IPv4 from station to station. Native XDP carries it whatever its checksum and length are.
    pub const fn tcp(from: u8, to: u8) -> Self {
        Self::new(from, to, Network::V4, Transport::Tcp)
    }

    pub const fn new(from: u8, to: u8, network: Network, transport: Transport) -> Self {
        Self {
            from: mac(from),
            to: mac(to),
            network,
            transport,
        }
    }

    /// The same to another address.
    pub const fn to(self, to: Mac) -> Self {
        Self { to, ..self }
    }

    /// The same from another address.
    pub const fn from(self, from: Mac) -> Self {
        Self { from, ..self }
    }

    /// The frame, with a complete checksum.
    pub fn frame(self, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(self.from, self.to);
        let (from, to) = (self.from[5], self.to[5]);
        let ip = match self.network {
            Network::V4 => ethernet.ipv4([10, 0, 0, from], [10, 0, 0, to], 64),
            Network::V6 => ethernet.ipv6(ipv6(from), ipv6(to), 64),
        };
        let mut frame = Vec::new();
        let written = match self.transport {
            Transport::Tcp => ip
                .tcp(1111, 2222, 7, 1024)
                .ack(3)
                .write_to_vec(&mut frame, payload),
            Transport::Udp => ip.udp(1111, 2222).write_to_vec(&mut frame, payload),
        };
        written.expect("a payload that fits");
        frame
    }

    /// The frame of a datagram over IPv4, with no checksum: native XDP leaves it to tcx, if its payload has 28 bytes or more.
    pub fn without_checksum(self, payload: &[u8]) -> Vec<u8> {
        assert_eq!((self.network, self.transport), (Network::V4, Transport::Udp));
        let mut frame = self.frame(payload);
        frame[40..42].fill(0);
        frame
    }

    /// The frame of this many bytes. Panics if its headers alone are longer.
    pub fn of_length(self, bytes: usize) -> Vec<u8> {
        let headers = self.frame(&[]).len();
        self.frame(&payload(bytes - headers))
    }
}

const fn ipv6(station: u8) -> [u8; 16] {
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, station]
}

/// A broadcast by which a station makes itself known.
pub fn hello(station: u8) -> Vec<u8> {
    Flow::udp(station, 0).to(BROADCAST).frame(b"hello")
}

/// A broadcast by which one station asks for another's address.
pub fn arp_request(from: u8, to: u8) -> Vec<u8> {
    arp(ArpOperation::REQUEST, BROADCAST, from, to)
}

/// What a station answers.
pub fn arp_reply(from: u8, to: u8) -> Vec<u8> {
    arp(ArpOperation::REPLY, mac(to), from, to)
}

fn arp(operation: ArpOperation, destination: Mac, from: u8, to: u8) -> Vec<u8> {
    let asked = if operation == ArpOperation::REQUEST {
        [0; 6]
    } else {
        mac(to)
    };
    let (sender, target) = ([10, 0, 0, from], [10, 0, 0, to]);
    let hardware = ArpHardwareId::ETHERNET;
    let packet = ArpPacket::new(
        hardware,
        EtherType::IPV4,
        operation,
        &mac(from),
        &sender,
        &asked,
        &target,
    );
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(mac(from), destination);
    let written = ethernet.arp(packet.expect("addresses")).write_to_vec(&mut frame);
    written.expect("a short packet");
    frame
}

/// Bytes that differ from their neighbours and are not zero.
pub fn payload(bytes: usize) -> Vec<u8> {
    (1..=251).cycle().take(bytes).collect()
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    protocol: EtherType,
    pub id: u16,
    pub priority: u8,
}

impl Tag {
    /// 802.1Q
    pub const fn customer(id: u16) -> Self {
        Self {
            protocol: EtherType::VLAN_TAGGED_FRAME,
            id,
            priority: 0,
        }
    }

    /// 802.1ad
    pub const fn service(id: u16) -> Self {
        Self {
            protocol: EtherType::PROVIDER_BRIDGING,
            ..Self::customer(id)
        }
    }

    /// The same with another priority.
    pub const fn priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }
}

/// The frame with a tag around what it has.
pub fn tagged(frame: &[u8], tag: Tag) -> Vec<u8> {
    let (ethernet, rest) = Ethernet2Header::from_slice(frame).expect("a frame");
    let inner = SingleVlanHeader {
        pcp: VlanPcp::try_new(tag.priority).expect("three bits"),
        drop_eligible_indicator: tag.priority != 0,
        vlan_id: VlanId::try_new(tag.id).expect("twelve bits"),
        ether_type: ethernet.ether_type,
    };
    let outer = Ethernet2Header {
        ether_type: tag.protocol,
        ..ethernet
    };
    [&outer.to_bytes()[..], &inner.to_bytes(), rest].concat()
}

/// The frame as a guest sends it that leaves the checksum to its network card: the field holds the folded sum of the
/// pseudo-header, and the header says where it is. For frames without trailing bytes.
pub fn partial(frame: &[u8]) -> (VnetHeader, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a frame");
    let (protocol, segment, offset) = match packet.transport.as_ref().expect("a transport header") {
        TransportSlice::Tcp(tcp) => (IpNumber::TCP, tcp.slice(), 16),
        TransportSlice::Udp(udp) => (IpNumber::UDP, udp.slice(), 6),
        other => panic!("no partial checksum for {other:?}"),
    };
    let length = u16::try_from(segment.len()).expect("IP's length");
    let sum = Sum16BitWords::new()
        .add_2bytes([0, protocol.0])
        .add_2bytes(length.to_be_bytes());
    let sum = match packet.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(ip) => sum
            .add_slice(&ip.header().source())
            .add_slice(&ip.header().destination()),
        NetSlice::Ipv6(ip) => sum
            .add_slice(&ip.header().source())
            .add_slice(&ip.header().destination()),
        NetSlice::Arp(_) => panic!("no transport over ARP"),
    };
    let start = frame.len() - segment.len();
    let mut partial = frame.to_vec();
    partial[start + offset..][..2].copy_from_slice(&(!sum.ones_complement()).to_ne_bytes());
    (
        VnetHeader::partial_checksum(narrow(start), narrow(offset)),
        partial,
    )
}

/// The same of a frame that the card is to cut into segments, each with `size` bytes of payload.
pub fn segmented(frame: &[u8], size: u16) -> (VnetHeader, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a frame");
    let (header, partial) = partial(frame);
    let start = header.csum_start;
    let headers = |payload: &[u8]| narrow(frame.len() - payload.len());
    let header = match (packet.transport, packet.net) {
        (Some(TransportSlice::Tcp(tcp)), Some(NetSlice::Ipv4(_))) => {
            VnetHeader::gso_tcpv4(start, headers(tcp.payload()), size)
        }
        (Some(TransportSlice::Tcp(tcp)), _) => VnetHeader::gso_tcpv6(start, headers(tcp.payload()), size),
        (Some(TransportSlice::Udp(udp)), _) => VnetHeader::gso_udp_l4(start, headers(udp.payload()), size),
        (other, _) => panic!("no segments of {other:?}"),
    };
    (header, partial)
}

fn narrow(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("headers are short")
}
