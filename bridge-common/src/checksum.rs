//! Partial checksums: what native XDP must do to a frame before it leaves without its virtio-net header.
//!
//! A guest that leaves checksums to its NIC (`VIRTIO_NET_HDR_F_NEEDS_CSUM`) stores only the folded pseudo-header sum
//! in the checksum field. tcx forwards the frame with that fact in its metadata; a native redirect loses it, so XDP
//! has to do the NIC's work. XDP can't see the flag, only the frame: where the frame alone does not prove what the
//! checksum field holds, the frame is left to tcx.

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

/// The shortest payload that can hold a checksum of its own, that of an inner IPv4 and UDP header. A UDP datagram
/// with less cannot be a tunnel whose inner checksum is the partial one.
const SMALLEST_TUNNELLED: u32 = IPV4_HEADER + UDP_HEADER;

/// The longest segment that [`plan`] sums. A native frame fits a page together with its headroom and
/// `skb_shared_info` (`tun_can_build_skb`), so there are none of this length on pages of 4 KiB.
const LONGEST_SEGMENT: u32 = 4095;

/// What native XDP must do with a frame's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing: the frame is complete as it is.
    Keep,
    /// Store these two octets at this offset.
    Store {
        /// Where the checksum field lies in the frame.
        offset: u32,
        /// The complete checksum, in transmission order.
        checksum: [u8; 2],
    },
    /// The frame does not show whether its checksum is complete: leave it to tcx.
    LeaveToTcx,
}

/// The transport segment inside an IP packet.
struct Segment {
    protocol: u8,
    offset: u32,
    length: u32,
    /// Ones' complement sum of the pseudo-header, in the machine's byte order.
    pseudo_header: u32,
}

/// Says what must happen to the frame's checksum before a native redirect. Changes nothing.
///
/// `length` is the whole frame's, in octets.
#[inline(always)]
pub fn plan(frame: &impl Frame, ethernet: &Ethernet, length: u32) -> Plan {
    let segment = match ethernet.ethertype {
        ETHERTYPE_ARP => return Plan::Keep,
        ETHERTYPE_IPV4 => ipv4(frame, ethernet.payload),
        ETHERTYPE_IPV6 => ipv6(frame, ethernet.payload),
        _ => None,
    };
    match segment {
        Some(segment) if segment.offset + segment.length <= length => {
            plan_segment(frame, &segment).unwrap_or(Plan::LeaveToTcx)
        }
        _ => Plan::LeaveToTcx,
    }
}

/// An unfragmented IPv4 packet without options.
#[inline(always)]
fn ipv4(frame: &impl Frame, offset: u32) -> Option<Segment> {
    let header: [u8; IPV4_HEADER as usize] = frame.read(offset)?;
    let total_length = u32::from(u16::from_be_bytes([header[2], header[3]]));
    // More fragments, or an offset: bits 13 and 0–12.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    if header[0] != 0x45 || fragment || total_length < IPV4_HEADER {
        return None;
    }
    let addresses = [word(&header, 12), word(&header, 16)];
    Some(Segment::new(
        header[9],
        offset + IPV4_HEADER,
        total_length - IPV4_HEADER,
        addresses,
    ))
}

/// An IPv6 packet without extension headers.
#[inline(always)]
fn ipv6(frame: &impl Frame, offset: u32) -> Option<Segment> {
    let header: [u8; IPV6_HEADER as usize] = frame.read(offset)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let length = u32::from(u16::from_be_bytes([header[4], header[5]]));
    let addresses = [8, 12, 16, 20, 24, 28, 32, 36].map(|at| word(&header, at));
    Some(Segment::new(header[6], offset + IPV6_HEADER, length, addresses))
}

#[inline(always)]
fn word(header: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

impl Segment {
    #[inline(always)]
    fn new<const N: usize>(protocol: u8, offset: u32, length: u32, addresses: [u32; N]) -> Self {
        let [_, _, length_high, length_low] = length.to_be_bytes();
        let mut sum = u32::from(u16::from_ne_bytes([0, protocol]));
        sum += u32::from(u16::from_ne_bytes([length_high, length_low]));
        for address in addresses {
            sum = add(sum, address);
        }
        Self {
            protocol,
            offset,
            length,
            pseudo_header: sum,
        }
    }
}

/// `None` where the frame ends too early for its own headers.
#[inline(always)]
fn plan_segment(frame: &impl Frame, segment: &Segment) -> Option<Plan> {
    let at = match segment.protocol {
        PROTOCOL_TCP if segment.length >= TCP_HEADER => segment.offset + 16,
        PROTOCOL_UDP if segment.length >= UDP_HEADER => segment.offset + 6,
        _ => return None,
    };
    let field = u16::from_ne_bytes(frame.read(at)?);
    if field == fold(segment.pseudo_header) {
        // A complete checksum that looks like this by chance is computed anew, to the same value.
        let sum = sum_segment(frame, segment.offset, segment.length)?;
        let checksum = match !fold(sum) {
            // As the kernel stores it (`CSUM_MANGLED_0`): zero means "no checksum" in UDP.
            0 => 0xffff,
            checksum => checksum,
        };
        return Some(Plan::Store {
            offset: at,
            checksum: u16::to_ne_bytes(checksum),
        });
    }
    // A tunnel over UDP may carry the partial checksum inside (VXLAN, Geneve, FOU: any port); TCP never does.
    if segment.protocol == PROTOCOL_UDP && segment.length >= UDP_HEADER + SMALLEST_TUNNELLED {
        return None;
    }
    Some(Plan::Keep)
}

/// The ones' complement sum of a segment, its checksum field (the pseudo-header's sum) included.
///
/// In pieces of a constant size each, as the verifier wants them: as many of 512 octets as fit, then one for each bit
/// that is left of the length. Where a piece begins is reckoned from the length and not from the piece before, so
/// that the verifier finds the same state behind each step whether there was a piece or not.
#[inline(always)]
fn sum_segment(frame: &impl Frame, offset: u32, length: u32) -> Option<u32> {
    if length > LONGEST_SEGMENT {
        return None;
    }
    let mut sum = 0;
    // `bpf_csum_diff` takes at most 512 octets a call before Linux 6.13.
    for piece in 0..LONGEST_SEGMENT / 512 {
        if length < (piece + 1) * 512 {
            break;
        }
        sum = frame.sum::<512>(offset + piece * 512, sum)?;
    }
    macro_rules! piece {
        ($octets:literal) => {
            if length & $octets != 0 {
                sum = frame.sum::<$octets>(offset + (length & !(2 * $octets - 1)), sum)?;
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
    if length & 2 != 0 {
        sum = add(
            sum,
            u32::from(u16::from_ne_bytes(frame.read(offset + (length & !3))?)),
        );
    }
    if length & 1 != 0 {
        // Read together with the octet before it: the verifier does not understand a bounds check for one octet.
        let [_, octet] = frame.read(offset + length - 2)?;
        sum = add(sum, u32::from(u16::from_ne_bytes([octet, 0])));
    }
    Some(sum)
}

/// Ones' complement addition.
#[inline(always)]
const fn add(sum: u32, value: u32) -> u32 {
    let (sum, carry) = sum.overflowing_add(value);
    sum + carry as u32
}

/// Folds a sum to 16 bits (`csum_fold` without the complement).
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the second fold leaves at most 0xffff"
)]
const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
