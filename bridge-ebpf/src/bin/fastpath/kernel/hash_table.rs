//! The kernel's hash tables (`struct rhashtable`), as they are searched under RCU.

use super::memory::{Address, Structure, member, offset};

const POINTER: u64 = 8;

/// How far a chain of the hash table is followed. It has one entry or two; a miss is always safe.
const LONGEST_CHAIN: u32 = 24;

/// `jhash2` of two words, and `jhash` of less than five bytes that are the first of them (include/linux/jhash.h).
#[inline(always)]
fn hash(key: u64, length: u32, seed: u32) -> u32 {
    let initial = 0xdead_beef_u32.wrapping_add(length).wrapping_add(seed);
    let (mut a, mut b, mut c) = (
        initial.wrapping_add(key as u32),
        initial.wrapping_add((key >> 32) as u32),
        initial,
    );
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// A `struct bucket_table`, as it is searched.
#[derive(Clone, Copy)]
pub struct Table {
    pub place: Address,
    size: u32,
    seed: u32,
}

impl Table {
    /// None where it has a second level of buckets: it is being filled for lack of memory.
    #[inline(always)]
    pub fn at(place: Address) -> Option<Self> {
        let header = place.open();
        // The size in the lower half, `nest` in the upper one.
        let size: u64 = header.read(member!(table_size));
        let seed = header.read(member!(table_hash_rnd));
        (size >> 32 == 0).then_some(Self {
            place,
            size: size as u32,
            seed,
        })
    }

    /// The chain of a key.
    #[inline(always)]
    pub fn chain(self, key: u64, length: u32) -> Address {
        let bucket = hash(key, length, self.seed) & self.size.wrapping_sub(1);
        let buckets = self.place.at(offset!(table_buckets));
        // The lowest bit of a bucket is its lock.
        buckets.at(POINTER * u64::from(bucket)).pointer().even()
    }
}

/// Follows a chain to the structure of which something is so (`rhashtable_lookup`).
#[inline(always)]
pub fn find(mut node: Address, link: u64, has_it: impl Fn(Structure) -> bool) -> Address {
    for _ in 0..LONGEST_CHAIN {
        // An odd pointer ends a chain.
        if node.is_null() || node.even() != node {
            break;
        }
        let structure = node.before(link);
        if has_it(structure.open()) {
            return structure;
        }
        node = node.pointer();
    }
    Address::NULL
}
