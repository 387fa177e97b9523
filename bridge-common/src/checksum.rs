//! Partial checksums: what native XDP must do to a frame before it leaves without its virtio-net header.
//!
//! A guest that leaves checksums to its NIC (`VIRTIO_NET_HDR_F_NEEDS_CSUM`) stores only the folded pseudo-header sum
//! in the checksum field. tcx forwards the frame with that fact in its metadata; a native redirect loses it, so XDP
//! has to do the NIC's work. XDP can't see the flag, only the frame: where the frame alone does not prove what the
//! checksum field holds, the frame is left to tcx. The exceptions are in the README's limits: a TCP segment whose field
//! the guest has not prepared, and a tunnel on a port that is no tunnel's whose outer checksum looks partial by chance.

use crate::frame::{Ethernet, Frame};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;

/// Where the checksum lies in the header.
const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;

/// The shortest payload that can hold a checksum of its own, that of an inner IPv4 and UDP header. A UDP datagram
/// with less cannot be a tunnel whose inner checksum is the partial one.
pub const SMALLEST_TUNNELLED: u32 = IPV4_HEADER + UDP_HEADER;

/// The longest segment that [`action`] sums. A native frame fits a page together with its headroom and
/// `skb_shared_info` (`tun_can_build_skb`), so there are none of this length on pages of 4 KiB.
const LONGEST_SEGMENT: u32 = 4095;

/// What native XDP must do with a frame's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAction {
    /// Nothing: the frame is complete as it is.
    Keep,
    /// It is partial: these two bytes at this offset complete it.
    Complete {
        /// Where the checksum field lies in the frame.
        offset: u32,
        /// The complete checksum, in transmission order.
        checksum: [u8; 2],
    },
    /// The frame does not show whether its checksum is complete: leave it to tcx.
    Pass,
}

/// The transport segment inside an IP packet.
struct Segment {
    protocol: u8,
    /// Where in the frame the protocol was read.
    protocol_at: u32,
    offset: u32,
    length: u32,
    /// Sum of the pseudo-header, not folded.
    pseudo_header: u64,
    /// Whether UDP may have none: over IPv4 (RFC 768), but not over IPv6 (RFC 8200, 8.1).
    optional: bool,
}

/// Says what must happen to the frame's checksum before a native redirect. Changes nothing.
///
/// `length` is the whole frame's, in bytes.
#[inline(always)]
pub fn action(frame: &impl Frame, ethernet: &Ethernet, length: u32) -> ChecksumAction {
    let segment = match ethernet.ethertype {
        ETHERTYPE_ARP => return ChecksumAction::Keep,
        ETHERTYPE_IPV4 => ipv4(frame, ethernet.payload),
        ETHERTYPE_IPV6 => ipv6(frame, ethernet.payload),
        _ => None,
    };
    match segment {
        Some(segment) if segment.offset + segment.length <= length => {
            segment_action(frame, &segment).unwrap_or(ChecksumAction::Pass)
        }
        _ => ChecksumAction::Pass,
    }
}

/// An unfragmented IPv4 packet without options.
#[inline(always)]
fn ipv4(frame: &impl Frame, offset: u32) -> Option<Segment> {
    // Version, header length, service, total length, identification, fragment.
    let [
        version,
        _,
        length_high,
        length_low,
        _,
        _,
        fragment_high,
        fragment_low,
    ] = frame.word(offset)?.to_le_bytes();
    // From the identification to the header's checksum: the time to live and the protocol are in the middle.
    let [_, _, _, _, _, protocol, _, _] = frame.word(offset + 4)?.to_le_bytes();
    let addresses = frame.word(offset + 12)?;
    let total_length = u32::from(u16::from_be_bytes([length_high, length_low]));
    // More fragments, or an offset: bits 13 and 0–12.
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff != 0;
    if version != 0x45 || fragment || total_length < IPV4_HEADER {
        return None;
    }
    Some(Segment::new(
        protocol,
        offset + 9,
        offset + IPV4_HEADER,
        total_length - IPV4_HEADER,
        halves(addresses),
        true,
    ))
}

/// An IPv6 packet without extension headers.
#[inline(always)]
fn ipv6(frame: &impl Frame, offset: u32) -> Option<Segment> {
    // From the end backwards: the verifier learns at once that the rest is there.
    let addresses = halves(frame.word(offset + 32)?)
        + halves(frame.word(offset + 24)?)
        + halves(frame.word(offset + 16)?)
        + halves(frame.word(offset + 8)?);
    let [version, _, _, _, length_high, length_low, protocol, _] = frame.word(offset)?.to_le_bytes();
    if version >> 4 != 6 {
        return None;
    }
    let length = u32::from(u16::from_be_bytes([length_high, length_low]));
    Some(Segment::new(
        protocol,
        offset + 6,
        offset + IPV6_HEADER,
        length,
        addresses,
        false,
    ))
}

/// The sum of a word's two halves.
#[inline(always)]
const fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

impl Segment {
    #[inline(always)]
    const fn new(
        protocol: u8,
        protocol_at: u32,
        offset: u32,
        length: u32,
        addresses: u64,
        optional: bool,
    ) -> Self {
        let [_, _, high, low] = length.to_be_bytes();
        let protocol_and_length =
            u16::from_le_bytes([0, protocol]) as u64 + u16::from_le_bytes([high, low]) as u64;
        Self {
            protocol,
            protocol_at,
            offset,
            length,
            pseudo_header: addresses + protocol_and_length,
            optional,
        }
    }
}

/// Whether a UDP port is that of tunnels whose packets are not encrypted: Linux leaves the checksums inside to the NIC.
#[inline(always)]
const fn is_tunnel(port: u16) -> bool {
    matches!(
        port,
        1701 // L2TP
        | 2152 // GTP-U
        | 2268 // AMT
        | 3544 // Teredo
        | 4341 // LISP
        | 4754 // GRE
        | 4789 // VXLAN
        | 4790 // VXLAN-GPE
        | 6080 // GUE
        | 6081 // Geneve
        | 6635 // MPLS
        | 8472 // VXLAN, before it had a port assigned
    )
}

/// `None` where the frame ends too early for its own headers, and where it is to be left to tcx.
#[inline(always)]
fn segment_action(frame: &impl Frame, segment: &Segment) -> Option<ChecksumAction> {
    let partial = fold(segment.pseudo_header);
    match segment.protocol {
        PROTOCOL_TCP if segment.length >= TCP_HEADER => {
            // No tunnel: what is not the partial checksum is the complete one. To make sure of it would cost all of
            // TCP what completing it costs.
            if field(frame, segment.offset + TCP_CHECKSUM)? != partial {
                return Some(ChecksumAction::Keep);
            }
        }
        PROTOCOL_UDP if segment.length >= UDP_HEADER => match datagram(frame, segment, partial)? {
            Datagram::Unchecked => return Some(ChecksumAction::Keep),
            Datagram::Unclear => return None,
            Datagram::Checked => {}
        },
        _ => return None,
    }
    let sum = sum_segment(frame, segment.offset, segment.length)?;
    // Right as it is, so all inside is complete: a tunnel's outer checksum is reckoned as if the inner one that is left
    // to the NIC had been completed (`lco_csum`), and is right only then.
    if fold(sum + segment.pseudo_header) == 0xffff {
        return Some(ChecksumAction::Keep);
    }
    // Read again: what was known of them before the sum the verifier would follow through all of it.
    let [protocol] = frame.read(segment.protocol_at)?;
    let at = segment.offset
        + if protocol == PROTOCOL_TCP {
            TCP_CHECKSUM
        } else {
            UDP_CHECKSUM
        };
    if field(frame, at)? != partial {
        return None;
    }
    let checksum = match !fold(sum) {
        // As the kernel stores it (`CSUM_MANGLED_0`): zero means "no checksum" in UDP.
        0 => 0xffff,
        checksum => checksum,
    };
    Some(ChecksumAction::Complete {
        offset: at,
        checksum: u16::to_le_bytes(checksum),
    })
}

#[inline(always)]
fn field(frame: &impl Frame, at: u32) -> Option<u16> {
    frame.read(at).map(u16::from_le_bytes)
}

/// What the checksum of a datagram tells of it.
enum Datagram {
    /// It has none, and no room for an inner one.
    Unchecked,
    /// If it is right or partial, what is to be done.
    Checked,
    /// Nothing.
    Unclear,
}

#[inline(always)]
fn datagram(frame: &impl Frame, segment: &Segment, partial: u16) -> Option<Datagram> {
    // Source port, destination port, length, checksum.
    let [s0, s1, d0, d1, l0, l1, c0, c1] = frame.word(segment.offset)?.to_le_bytes();
    let field = u16::from_le_bytes([c0, c1]);
    // That of another part of the packet.
    if u32::from(u16::from_be_bytes([l0, l1])) != segment.length {
        return Some(Datagram::Unclear);
    }
    let may_be_tunnel = segment.length >= UDP_HEADER + SMALLEST_TUNNELLED;
    // The sum of a pseudo-header is never zero.
    if field == 0 {
        return Some(if may_be_tunnel || !segment.optional {
            Datagram::Unclear
        } else {
            Datagram::Unchecked
        });
    }
    // A tunnel's outer checksum may look partial by chance, where the partial one is inside.
    let ports = [u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])];
    let may_be_inside = field == partial && may_be_tunnel && ports.into_iter().any(is_tunnel);
    Some(if may_be_inside {
        Datagram::Unclear
    } else {
        Datagram::Checked
    })
}

/// The sum of a segment, its checksum field (the pseudo-header's sum) included; not folded.
///
/// The verifier wants pieces of a constant size each. Of a segment of 512 bytes or more, what is over comes first: so
/// far from the end a piece may have any length. A shorter one is cut by the bits of its length. Where a piece begins
/// is reckoned from the length and not from the piece before, so that the verifier finds the same state behind each
/// step whether there was a piece or not.
#[inline(always)]
fn sum_segment(frame: &impl Frame, offset: u32, length: u32) -> Option<u64> {
    if length > LONGEST_SEGMENT {
        return None;
    }
    let mut sum = 0;
    // `bpf_csum_diff` takes at most 512 bytes a call before Linux 6.13.
    if length >= 512 {
        let over = length & 0x1fc;
        sum = frame.sum_part::<512>(offset, over, 0)?;
        for piece in 0..LONGEST_SEGMENT / 512 {
            if length < (piece + 1) * 512 {
                break;
            }
            sum = frame.sum::<512>(offset + over + piece * 512, sum)?;
        }
    } else {
        macro_rules! piece {
            ($bytes:literal) => {
                if length & $bytes != 0 {
                    sum = frame.sum::<$bytes>(offset + (length & !(2 * $bytes - 1)), sum)?;
                }
            };
        }
        piece!(256);
        piece!(128);
        piece!(64);
        piece!(32);
        piece!(16);
        piece!(8);
        piece!(4);
    }
    let mut sum = u64::from(sum);
    if length & 2 != 0 {
        sum += u64::from(u16::from_le_bytes(frame.read(offset + (length & !3))?));
    }
    if length & 1 != 0 {
        // Read together with the byte before it: the verifier does not understand a bounds check for one byte. Where
        // that is must be reckoned from multiples: of a sum less 2, Linux 6.12 knows no lower bound.
        let [_, byte] = frame.read(offset + (length & !3) + (length & 2) - 1)?;
        sum += u64::from(byte);
    }
    Some(sum)
}

/// Folds a sum to 16 bits (`csum_fold` without the complement).
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the last fold leaves at most 0xffff"
)]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
