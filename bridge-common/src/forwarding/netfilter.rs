//! What `br_netfilter` does to frames while no rule of IP, IPv6 or ARP is there to be asked.

use crate::frame::{ETHERNET_HEADER, Frame};

/// What netfilter may do to frames that a bridge forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Nothing looks at them.
    Nothing,
    /// `br_netfilter` calls the hooks of IP and IPv6, and nothing is registered there: it checks headers, see [`keeps`].
    Headers,
    /// Rules look at them, of the bridge or of the protocols that `br_netfilter` calls.
    Rules,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_PPPOE: u16 = 0x8864;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const HOP_BY_HOP: u8 = 0;

/// Whether `br_netfilter` lets an untagged frame pass as it is (`br_validate_ipv4`, `br_validate_ipv6`): it drops frames
/// whose header is wrong, and cuts off what lies behind the packet. In doubt it does not.
///
/// `length` is the frame's in bytes, without a tag that lies in the metadata.
#[inline(always)]
pub fn keeps(frame: &impl Frame, ethertype: u16, length: u32) -> bool {
    let packet = length.wrapping_sub(ETHERNET_HEADER);
    match ethertype {
        ETHERTYPE_IPV4 => {
            let Some([version, _, high, low]) = frame.read(ETHERNET_HEADER) else {
                return false;
            };
            // Of a header with options, which are rare, nothing is known.
            let plain = version == 0x45 && packet >= IPV4_HEADER;
            plain
                && u32::from(u16::from_be_bytes([high, low])) == packet
                && frame
                    .sum::<{ IPV4_HEADER as usize }>(ETHERNET_HEADER, 0)
                    .is_some_and(is_right)
        }
        ETHERTYPE_IPV6 => {
            let Some([version, _, _, _, high, low, next, _]) = frame.read(ETHERNET_HEADER) else {
                return false;
            };
            // A hop-by-hop header is looked into (`br_nf_check_hbh_len`).
            version >> 4 == 6
                && next != HOP_BY_HOP
                && u32::from(u16::from_be_bytes([high, low])) + IPV6_HEADER == packet
        }
        // Where tunnels of PPP are looked into is a setting.
        ETHERTYPE_PPPOE => false,
        _ => true,
    }
}

/// Whether the sum of a header with its checksum is that of a header that arrived whole (RFC 1071).
const fn is_right(sum: u32) -> bool {
    let folded = (sum >> 16) + (sum & 0xffff);
    (folded >> 16) + (folded & 0xffff) == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame that ends where its packet does.
    fn ipv4(payload: u16) -> Vec<u8> {
        let mut frame = vec![0; 14];
        frame[12..].copy_from_slice(&[8, 0]);
        let mut header = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        header[2..4].copy_from_slice(&(20 + payload).to_be_bytes());
        let sum: u32 = header
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let checksum = !u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(header);
        frame.resize(34 + usize::from(payload), 7);
        frame
    }

    fn ipv6(payload: u16) -> Vec<u8> {
        let mut frame = vec![0; 14 + 40 + usize::from(payload)];
        frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        frame[18..20].copy_from_slice(&payload.to_be_bytes());
        frame[20] = 17;
        frame
    }

    fn kept(frame: &Vec<u8>) -> bool {
        let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
        keeps(frame, ethertype, u32::try_from(frame.len()).unwrap())
    }

    #[test]
    fn a_right_header_is_kept() {
        for payload in [0, 1, 26, 1480] {
            assert!(kept(&ipv4(payload)), "IPv4, {payload}");
            assert!(kept(&ipv6(payload)), "IPv6, {payload}");
        }
    }

    #[test]
    fn no_bit_of_an_ipv4_header_may_be_wrong() {
        for bit in 0..160 {
            let mut frame = ipv4(26);
            frame[14 + bit / 8] ^= 1 << (bit % 8);
            assert!(!kept(&frame), "bit {bit}");
        }
    }

    #[test]
    fn what_is_cut_off_or_missing_is_seen() {
        for make in [ipv4, ipv6] {
            let mut padded = make(4);
            padded.push(0);
            assert!(!kept(&padded));
            let mut short = make(4);
            short.pop();
            assert!(!kept(&short));
        }
        assert!(!kept(&ipv4(0)[..33].to_vec()));
        let mut hop_by_hop = ipv6(8);
        hop_by_hop[20] = 0;
        assert!(!kept(&hop_by_hop));
    }

    #[test]
    fn other_protocols_are_not_looked_at() {
        let mut frame = ipv4(0);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frame[20] ^= 1;
        assert!(kept(&frame));
        frame[12..14].copy_from_slice(&[0x88, 0x64]);
        assert!(!kept(&frame));
    }
}
