//! The frames of stations: UDP over IPv4 with a complete checksum, whose payload begins with a [`Mark`].

use std::net::Ipv4Addr;

use etherparse::PacketBuilder;

use super::task::Flow;

pub type Mac = [u8; 6];

/// Where headers and their fields begin.
const ETHERTYPE: usize = 12;
const PROTOCOL: usize = 23;
const ADDRESSES: usize = 26;
const PORTS: usize = 34;
const TO_PORT: usize = 36;
const CHECKSUM: usize = 40;
/// Bytes before the payload.
pub const HEADERS: usize = 42;
const MARKED: usize = HEADERS + Mark::BYTES;

const IPV4: [u8; 2] = [8, 0];
const UDP: u8 = 17;

/// The first bytes of a mark.
const MAGIC: [u8; 2] = *b"tb";

/// What a frame is for, by the port that it is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be counted.
    Discard,
    /// To be sent back.
    Request,
    /// It was sent back.
    Answer,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Discard, Self::Request, Self::Answer];

    /// Discard's and echo's, and one that is nobody's.
    const fn port(self) -> u16 {
        match self {
            Self::Discard => 9,
            Self::Request => 7,
            Self::Answer => 40_007,
        }
    }
}

/// What tells a frame from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The task's.
    pub number: u16,
    pub sequence: u32,
    /// Nanoseconds of the sender's clock.
    pub time: u64,
}

impl Mark {
    const BYTES: usize = 16;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2..4].copy_from_slice(&self.number.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.time.to_be_bytes());
        bytes
    }

    /// As [`Self::of`], but none of a frame for another station, which comes where the bridge does not know that one.
    pub fn to(frame: &[u8], mac: Mac) -> Option<(Self, Purpose)> {
        Self::of(frame).filter(|_| frame.starts_with(&mac))
    }

    /// Of a station's frame, with what that is for; none of another frame.
    fn of(frame: &[u8]) -> Option<(Self, Purpose)> {
        let marked = frame.first_chunk::<MARKED>()?;
        if marked[ETHERTYPE..][..2] != IPV4 || marked[PROTOCOL] != UDP {
            return None;
        }
        let port = u16::from_be_bytes([marked[TO_PORT], marked[TO_PORT + 1]]);
        let purpose = Purpose::ALL.into_iter().find(|purpose| purpose.port() == port)?;
        let mark = marked.last_chunk::<{ Self::BYTES }>()?;
        let (magic, rest) = mark.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (time, _) = rest.split_first_chunk()?;
        let own = Self {
            number: u16::from_be_bytes(*number),
            sequence: u32::from_be_bytes(*sequence),
            time: u64::from_be_bytes(*time),
        };
        (*magic == MAGIC).then_some((own, purpose))
    }
}

/// A frame that is sent with one mark after the other.
#[derive(Debug, Clone)]
pub struct Template {
    bytes: Vec<u8>,
    /// Of all that the UDP checksum is of, but the mark.
    sum: u32,
}

impl Template {
    /// Of this length, 60 bytes at least.
    pub fn new(mac: Mac, flow: Flow, purpose: Purpose, length: usize) -> Self {
        let ports = [Purpose::Answer, purpose].map(Purpose::port);
        let packet = PacketBuilder::ethernet2(mac, flow.to_mac)
            .ipv4(flow.from.octets(), flow.to.octets(), 64)
            .udp(ports[0], ports[1]);
        let mut bytes = Vec::new();
        let payload = vec![0; length.max(MARKED + 2) - HEADERS];
        packet
            .write(&mut bytes, &payload)
            .expect("memory takes a frame of a length that UDP has");
        // What is complete sums up to all ones; without the checksum, it is the complement of that.
        let checksum = u16::from_be_bytes([bytes[CHECKSUM], bytes[CHECKSUM + 1]]);
        Self {
            bytes,
            sum: u32::from(!checksum),
        }
    }

    /// The frame with a mark.
    pub fn marked(&mut self, mark: Mark) -> &[u8] {
        let mark = mark.to_bytes();
        let words = mark
            .chunks_exact(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum = self.sum + words.sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        // No checksum would be zero.
        let checksum = match !u16::try_from(folded).expect("folded") {
            0 => 0xffff,
            checksum => checksum,
        };
        self.bytes[CHECKSUM..HEADERS].copy_from_slice(&checksum.to_be_bytes());
        self.bytes[HEADERS..MARKED].copy_from_slice(&mark);
        &self.bytes
    }
}

/// Makes a request its answer. No checksum changes: what was the one's is the other's.
pub fn answer(request: &mut [u8], mac: Mac) {
    request.copy_within(6..12, 0);
    request[6..12].copy_from_slice(&mac);
    for (field, width) in [(ADDRESSES, 4), (PORTS, 2)] {
        let (first, second) = request[field..field + 2 * width].split_at_mut(width);
        first.swap_with_slice(second);
    }
}

/// A frame to oneself: the bridge learns where the station is, and sends it nowhere.
pub fn hello(mac: Mac) -> Vec<u8> {
    let flow = Flow {
        from: Ipv4Addr::UNSPECIFIED,
        to: Ipv4Addr::UNSPECIFIED,
        to_mac: mac,
    };
    Template::new(mac, flow, Purpose::Answer, 60).bytes
}

/// The answer to a question by ARP for an address that is this station's.
pub fn arp_answer(frame: &[u8], mac: Mac, own: impl FnOnce(Ipv4Addr) -> bool) -> Option<Vec<u8>> {
    const ARP: usize = 14;
    /// ARP; Ethernet, IPv4, lengths of their addresses, request.
    const QUESTION: [u8; 10] = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    let question = frame.get(..42)?;
    let asked: [u8; 4] = question[38..].try_into().ok()?;
    if question[ETHERTYPE..][..QUESTION.len()] != QUESTION || !own(asked.into()) {
        return None;
    }
    let mut answer = vec![0; 60];
    let (peer, peer_ip) = (&question[22..28], &question[28..32]);
    answer[..6].copy_from_slice(peer);
    answer[6..12].copy_from_slice(&mac);
    answer[ETHERTYPE..][..QUESTION.len()].copy_from_slice(&QUESTION);
    answer[ARP + 7] = 2;
    answer[22..28].copy_from_slice(&mac);
    answer[28..32].copy_from_slice(&asked);
    answer[32..38].copy_from_slice(peer);
    answer[38..42].copy_from_slice(peer_ip);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    const MINE: Mac = [2, 0, 0, 0, 0, 1];
    const FLOW: Flow = Flow {
        from: Ipv4Addr::new(198, 18, 0, 1),
        to: Ipv4Addr::new(198, 18, 0, 2),
        to_mac: [2, 0, 0, 0, 0, 2],
    };

    fn assert_checksums(frame: &[u8]) {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else {
            panic!("no IPv4")
        };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!("no UDP")
        };
        let expected = udp
            .to_header()
            .calc_checksum_ipv4(&header, udp.payload())
            .unwrap();
        assert_eq!(udp.checksum(), expected);
    }

    #[test]
    fn a_mark_is_found_again_and_the_checksum_is_right() {
        for length in [60, 61, 508, 1514] {
            let mut template = Template::new(MINE, FLOW, Purpose::Request, length);
            for sequence in [0, 1, 0xffff, 0x1234_5678, u32::MAX] {
                let mark = Mark {
                    number: 3,
                    sequence,
                    time: u64::from(sequence).wrapping_mul(0x1_0001_0007),
                };
                let mut frame = template.marked(mark).to_vec();
                assert_eq!(frame.len(), length);
                assert_eq!(Mark::of(&frame), Some((mark, Purpose::Request)));
                assert_checksums(&frame);
                answer(&mut frame, [2, 0, 0, 0, 0, 2]);
                assert_eq!(Mark::of(&frame), Some((mark, Purpose::Answer)));
                assert_checksums(&frame);
                assert_eq!((&frame[..6], &frame[6..12]), (&MINE[..], &[2, 0, 0, 0, 0, 2][..]));
            }
        }
    }

    #[test]
    fn frames_of_others_have_no_mark() {
        let mut frame = Template::new(MINE, FLOW, Purpose::Discard, 60);
        let mark = Mark {
            number: 1,
            sequence: 2,
            time: 3,
        };
        let frame = frame.marked(mark);
        assert!(Mark::of(frame).is_some());
        for byte in [ETHERTYPE, PROTOCOL, TO_PORT, HEADERS] {
            let mut other = frame.to_vec();
            other[byte] ^= 0x40;
            assert_eq!(Mark::of(&other), None, "{byte}");
        }
        assert_eq!(Mark::of(&frame[..57]), None);
        assert_eq!(Mark::to(frame, FLOW.to_mac), Mark::of(frame));
        assert_eq!(Mark::to(frame, MINE), None);
    }

    #[test]
    fn a_hello_is_from_and_to_oneself() {
        let hello = hello(MINE);
        assert_eq!(
            (&hello[..6], &hello[6..12], hello.len()),
            (&MINE[..], &MINE[..], 60)
        );
    }

    #[test]
    fn arp_is_answered_for_ones_own_address() {
        let router = [2, 0, 0, 0, 0, 9];
        let mut question = Vec::new();
        PacketBuilder::ethernet2(router, [0xff; 6])
            .arp(
                etherparse::ArpPacket::new(
                    etherparse::ArpHardwareId::ETHERNET,
                    etherparse::EtherType::IPV4,
                    etherparse::ArpOperation::REQUEST,
                    &router,
                    &[10, 0, 1, 2],
                    &[0; 6],
                    &[10, 0, 1, 3],
                )
                .unwrap(),
            )
            .write(&mut question)
            .unwrap();
        let own = |address| address == Ipv4Addr::new(10, 0, 1, 3);
        let answer = arp_answer(&question, MINE, own).unwrap();
        let packet = SlicedPacket::from_ethernet(&answer[..42]).unwrap();
        let Some(etherparse::NetSlice::Arp(arp)) = packet.net else {
            panic!("no ARP")
        };
        assert_eq!(arp.operation(), etherparse::ArpOperation::REPLY);
        assert_eq!(
            (arp.sender_hw_addr(), arp.sender_protocol_addr()),
            (&MINE[..], &[10, 0, 1, 3][..])
        );
        assert_eq!(
            (arp.target_hw_addr(), arp.target_protocol_addr()),
            (&router[..], &[10, 0, 1, 2][..])
        );
        assert_eq!(answer[..6], router);
        assert_eq!(arp_answer(&question, MINE, |_| false), None);
        assert_eq!(arp_answer(&answer, MINE, |_| true), None, "an answer");
    }
}
