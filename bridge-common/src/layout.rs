//! What the object files and their loader agree on, besides what each has of its own.

/// The offset of a member that the running kernel does not have.
pub const ABSENT: u64 = u64::MAX;

/// The number that the programs call for `bpf_rdonly_cast`, which aya does not link: no helper's, and none of the
/// object's other bytes look like a call of it.
pub const RDONLY_CAST: u32 = 0x7a70_0001;

/// Name of the global that holds the length of the longest frame that native XDP takes, in bytes (`u32`).
pub const LONGEST_NATIVE: &str = "LONGEST_NATIVE";
/// Of a page, what a native frame has no room in: `TUN_RX_PAD` and `XDP_PACKET_HEADROOM` before it, `skb_shared_info`
/// behind it (`tun_can_build_skb`).
pub const NATIVE_OVERHEAD: u32 = 64 + 256 + 320;
