//! The Ethernet header: what the programs read of every frame.

use crate::mac::Mac;

/// Bytes of an untagged Ethernet header (`ETH_HLEN`).
pub const ETHERNET_HEADER: u32 = 14;
/// Bytes of one VLAN tag (`VLAN_HLEN`).
pub const VLAN_TAG: u32 = 4;

/// Bytes of the shortest frame whose tag the kernel can move out of the data: behind the tag there must be two more
/// (`skb_vlan_untag`).
pub const SHORTEST_TAGGED: u32 = ETHERNET_HEADER + VLAN_TAG + 2;

/// The longest frame that a device takes, in bytes: as `is_skb_forwardable` and `xdp_ok_fwd_dev` reckon, which leave
/// room for one VLAN tag whether there is one or not.
#[inline(always)]
pub const fn longest_frame(mtu: u32) -> u32 {
    mtu.saturating_add(ETHERNET_HEADER + VLAN_TAG)
}

/// The EtherType of a customer VLAN tag.
pub const ETHERTYPE_8021Q: u16 = 0x8100;
/// The EtherType of a service VLAN tag.
pub const ETHERTYPE_8021AD: u16 = 0x88a8;

/// Bytes of a frame that can be read at an offset. Every read is checked against the frame's end.
pub trait Frame {
    /// `N` bytes from `offset`, or `None` if they don't all lie inside the frame.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// The eight bytes from `offset` as a number, the first one lowest, or `None` if they don't all lie inside the
    /// frame. What is only compared, masked or added up is read faster this way than byte by byte.
    #[inline(always)]
    fn word(&self, offset: u32) -> Option<u64> {
        self.read(offset).map(u64::from_le_bytes)
    }

    /// The ones' complement sum (RFC 1071) of `N` bytes from `offset`, added to `seed`; `N` is a multiple of 4 and at
    /// most 512. `None` if they don't all lie inside the frame.
    fn sum<const N: usize>(&self, offset: u32, seed: u32) -> Option<u32>;

    /// The ones' complement sum of `length` bytes from `offset`, added to `seed`; `length` is a multiple of 4 and less
    /// than `N`. `None` if not even `N` bytes lie inside the frame.
    fn sum_part<const N: usize>(&self, offset: u32, length: u32, seed: u32) -> Option<u32>;
}

/// A VLAN tag: protocol (EtherType) and tag control information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTag {
    /// [`ETHERTYPE_8021Q`] or [`ETHERTYPE_8021AD`].
    pub protocol: u16,
    /// Priority (3 bits), drop eligibility (1 bit), VLAN identifier (12 bits).
    pub control: u16,
}

impl VlanTag {
    /// The VLAN identifier; 0 in a tag that only has a priority.
    pub const fn id(self) -> u16 {
        self.control & 0x0fff
    }
}

/// The Ethernet header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// EtherType behind the outermost tag.
    pub ethertype: u16,
    /// Where the payload begins in the frame's data: 14, or 18 where the tag lies in the data.
    pub payload: u32,
}

impl Ethernet {
    /// Reads the header. `metadata_tag` is the outermost tag where the kernel has moved it out of the data
    /// (`skb_vlan_untag`, before tcx).
    ///
    /// `None` if the frame ends before its header does.
    #[inline(always)]
    pub fn read(frame: &impl Frame, metadata_tag: Option<VlanTag>) -> Option<Self> {
        // The last eight bytes and the first eight: they overlap.
        let back = frame.word(ETHERNET_HEADER - 8)?;
        let front = frame.word(0)?;
        let untagged = Self {
            destination: Mac::from_bits(front),
            source: Mac::from_bits(back),
            ethertype: ((back >> 48) as u16).swap_bytes(),
            payload: ETHERNET_HEADER,
        };
        if metadata_tag.is_some() || !matches!(untagged.ethertype, ETHERTYPE_8021Q | ETHERTYPE_8021AD) {
            return Some(untagged);
        }
        let [_, _, e0, e1] = frame.read(ETHERNET_HEADER)?;
        Some(Self {
            ethertype: u16::from_be_bytes([e0, e1]),
            payload: ETHERNET_HEADER + VLAN_TAG,
            ..untagged
        })
    }

    /// The outermost tag where it lies in the data of the frame that this header is of.
    #[inline(always)]
    pub fn tag_in_data(&self, frame: &impl Frame) -> Option<VlanTag> {
        if self.payload == ETHERNET_HEADER {
            return None;
        }
        let [p0, p1, c0, c1] = frame.read(ETHERNET_HEADER - 2)?;
        Some(VlanTag {
            protocol: u16::from_be_bytes([p0, p1]),
            control: u16::from_be_bytes([c0, c1]),
        })
    }
}

/// A frame in a slice: the host's stand-in for packet memory.
#[cfg(test)]
impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.get(offset as usize..)?.first_chunk().copied()
    }

    fn sum<const N: usize>(&self, offset: u32, seed: u32) -> Option<u32> {
        let bytes: [u8; N] = self.read(offset)?;
        Some(sum(&bytes, seed))
    }

    fn sum_part<const N: usize>(&self, offset: u32, length: u32, seed: u32) -> Option<u32> {
        let bytes: [u8; N] = self.read(offset)?;
        Some(sum(&bytes[..length as usize], seed))
    }
}

#[cfg(test)]
fn sum(bytes: &[u8], seed: u32) -> u32 {
    let words = bytes
        .chunks_exact(2)
        .map(|word| u64::from(u16::from_ne_bytes([word[0], word[1]])));
    let mut sum = u64::from(seed) + words.sum::<u64>();
    while sum > u64::from(u32::MAX) {
        sum = (sum & u64::from(u32::MAX)) + (sum >> 32);
    }
    u32::try_from(sum).unwrap()
}

#[cfg(test)]
impl<const L: usize> Frame for [u8; L] {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.as_slice().read(offset)
    }

    fn sum<const N: usize>(&self, offset: u32, seed: u32) -> Option<u32> {
        self.as_slice().sum::<N>(offset, seed)
    }

    fn sum_part<const N: usize>(&self, offset: u32, length: u32, seed: u32) -> Option<u32> {
        self.as_slice().sum_part::<N>(offset, length, seed)
    }
}

#[cfg(test)]
impl Frame for Vec<u8> {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.as_slice().read(offset)
    }

    fn sum<const N: usize>(&self, offset: u32, seed: u32) -> Option<u32> {
        self.as_slice().sum::<N>(offset, seed)
    }

    fn sum_part<const N: usize>(&self, offset: u32, length: u32, seed: u32) -> Option<u32> {
        self.as_slice().sum_part::<N>(offset, length, seed)
    }
}
