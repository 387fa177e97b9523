//! A frame that watches how it is read.

use std::cell::Cell;

use bridge_common::frame::Frame;

/// How `bpf_csum_diff` leaves its sums: as 32 bits, and since Linux 6.13 folded to 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    Unfolded,
    Folded,
}

impl Sums {
    pub const ALL: [Self; 2] = [Self::Unfolded, Self::Folded];
}

/// Bytes that panic when they are summed past their end, or read where it was forbidden.
pub struct Watched<'a> {
    bytes: &'a [u8],
    sums: Sums,
    readable: usize,
    furthest: Cell<usize>,
}

impl<'a> Watched<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            sums: Sums::Unfolded,
            readable: bytes.len(),
            furthest: Cell::new(0),
        }
    }

    pub fn with_sums(self, sums: Sums) -> Self {
        Self { sums, ..self }
    }

    /// Panics from now on when a byte at or behind this offset is read.
    pub fn readable_to(self, readable: usize) -> Self {
        Self { readable, ..self }
    }

    /// The end of the furthest read that was asked for, answered or not.
    pub fn furthest(&self) -> usize {
        self.furthest.get()
    }

    fn range(&self, offset: u32, length: usize) -> Option<&[u8]> {
        let start = offset as usize;
        let end = start + length;
        self.furthest.set(self.furthest.get().max(end));
        let bytes = self.bytes.get(start..end)?;
        assert!(
            end <= self.readable,
            "bytes {start} to {end} were read, though only {} are the packet's",
            self.readable
        );
        Some(bytes)
    }
}

impl Frame for Watched<'_> {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.range(offset, N)?.first_chunk().copied()
    }

    fn sum<const N: usize>(&self, offset: u32, seed: u32) -> Option<u32> {
        assert!(
            N > 0 && N.is_multiple_of(4) && N <= 512,
            "`bpf_csum_diff` refuses {N} bytes"
        );
        Some(self.sum_up(offset, N, N, seed))
    }

    fn sum_part<const N: usize>(&self, offset: u32, length: u32, seed: u32) -> Option<u32> {
        let length = length as usize;
        assert!(
            length.is_multiple_of(4) && length < N && N <= 512,
            "`bpf_csum_diff` refuses {length} bytes of {N}"
        );
        Some(self.sum_up(offset, length, N, seed))
    }
}

impl Watched<'_> {
    /// As `csum_partial` does it: 32-bit words in the machine's byte order, the carry added at once. The verifier wants
    /// all of the bytes inside the frame.
    fn sum_up(&self, offset: u32, length: usize, all: usize, seed: u32) -> u32 {
        let bytes = self
            .range(offset, all)
            .unwrap_or_else(|| panic!("{all} bytes at {offset} were summed, of {}", self.bytes.len()));
        let (words, _) = bytes[..length].as_chunks();
        let sum = words.iter().fold(seed, |sum, word| {
            let (sum, carry) = sum.overflowing_add(u32::from_ne_bytes(*word));
            sum + u32::from(carry)
        });
        match self.sums {
            Sums::Unfolded => sum,
            Sums::Folded => {
                let once = (sum & 0xffff) + (sum >> 16);
                (once & 0xffff) + (once >> 16)
            }
        }
    }
}
