//! Reading a BPF ring buffer of records that are all of one size, by any number of readers.
//!
//! The kernel knows one place up to which a ring buffer has been read, and what lies before that it overwrites. A reader
//! that moves it on takes the records from all others, and aya's `RingBuf` does: so each reader here has a place of its
//! own. When half the room is taken it moves the kernel's on, but leaves a quarter of the room behind itself, since others
//! may not be as far yet. Whoever is further behind than that finds out, and how much it has missed. The layout is that of
//! `kernel/bpf/ringbuf.c`.

use std::{
    io,
    marker::PhantomData,
    num::NonZeroUsize,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        raw::c_void,
    },
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use aya::Pod;
use nix::{
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    unistd::{SysconfVar, sysconf},
};

/// `BPF_RINGBUF_BUSY_BIT`: it is still being written.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: it is to be skipped.
const DISCARDED: u32 = 1 << 30;
/// `BPF_RINGBUF_HDR_SZ`
const HEADER: u64 = 8;

/// A part of the buffer in this process's memory.
struct Mapping {
    address: NonNull<c_void>,
    length: NonZeroUsize,
}

impl Mapping {
    fn new(map: &OwnedFd, offset: usize, length: usize, protection: ProtFlags) -> io::Result<Self> {
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping, at an address that the kernel chooses, takes nothing from anybody.
        let address = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, map, offset)? };
        Ok(Self { address, length })
    }

    /// What lies `offset` bytes from the beginning, where there must be a `T`.
    fn at<T>(&self, offset: usize) -> NonNull<T> {
        assert!(offset.is_multiple_of(align_of::<T>()) && offset + size_of::<T>() <= self.length.get());
        // SAFETY: just checked to lie inside the mapping.
        unsafe { self.address.byte_add(offset) }.cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody keeps a reference beyond the mapping's life, and it is one that `mmap` has made.
        let _ = unsafe { munmap(self.address, self.length.get()) };
    }
}

// SAFETY: memory that the kernel shares with any number of processes anyhow; it is read atomically, or checked afterwards.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With what is written from now on.
    Now,
    /// With the first record of all; those that are no more are missed.
    First,
}

/// A reader of records that are a `T` each.
pub(crate) struct Ring<T> {
    map: OwnedFd,
    /// The page with the place up to which all has been read.
    consumer: Mapping,
    /// The page with the place up to which something has been written, and the data, twice in a row.
    producer: Mapping,
    page: usize,
    size: u64,
    /// This reader's place.
    position: u64,
    /// Records that were overwritten before it came to them.
    missed: u64,
    records: PhantomData<T>,
}

impl<T: Pod> Ring<T> {
    /// What a record takes.
    const RECORD: u64 = (size_of::<T>() as u64 + HEADER).next_multiple_of(8);

    /// Opens a buffer of this size in bytes.
    pub fn open(map: OwnedFd, size: u32, begin: Begin) -> io::Result<Self> {
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|page| usize::try_from(page).ok());
        let page = page.ok_or(io::ErrorKind::Unsupported)?;
        let length = page + 2 * usize::try_from(size).map_err(io::Error::other)?;
        let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let mut ring = Self {
            consumer: Mapping::new(&map, 0, page, writable)?,
            producer: Mapping::new(&map, page, length, ProtFlags::PROT_READ)?,
            map,
            page,
            size: size.into(),
            position: 0,
            missed: 0,
            records: PhantomData,
        };
        ring.position = match begin {
            Begin::Now => ring.produced(),
            Begin::First => 0,
        };
        ring.make_room();
        Ok(ring)
    }

    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the page begins with this number (`consumer_pos`), and lives as long as `self`.
        unsafe { self.consumer.at::<AtomicU64>(0).as_ref() }
    }

    fn produced(&self) -> u64 {
        // SAFETY: the page begins with this number (`producer_pos`), and lives as long as `self`.
        unsafe { self.producer.at::<AtomicU64>(0).as_ref() }.load(Ordering::Acquire)
    }

    /// How many records were overwritten before this reader came to them, since it was last asked.
    pub fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// The next record, if there is one.
    pub fn next(&mut self) -> Option<T> {
        loop {
            let consumed = self.consumed().load(Ordering::Acquire);
            if self.position < consumed {
                self.missed += (consumed - self.position) / Self::RECORD;
                self.position = consumed;
            }
            self.make_room();
            if self.position >= self.produced() {
                return None;
            }
            let place = self.page + usize::try_from(self.position % self.size).ok()?;
            // SAFETY: a record begins with its header, whose first word the kernel writes as one (`struct
            // bpf_ringbuf_hdr`).
            let header = unsafe { self.producer.at::<AtomicU32>(place).as_ref() }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            // SAFETY: behind the header are as many bytes as a record has, and any bytes are a `T`. What the kernel writes
            // there meanwhile is not used: see below.
            let record = unsafe { self.producer.at::<T>(place + 8).read_volatile() };
            fence(Ordering::Acquire);
            if self.consumed().load(Ordering::Relaxed) > self.position {
                // Another reader has given the room away.
                continue;
            }
            self.position += Self::RECORD;
            if header & DISCARDED == 0 {
                return Some(record);
            }
        }
    }

    /// Lets the kernel have the room of what was read some time ago, if half of all is taken.
    fn make_room(&self) {
        let consumed = self.consumed().load(Ordering::Acquire);
        if self.position.saturating_sub(consumed) > self.size / 2 {
            let kept = self.size / 4 / Self::RECORD * Self::RECORD;
            // Another reader may have been further.
            let _ = self.consumed().compare_exchange(
                consumed,
                self.position - kept,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
        }
    }
}

impl<T> AsFd for Ring<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

impl<T> AsRawFd for Ring<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.map.as_raw_fd()
    }
}
