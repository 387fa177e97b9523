//! Reading the kernel's own structures.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// A pointer into the kernel's memory.
#[derive(Clone, Copy)]
pub struct Address(pub u64);

impl Address {
    /// The integer, or array of integers, that lies this many bytes behind the address.
    #[inline(always)]
    pub fn read<T>(self, offset: u64) -> Option<T> {
        // SAFETY: the helper checks the address and fails where it can't be read; every `T` here is made of integers.
        unsafe { bpf_probe_read_kernel(self.0.wrapping_add(offset) as *const T) }.ok()
    }
}
