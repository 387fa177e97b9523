//! The one door to the kernel's memory.
//!
//! The kernel function `bpf_rdonly_cast` (Linux 6.2) makes a pointer of an address; a load through it costs what a load
//! costs, and yields zero where there is nothing to read. It is told that at every address lies a structure which begins
//! with a long array of integers, of which the verifier lets a program read any part. So structures of modules are read
//! too, whose types have no number that the function could be told.
//!
//! The kernel checks each address before it loads (`BPF_PROBE_MEM` of `arch/x86/net/bpf_jit_comp.c`), and jumps. So
//! what one load can tell is not asked for with two.
//!
//! Where a member lies is part of the instruction that loads it: the loader puts the kernel's offset in the place of a
//! number that stands for the member ([`MEMBERS`]). That is half the code of an offset which is read from a map.

use core::mem;

use aya_ebpf::Global;
use bridge_common::{
    fastpath::{ANYTHING, MEMBERS, Offsets},
    layout::RDONLY_CAST,
};

/// Set by the loader.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<Offsets> = Global::new(Offsets::UNKNOWN);

/// One of the [`Offsets`] as a number, to calculate with.
macro_rules! offset {
    ($field:ident) => {
        // SAFETY: `OFFSETS` is one initialised `Offsets`; volatile, since the loader changes it behind the compiler.
        unsafe {
            (&raw const (*(&raw const $crate::kernel::memory::OFFSETS).cast::<bridge_common::fastpath::Offsets>())
                .$field)
                .read_volatile()
        }
    };
}
pub(crate) use offset;

/// One of the [`Offsets`] as the place of a member.
macro_rules! member {
    ($field:ident) => {
        const {
            $crate::kernel::memory::Member::of(core::mem::offset_of!(
                bridge_common::fastpath::Offsets,
                $field
            ))
        }
    };
}
pub(crate) use member;

/// Whether a pointer, which the kernel may be built without, is there and points to something.
macro_rules! is_set {
    ($structure:expr, $field:ident) => {
        $crate::kernel::memory::offset!($field) != bridge_common::layout::ABSENT
            && !$structure
                .follow($crate::kernel::memory::member!($field))
                .is_null()
    };
}
pub(crate) use is_set;

/// An integer that can be read.
pub trait Integer: Copy {}
impl Integer for u8 {}
impl Integer for u16 {}
impl Integer for u32 {}
impl Integer for u64 {}

/// An address in the kernel's memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address(u64);

impl Address {
    /// Of a context, or of what a helper has answered with.
    #[inline(always)]
    pub fn of<T>(pointer: *const T) -> Self {
        Self(pointer as u64)
    }

    /// Of a number.
    #[inline(always)]
    pub const fn new(number: u64) -> Self {
        Self(number)
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

    /// The structure that lies there.
    #[inline(always)]
    pub fn open(self) -> Structure {
        // SAFETY: a call of an address is how the compiler is told a function's number; the loader has made it the
        // number of `void *bpf_rdonly_cast(const void *, u32)`, which the verifier replaces by a move.
        let cast: unsafe extern "C" fn(*const u8, u64) -> *const u8 =
            unsafe { mem::transmute(RDONLY_CAST as usize) };
        // SAFETY: the function has no preconditions.
        Structure(unsafe { cast(self.0 as *const u8, u64::from(ANYTHING)) })
    }

    /// The pointer that lies there.
    #[inline(always)]
    pub fn pointer(self) -> Self {
        Self(self.open().read(Member::FIRST))
    }
}

/// Where a member lies in its structure.
#[derive(Clone, Copy)]
pub struct Member(usize);

impl Member {
    /// What begins with its structure.
    pub const FIRST: Self = Self(0);

    /// The one whose offset lies there in [`Offsets`].
    pub const fn of(position: usize) -> Self {
        Self(MEMBERS as usize + position)
    }
}

/// A structure that can be read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Structure(*const u8);

impl Structure {
    /// Where it lies.
    #[inline(always)]
    pub fn address(self) -> Address {
        Address::of(self.0)
    }

    /// A member.
    #[inline(always)]
    pub fn read<T: Integer>(self, member: Member) -> T {
        // SAFETY: the verifier makes the load one that yields zero instead of failing. Volatile, since the kernel writes
        // it meanwhile.
        unsafe { self.0.wrapping_add(member.0).cast::<T>().read_volatile() }
    }

    /// What a member points to.
    #[inline(always)]
    pub fn follow(self, member: Member) -> Address {
        Address(self.read(member))
    }

    /// What a member points to, as a structure.
    #[inline(always)]
    pub fn open(self, member: Member) -> Self {
        self.follow(member).open()
    }
}
