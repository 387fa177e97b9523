//! The one door to the kernel's memory.
//!
//! The kernel function `bpf_rdonly_cast` (Linux 6.2) makes a pointer of an address; a load through it costs what a load
//! costs, and yields zero where there is nothing to read. It is told that at every address lies a `struct new_utsname`,
//! which begins with an array of characters, of which the verifier lets a program read any part. So structures of modules
//! are read too, whose types have no number that the function could be told.

use core::mem;

use aya_ebpf::Global;
use bridge_common::{fastpath::Offsets, layout::RDONLY_CAST};

/// Set by the loader.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<Offsets> = Global::new(Offsets::UNKNOWN);

/// One of the [`Offsets`]. Reading the whole struct for each would be a load per field.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: `OFFSETS` is one initialised `Offsets`; volatile, since the loader changes it behind the compiler.
        unsafe {
            (&raw const (*(&raw const $crate::memory::OFFSETS).cast::<bridge_common::fastpath::Offsets>())
                .$field)
                .read_volatile()
        }
    };
}
pub(crate) use offset;

/// An integer that can be read.
pub trait Integer: Copy {}
impl Integer for u8 {}
impl Integer for u16 {}
impl Integer for u32 {}
impl Integer for u64 {}

/// An address in the kernel's memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Memory(u64);

impl Memory {
    /// Of a context, or of what a helper has answered with.
    #[inline(always)]
    pub fn of<T>(pointer: *const T) -> Self {
        Self(pointer as u64)
    }

    /// Where nothing lies: whatever is read there is zero.
    pub const NULL: Self = Self(0);

    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address itself.
    #[inline(always)]
    pub fn number(self) -> u64 {
        self.0
    }

    /// So many bytes further.
    #[inline(always)]
    pub fn at(self, offset: u64) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    /// So many bytes before: a structure by one of its members.
    #[inline(always)]
    pub fn before(self, offset: u64) -> Self {
        Self(self.0.wrapping_sub(offset))
    }

    /// Without the lowest bit, which some pointers use as a lock.
    #[inline(always)]
    pub fn even(self) -> Self {
        Self(self.0 & !1)
    }

    /// A member at an offset.
    #[inline(always)]
    pub fn read<T: Integer>(self, offset: u64) -> T {
        // SAFETY: a call of an address is how the compiler is told a function's number; the loader has made it the
        // number of `void *bpf_rdonly_cast(const void *, u32)`, which the verifier replaces by a move.
        let cast: unsafe extern "C" fn(*const u8, u64) -> *const T =
            unsafe { mem::transmute(RDONLY_CAST as usize) };
        let utsname = offset!(utsname);
        // SAFETY: the function has no preconditions, and the verifier makes the load one that yields zero instead of
        // failing. Volatile, since the kernel writes it meanwhile.
        unsafe { cast(self.at(offset).0 as *const u8, utsname).read_volatile() }
    }

    /// What a member points to.
    #[inline(always)]
    pub fn follow(self, offset: u64) -> Self {
        Self(self.read(offset))
    }
}
