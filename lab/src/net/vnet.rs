//! `struct virtio_net_hdr_v1`, the 12 bytes that precede every frame on a tap with `IFF_VNET_HDR`.

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum at `csum_start + csum_offset` holds the pseudo-header's sum only.
pub const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the checksum has been verified.
pub const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_NONE`: the frame is one frame on the wire.
pub const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`: a TCP segment over IPv4 still to be cut into frames.
pub const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`: a TCP segment over IPv6 still to be cut into frames.
pub const GSO_TCPV6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`: UDP datagrams of equal size, still to be cut apart.
pub const GSO_UDP_L4: u8 = 5;

/// What a guest and its VMM say about a frame beside its bytes: checksum and segmentation still to be done.
///
/// The fields are in the machine's byte order on the tap, as for a legacy virtio device; every machine that runs
/// eBPF on taps is little-endian in practice, where that is the modern device's order too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`] or 0.
    pub flags: u8,
    /// One of [`GSO_NONE`], [`GSO_TCPV4`], [`GSO_TCPV6`], [`GSO_UDP_L4`].
    pub gso_type: u8,
    /// Bytes of Ethernet, IP and transport header; a hint, 0 without GSO.
    pub hdr_len: u16,
    /// Bytes of payload per frame once segmented; 0 without GSO.
    pub gso_size: u16,
    /// Byte of the frame where the checksummed part (the transport header) starts.
    pub csum_start: u16,
    /// Byte after `csum_start` where the checksum is stored: 16 for TCP, 6 for UDP.
    pub csum_offset: u16,
    /// Descriptors the frame takes in a virtio ring; meaningless on a tap.
    pub num_buffers: u16,
}

impl VnetHeader {
    /// Bytes on the tap (`TUNSETVNETHDRSZ`).
    pub const LEN: usize = 12;

    /// A frame that is complete: nothing left to a device.
    pub const fn none() -> Self {
        Self {
            flags: 0,
            gso_type: GSO_NONE,
            hdr_len: 0,
            gso_size: 0,
            csum_start: 0,
            csum_offset: 0,
            num_buffers: 0,
        }
    }

    /// A frame whose checksum field holds only the folded sum of the pseudo-header.
    pub const fn partial_checksum(csum_start: u16, csum_offset: u16) -> Self {
        Self {
            flags: NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..Self::none()
        }
    }

    /// A TCP segment over IPv4, `gso_size` (the MSS) bytes of payload per frame.
    ///
    /// `csum_start` is where the TCP header starts, `hdr_len` where the payload does.
    pub const fn gso_tcpv4(csum_start: u16, hdr_len: u16, gso_size: u16) -> Self {
        Self {
            gso_type: GSO_TCPV4,
            hdr_len,
            gso_size,
            ..Self::partial_checksum(csum_start, 16)
        }
    }

    /// A TCP segment over IPv6; the arguments are those of [`VnetHeader::gso_tcpv4`].
    pub const fn gso_tcpv6(csum_start: u16, hdr_len: u16, gso_size: u16) -> Self {
        Self {
            gso_type: GSO_TCPV6,
            hdr_len,
            gso_size,
            ..Self::partial_checksum(csum_start, 16)
        }
    }

    /// UDP datagrams of `gso_size` bytes each behind one header, over IPv4 or IPv6.
    ///
    /// `csum_start` is where the UDP header starts, `hdr_len` where the payload does.
    pub const fn gso_udp_l4(csum_start: u16, hdr_len: u16, gso_size: u16) -> Self {
        Self {
            gso_type: GSO_UDP_L4,
            hdr_len,
            gso_size,
            ..Self::partial_checksum(csum_start, 6)
        }
    }

    /// The header as it is written to a tap.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let words = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ];
        for (slot, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// The header as it is read from a tap.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
        }
    }

    /// Whether the frame's checksum is still to be completed.
    pub const fn needs_checksum(self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_frame_has_a_header_of_zeroes() {
        assert_eq!(VnetHeader::none().to_bytes(), [0; 12]);
        assert_eq!(VnetHeader::none(), VnetHeader::default());
    }

    #[test]
    fn the_fields_lie_where_virtio_puts_them() {
        let header = VnetHeader::gso_tcpv4(34, 66, 1448);
        let mut expected = [0u8; 12];
        expected[0] = NEEDS_CSUM;
        expected[1] = GSO_TCPV4;
        expected[2..4].copy_from_slice(&66u16.to_ne_bytes());
        expected[4..6].copy_from_slice(&1448u16.to_ne_bytes());
        expected[6..8].copy_from_slice(&34u16.to_ne_bytes());
        expected[8..10].copy_from_slice(&16u16.to_ne_bytes());
        assert_eq!(header.to_bytes(), expected);
    }

    #[test]
    fn every_constructor_survives_the_round_trip() {
        let headers = [
            VnetHeader::none(),
            VnetHeader::partial_checksum(34, 6),
            VnetHeader::gso_tcpv4(34, 54, 1460),
            VnetHeader::gso_tcpv6(54, 74, 1440),
            VnetHeader::gso_udp_l4(34, 42, 1200),
            VnetHeader {
                num_buffers: 0xbeef,
                flags: DATA_VALID,
                ..VnetHeader::none()
            },
        ];
        for header in headers {
            assert_eq!(VnetHeader::from_bytes(header.to_bytes()), header);
        }
    }

    #[test]
    fn gso_always_needs_its_checksum_completed() {
        assert!(VnetHeader::gso_udp_l4(34, 42, 1200).needs_checksum());
        assert!(!VnetHeader::none().needs_checksum());
    }
}
