//! The contexts that `BPF_PROG_TEST_RUN` takes beside a frame (`include/uapi/linux/bpf.h`).

/// `struct xdp_md`: a frame of this length, received by a device's queue.
pub fn xdp_md(length: usize, ifindex: u32, queue: u32) -> Vec<u8> {
    let length = u32::try_from(length).expect("a short frame");
    // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
    bytes(&[0, length, 0, ifindex, queue, 0])
}

/// `struct __sk_buff`: a frame received by a device, of several segments if `gso_size` is not 0. All other members
/// must be zero (`convert___skb_to_skb`).
pub fn sk_buff(ifindex: u32, gso_size: u32) -> Vec<u8> {
    const IFINDEX: usize = 10;
    const GSO_SEGMENTS: usize = 41;
    const GSO_SIZE: usize = 44;
    let mut words = [0; 48];
    words[IFINDEX] = ifindex;
    words[GSO_SIZE] = gso_size;
    words[GSO_SEGMENTS] = if gso_size == 0 { 0 } else { 2 };
    bytes(&words)
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
