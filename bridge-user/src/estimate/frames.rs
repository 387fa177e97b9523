//! The frames that are sent to find out what frames cost, as a VMM writes them: behind their virtio-net header.

use bridge_common::checksum::SMALLEST_TUNNELLED;
use etherparse::{PacketBuilder, checksum::Sum16BitWords};

pub(super) type Address = [u8; 6];

pub(super) const BROADCAST: Address = [0xff; 6];

/// Of `struct virtio_net_hdr_v1`.
pub(super) const HEADER: usize = 12;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV4`
const TCP_OVER_IPV4: u8 = 1;

/// Ethernet and IPv4.
const TRANSPORT: u16 = 34;
const TCP_HEADERS: u16 = 54;
const UDP_HEADERS: u16 = 42;
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: usize = 40;
const TCP: u8 = 6;
/// The shortest datagram without a checksum that may be a tunnel.
pub(super) const SHORTEST_UNJUDGED: usize = UDP_HEADERS as usize + SMALLEST_TUNNELLED as usize;
/// Bytes of payload of each of the frames that a long segment is cut into.
const SEGMENT: u16 = 1460;

/// What is told apart of frames, each of so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP with a checksum that is complete.
    Complete,
    /// TCP with one that the guest leaves to its card.
    Partial,
    /// UDP without one: XDP leaves it to tcx, unless it is shorter than [`SHORTEST_UNJUDGED`].
    Unjudged,
    /// TCP, still to be cut into segments.
    Gso,
}

/// A frame, header and bytes.
pub(super) struct Frame {
    pub header: [u8; HEADER],
    pub bytes: Vec<u8>,
}

impl Frame {
    /// Of this kind and so many bytes, which its headers fit in and IP can tell.
    pub fn new(kind: Kind, length: usize, from: Address, to: Address) -> Self {
        let mut header = [0; HEADER];
        let mut word = |place: usize, value: u16| {
            header[place..place + 2].copy_from_slice(&value.to_ne_bytes());
        };
        if kind == Kind::Gso {
            word(2, TCP_HEADERS);
            word(4, SEGMENT);
        }
        if matches!(kind, Kind::Partial | Kind::Gso) {
            word(6, TRANSPORT);
            word(8, TCP_CHECKSUM);
            header[0] = NEEDS_CHECKSUM;
            header[1] = if kind == Kind::Gso { TCP_OVER_IPV4 } else { 0 };
        }
        let mut bytes = bytes(kind, length, from, to);
        match kind {
            Kind::Complete => {}
            Kind::Unjudged => bytes[UDP_CHECKSUM..UDP_CHECKSUM + 2].fill(0),
            Kind::Partial | Kind::Gso => leave_checksum(&mut bytes),
        }
        Self { header, bytes }
    }
}

fn bytes(kind: Kind, length: usize, from: Address, to: Address) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(from, to).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64);
    let mut bytes = Vec::with_capacity(length);
    let headers = if kind == Kind::Unjudged {
        UDP_HEADERS
    } else {
        TCP_HEADERS
    };
    let payload = vec![0x5a; length.saturating_sub(headers.into())];
    let written = match kind {
        Kind::Unjudged => packet.udp(1111, 2222).write_to_vec(&mut bytes, &payload),
        _ => packet
            .tcp(1111, 2222, 7, 1024)
            .ack(3)
            .write_to_vec(&mut bytes, &payload),
    };
    written.expect("all lengths here are those of IP packets");
    bytes
}

/// Puts the pseudo-header's folded sum where the checksum belongs.
fn leave_checksum(bytes: &mut [u8]) {
    let start = usize::from(TRANSPORT);
    let length = u16::try_from(bytes.len() - start).expect("all lengths here are those of IP packets");
    let sum = Sum16BitWords::new()
        .add_2bytes([0, TCP])
        .add_2bytes(length.to_be_bytes())
        .add_slice(&bytes[start - 8..start]);
    let at = start + usize::from(TCP_CHECKSUM);
    bytes[at..at + 2].copy_from_slice(&(!sum.ones_complement()).to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Address = [2, 0, 0, 0, 0, 1];
    const TO: Address = [2, 0, 0, 0, 0, 2];

    #[test]
    fn frames_have_their_lengths() {
        for kind in [Kind::Complete, Kind::Partial, Kind::Unjudged, Kind::Gso] {
            for length in [60, 1514, 65_000] {
                assert_eq!(Frame::new(kind, length, FROM, TO).bytes.len(), length, "{kind:?}");
            }
        }
    }

    #[test]
    fn a_partial_checksum_completed_is_the_complete_one() {
        let [complete, partial] =
            [Kind::Complete, Kind::Partial].map(|kind| Frame::new(kind, 1514, FROM, TO).bytes);
        assert_ne!(complete[50..52], partial[50..52]);
        let completed = Sum16BitWords::new().add_slice(&partial[34..]).ones_complement();
        assert_eq!(complete[50..52], completed.to_ne_bytes());
    }
}
