//! The Ethernet header: what the switch reads of every frame.

use crate::{fdb::FdbKey, mac::Mac};

/// Octets of an untagged Ethernet header (`ETH_HLEN`).
pub const ETHERNET_HEADER: u32 = 14;
/// Octets of one VLAN tag (`VLAN_HLEN`).
pub const VLAN_TAG: u32 = 4;

/// Octets of the shortest frame whose tag the kernel can move out of the data: behind the tag there must be two more
/// (`skb_vlan_untag`).
pub const SHORTEST_TAGGED: u32 = ETHERNET_HEADER + VLAN_TAG + 2;

/// The EtherType of a customer VLAN tag.
pub const ETHERTYPE_8021Q: u16 = 0x8100;
/// The EtherType of a service VLAN tag.
pub const ETHERTYPE_8021AD: u16 = 0x88a8;

/// Bytes of a frame that can be read at an offset. Every read is checked against the frame's end.
pub trait Frame {
    /// `N` bytes from `offset`, or `None` if they don't all lie inside the frame.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// The eight octets from `offset` as a number, the first one lowest, or `None` if they don't all lie inside the
    /// frame. What is only compared, masked or added up is read faster this way than octet by octet.
    #[inline(always)]
    fn word(&self, offset: u32) -> Option<u64> {
        self.read(offset).map(u64::from_le_bytes)
    }

    /// The ones' complement sum (RFC 1071) of `N` bytes from `offset`, added to `seed`; `N` is a multiple of 4 and at
    /// most 512. `None` if they don't all lie inside the frame.
    fn sum<const N: usize>(&self, offset: u32, seed: u32) -> Option<u32>;

    /// The same of `length` octets, a multiple of 4 and less than `N`. `None` if not even `N` lie inside the frame.
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
        self.control & Vlan::IDENTIFIER
    }
}

/// A broadcast domain of the bridge: the outermost tag's protocol and identifier.
///
/// Zero is the untagged domain, which priority-tagged frames (identifier 0) belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Vlan(pub u16);

impl Vlan {
    const IDENTIFIER: u16 = 0x0fff;
    const SERVICE: u16 = 0x1000;

    /// The domain of a VLAN identifier (0–4095) under a tag of the given kind.
    pub const fn new(identifier: u16, service: bool) -> Self {
        let identifier = identifier & Self::IDENTIFIER;
        Self(if service && identifier != 0 {
            identifier | Self::SERVICE
        } else {
            identifier
        })
    }

    /// The VLAN identifier, 0 for untagged.
    pub const fn identifier(self) -> u16 {
        self.0 & Self::IDENTIFIER
    }

    /// Whether the outermost tag is a service tag (802.1ad).
    pub const fn is_service(self) -> bool {
        self.0 & Self::SERVICE != 0
    }

    #[inline(always)]
    const fn of(tag: VlanTag) -> Self {
        Self::new(tag.control, tag.protocol == ETHERTYPE_8021AD)
    }
}

/// The Ethernet header of a frame, with its outermost VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// Broadcast domain.
    pub vlan: Vlan,
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
        // The last eight octets and the first eight: they overlap.
        let back = frame.word(ETHERNET_HEADER - 8)?;
        let front = frame.word(0)?;
        let untagged = Self {
            destination: Mac::from_bits(front),
            source: Mac::from_bits(back),
            vlan: Vlan(0),
            ethertype: ((back >> 48) as u16).swap_bytes(),
            payload: ETHERNET_HEADER,
        };
        if let Some(tag) = metadata_tag {
            return Some(Self {
                vlan: Vlan::of(tag),
                ..untagged
            });
        }
        if !matches!(untagged.ethertype, ETHERTYPE_8021Q | ETHERTYPE_8021AD) {
            return Some(untagged);
        }
        let [c0, c1, e0, e1] = frame.read(ETHERNET_HEADER)?;
        let tag = VlanTag {
            protocol: untagged.ethertype,
            control: u16::from_be_bytes([c0, c1]),
        };
        Some(Self {
            vlan: Vlan::of(tag),
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

    /// The key under which the frame's source is learned.
    #[inline(always)]
    pub const fn source_key(&self) -> FdbKey {
        FdbKey {
            mac: self.source,
            vlan: self.vlan,
        }
    }

    /// The key under which the frame's destination is looked up.
    #[inline(always)]
    pub const fn destination_key(&self) -> FdbKey {
        FdbKey {
            mac: self.destination,
            vlan: self.vlan,
        }
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
