//! The one door to packet memory: everything else sees frames through [`Frame`].

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes},
};
use bridge_common::frame::{Frame, VlanTag};

/// Past this offset nothing is read: the verifier needs a bound, and no header or native frame reaches so far.
const LARGEST_OFFSET: u32 = 0x1fff;

/// The frame of an XDP program.
pub struct XdpFrame {
    data: usize,
    end: usize,
}

impl XdpFrame {
    #[inline(always)]
    pub fn new(context: *mut xdp_md) -> Self {
        // SAFETY: the kernel passes a valid context.
        let (data, end) = unsafe { ((*context).data, (*context).data_end) };
        Self {
            data: data as usize,
            end: end as usize,
        }
    }

    /// The linear part of an skb, to be read as XDP reads it: all of it, where native XDP could have met the frame.
    #[inline(always)]
    pub fn linear(skb: &Skb) -> Self {
        // SAFETY: the kernel passes a valid context.
        let (data, end) = unsafe { ((*skb.context).data, (*skb.context).data_end) };
        Self {
            data: data as usize,
            end: end as usize,
        }
    }

    /// Bytes of the whole frame.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        (self.end - self.data) as u32
    }

    /// The `N` bytes at `offset`, if they lie inside the frame.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Option<*mut [u8; N]> {
        if offset > LARGEST_OFFSET {
            return None;
        }
        let start = self.data + offset as usize;
        if start + N > self.end {
            None
        } else {
            Some(start as *mut [u8; N])
        }
    }

    /// Stores bytes at `offset`; `None` if they don't lie inside the frame.
    #[inline(always)]
    pub fn write<const N: usize>(&mut self, offset: u32, bytes: [u8; N]) -> Option<()> {
        let place = self.at::<N>(offset)?;
        // SAFETY: `at` has checked that the bytes lie inside the frame, which is this program's alone.
        unsafe { place.write(bytes) };
        Some(())
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: `at` has checked that the bytes lie inside the frame.
        self.at::<N>(offset).map(|place| unsafe { place.read() })
    }

    #[inline(always)]
    fn word(&self, offset: u32) -> Option<u64> {
        // SAFETY: `at` has checked that the bytes lie inside the frame.
        self.at::<8>(offset)
            .map(|place| unsafe { place.cast::<u64>().read_unaligned() })
    }

    #[inline(always)]
    fn sum<const N: usize>(&self, offset: u32, seed: u32) -> Option<u32> {
        Some(sum(self.at::<N>(offset)?, N as u32, seed))
    }

    #[inline(always)]
    fn sum_part<const N: usize>(&self, offset: u32, length: u32, seed: u32) -> Option<u32> {
        Some(sum(self.at::<N>(offset)?, length, seed))
    }
}

/// The sum of bytes inside the frame, at most `N`.
#[inline(always)]
fn sum<const N: usize>(place: *mut [u8; N], length: u32, seed: u32) -> u32 {
    // SAFETY: the caller has checked that the bytes lie inside the frame, and the verifier checks it again; a null
    // `from` of length 0 asks for the sum. Negative only for lengths that are no multiple of 4.
    unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, place.cast(), length, seed) as u32 }
}

/// The frame of a tcx program.
pub struct Skb {
    context: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub fn new(context: *mut __sk_buff) -> Self {
        Self { context }
    }

    /// The context, for helpers.
    #[inline(always)]
    pub fn context(&self) -> *mut __sk_buff {
        self.context
    }

    /// Bytes of the frame's data: without the tag that lies in the metadata.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        // SAFETY: the kernel passes a valid context.
        unsafe { (*self.context).len }
    }

    /// Index of the device that the frame came in by.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.context).ifindex }
    }

    /// Whether the frame carries several segments that are cut later.
    #[inline(always)]
    pub fn is_gso(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.context).gso_size != 0 }
    }

    /// The number of the receive queue that the frame came in by (`skb_get_rx_queue`).
    #[inline(always)]
    pub fn receive_queue(&self) -> u32 {
        // SAFETY: as above. None is recorded as 0, the first as 1.
        unsafe { (*self.context).queue_mapping }.saturating_sub(1)
    }

    /// The outermost VLAN tag, where the kernel has moved it out of the data.
    #[inline(always)]
    pub fn metadata_tag(&self) -> Option<VlanTag> {
        // SAFETY: as above.
        let (present, protocol, control) = unsafe {
            (
                (*self.context).vlan_present,
                (*self.context).vlan_proto,
                (*self.context).vlan_tci,
            )
        };
        // The protocol is in network byte order, the control information in the host's.
        (present != 0).then_some(VlanTag {
            protocol: u16::from_be(protocol as u16),
            control: control as u16,
        })
    }
}

impl Skb {
    /// What lies at the beginning of a frame that is none; none if it is shorter.
    #[inline(always)]
    pub fn record<T: Default>(&self) -> Option<T> {
        let mut record = T::default();
        let length = size_of::<T>() as u32;
        // SAFETY: the record is as long as what is asked for.
        let result = unsafe { bpf_skb_load_bytes(self.context.cast(), 0, (&raw mut record).cast(), length) };
        (result == 0).then_some(record)
    }
}

impl Frame for Skb {
    /// Reads through the linear part where it reaches so far, else with the helper.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: the kernel passes a valid context.
        let (data, end) = unsafe { ((*self.context).data as usize, (*self.context).data_end as usize) };
        let start = data + offset as usize;
        if start + N <= end {
            // SAFETY: just checked to lie inside the linear part.
            return Some(unsafe { (start as *const [u8; N]).read() });
        }
        let mut bytes = [0; N];
        // SAFETY: the buffer has the length that is asked for.
        let result =
            unsafe { bpf_skb_load_bytes(self.context.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
        (result == 0).then_some(bytes)
    }

    /// Reads through the linear part where it reaches so far, else with the helper.
    #[inline(always)]
    fn word(&self, offset: u32) -> Option<u64> {
        // SAFETY: the kernel passes a valid context.
        let (data, end) = unsafe { ((*self.context).data as usize, (*self.context).data_end as usize) };
        let start = data + offset as usize;
        if start + 8 <= end {
            // SAFETY: just checked to lie inside the linear part.
            return Some(unsafe { (start as *const u64).read_unaligned() });
        }
        self.read(offset).map(u64::from_le_bytes)
    }

    /// Of the linear part, in which headers lie.
    #[inline(always)]
    fn sum<const N: usize>(&self, offset: u32, seed: u32) -> Option<u32> {
        // SAFETY: the kernel passes a valid context.
        let (data, end) = unsafe { ((*self.context).data as usize, (*self.context).data_end as usize) };
        let start = data + offset as usize;
        (start + N <= end).then(|| sum(start as *mut [u8; N], N as u32, seed))
    }

    /// tcx completes no checksums: the kernel does, from the skb's metadata.
    fn sum_part<const N: usize>(&self, _: u32, _: u32, _: u32) -> Option<u32> {
        None
    }
}
