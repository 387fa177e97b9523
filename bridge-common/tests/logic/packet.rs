//! TCP and UDP packets built by etherparse, with what it says of their checksums.

use etherparse::{PacketBuilder, VlanId, checksum::Sum16BitWords};

/// The station that packets come from.
pub const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
/// The station that packets go to.
pub const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
/// The VLAN identifier in tags.
pub const VLAN: u16 = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    None,
    Customer,
    Service,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// The headers whose checksum XDP completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub tag: Tag,
    pub ip: Ip,
    pub transport: Transport,
}

impl Shape {
    pub fn all() -> impl Iterator<Item = Self> {
        let tags = [Tag::None, Tag::Customer, Tag::Service];
        tags.into_iter().flat_map(|tag| {
            [Ip::V4, Ip::V6].into_iter().flat_map(move |ip| {
                [Transport::Tcp, Transport::Udp]
                    .into_iter()
                    .map(move |transport| Self { tag, ip, transport })
            })
        })
    }

    /// Where the IP header begins.
    pub fn network(self) -> usize {
        if self.tag == Tag::None { 14 } else { 18 }
    }

    /// Where the TCP or UDP header begins.
    pub fn transport(self) -> usize {
        self.network() + if self.ip == Ip::V4 { 20 } else { 40 }
    }

    /// Where the checksum lies.
    pub fn field(self) -> usize {
        self.transport()
            + match self.transport {
                Transport::Tcp => 16,
                Transport::Udp => 6,
            }
    }

    fn protocol(self) -> u8 {
        match self.transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        }
    }

    /// A packet with its checksum complete. `addresses` are source and destination; IPv4 takes the first 4 bytes.
    pub fn build(self, addresses: [[u8; 16]; 2], payload: &[u8]) -> Packet {
        let source = match self.transport {
            Transport::Tcp => 80,
            Transport::Udp => 53,
        };
        self.build_between(addresses, [source, 40_000], payload)
    }

    /// The same between ports, source and destination.
    pub fn build_between(self, addresses: [[u8; 16]; 2], ports: [u16; 2], payload: &[u8]) -> Packet {
        let ethernet = PacketBuilder::ethernet2(SOURCE, DESTINATION);
        let [source, destination] = addresses;
        let [source4, destination4] = addresses.map(|address| address[..4].try_into().expect("4 bytes"));
        let ip = match (self.tag, self.ip) {
            (Tag::None, Ip::V4) => ethernet.ipv4(source4, destination4, 64),
            (Tag::None, Ip::V6) => ethernet.ipv6(source, destination, 64),
            (_, Ip::V4) => ethernet.single_vlan(vlan()).ipv4(source4, destination4, 64),
            (_, Ip::V6) => ethernet.single_vlan(vlan()).ipv6(source, destination, 64),
        };
        let mut bytes = Vec::new();
        match self.transport {
            Transport::Tcp => ip.tcp(ports[0], ports[1], 1, 512).write(&mut bytes, payload),
            Transport::Udp => ip.udp(ports[0], ports[1]).write(&mut bytes, payload),
        }
        .expect("a packet that etherparse can build");
        if self.tag == Tag::Service {
            bytes[12..14].copy_from_slice(&0x88a8_u16.to_be_bytes());
        }
        Packet { shape: self, bytes }
    }
}

fn vlan() -> VlanId {
    VlanId::try_new(VLAN).expect("a VLAN identifier")
}

/// A frame with its checksum complete.
#[derive(Clone, Debug)]
pub struct Packet {
    pub shape: Shape,
    pub bytes: Vec<u8>,
}

impl Packet {
    /// What a guest stores that leaves the checksum to its NIC: the folded sum of the pseudo-header.
    pub fn pseudo_header(&self) -> [u8; 2] {
        let network = self.shape.network();
        let addresses = match self.shape.ip {
            Ip::V4 => &self.bytes[network + 12..network + 20],
            Ip::V6 => &self.bytes[network + 8..network + 40],
        };
        let length = u16::try_from(self.bytes.len() - self.shape.transport()).expect("a short packet");
        let complement = Sum16BitWords::new()
            .add_slice(addresses)
            .add_2bytes([0, self.shape.protocol()])
            .add_2bytes(length.to_be_bytes())
            .ones_complement();
        (!complement).to_ne_bytes()
    }

    /// The frame as such a guest sends it.
    pub fn partial(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let field = self.shape.field();
        bytes[field..field + 2].copy_from_slice(&self.pseudo_header());
        bytes
    }

    /// The checksum that the packet carries.
    pub fn checksum(&self) -> [u8; 2] {
        let field = self.shape.field();
        [self.bytes[field], self.bytes[field + 1]]
    }
}

/// A packet whose complete checksum has a given value: `build` takes two bytes, anywhere in it, that make it so.
pub fn with_checksum(wanted: impl Fn(&Packet) -> [u8; 2], build: impl Fn([u8; 2]) -> Packet) -> Packet {
    let blank = build([0, 0]);
    // With the bytes blank the checksum is !sum; it must become !(sum + bytes).
    let (word, carry) =
        (!u16::from_be_bytes(wanted(&blank))).overflowing_add(u16::from_be_bytes(blank.checksum()));
    build((word + u16::from(carry)).to_be_bytes())
}

/// Two addresses without a meaning.
pub const ADDRESSES: [[u8; 16]; 2] = [
    [
        0x20, 0x01, 0x0d, 0xb8, 0xff, 0xfe, 0x90, 0x31, 0x77, 0, 0, 0, 0, 0, 0xab, 0xcd,
    ],
    [
        0xfd, 0x00, 0xde, 0xad, 0xbe, 0xef, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a,
    ],
];

/// Bytes that differ from one length to the next, and are the same in every run.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    bytes.take(length).collect()
}
