//! The commands of `bpf(2)` that aya does not make.

use std::{
    io,
    ops::AddAssign,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr, slice, thread,
    time::{Duration, Instant},
};

use aya::{
    Pod,
    maps::{MapData, MapError, MapType},
    util::nr_cpus,
};

pub(super) const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
pub(super) const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// How long memory for an element of a map is asked for, and how often.
const REFILL: Duration = Duration::from_secs(1);
const REFILL_POLL: Duration = Duration::from_millis(1);

/// Does something again that lacks memory for an element of a map: the kernel has a small stock of it, and refills that behind
/// the back of who takes from it, who may be faster (`bpf_mem_alloc`).
pub(crate) fn when_refilled<T>(lacks: impl Fn(&T) -> bool, mut attempt: impl FnMut() -> T) -> T {
    let begin = Instant::now();
    loop {
        let result = attempt();
        if !lacks(&result) || begin.elapsed() > REFILL {
            return result;
        }
        thread::sleep(REFILL_POLL);
    }
}

/// Whether a map has had no memory for an element.
pub(crate) fn lacks_memory<T>(result: &Result<T, MapError>) -> bool {
    matches!(result, Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::OutOfMemory)
}

/// The attributes of an element; addresses as numbers.
#[repr(C)]
pub(super) struct ElementAttributes {
    pub map_fd: u32,
    pub padding: u32,
    pub key: u64,
    pub value: u64,
    pub flags: u64,
}

/// A per-CPU map whose keys are numbers and whose values are as many numbers as the program has given them: aya's maps are
/// of values of one size.
pub(crate) struct PerCpuWords {
    map: MapData,
    words: usize,
    cpus: usize,
}

impl PerCpuWords {
    pub fn new(map: MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        let bytes = usize::try_from(info.value_size()).map_err(io::Error::other)?;
        let kind = info.map_type().map_err(io::Error::other)?;
        let is_per_cpu = matches!(kind, MapType::PerCpuArray | MapType::PerCpuHash);
        if !is_per_cpu || info.key_size() != 4 || bytes == 0 || !bytes.is_multiple_of(size_of::<u64>()) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self {
            words: bytes / size_of::<u64>(),
            cpus: nr_cpus().map_err(|(_, error)| error)?,
            map,
        })
    }

    /// What each CPU has; none if there is no such element.
    pub fn get(&self, key: u32) -> io::Result<Option<Vec<Vec<u64>>>> {
        let mut values = vec![0_u64; self.words * self.cpus];
        match self.call(BPF_MAP_LOOKUP_ELEM, key, values.as_mut_ptr() as u64) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            result => {
                result?;
                Ok(Some(
                    values.chunks_exact(self.words).map(<[u64]>::to_vec).collect(),
                ))
            }
        }
    }

    /// Makes all numbers zero, of an element that is made if it is a hash and there is none.
    pub fn clear(&mut self, key: u32) -> io::Result<()> {
        let values = vec![0_u64; self.words * self.cpus];
        let lacks_memory = |result: &io::Result<()>| matches!(result, Err(error) if error.kind() == io::ErrorKind::OutOfMemory);
        when_refilled(lacks_memory, || {
            self.call(BPF_MAP_UPDATE_ELEM, key, values.as_ptr() as u64)
        })
    }

    /// Removes an element of a hash; it is no error that there is none.
    pub fn remove(&mut self, key: u32) -> io::Result<()> {
        match self.call(BPF_MAP_DELETE_ELEM, key, 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    fn call(&self, command: libc::c_long, key: u32, value: u64) -> io::Result<()> {
        let mut attributes = ElementAttributes {
            map_fd: self.map.fd().as_fd().as_raw_fd().cast_unsigned(),
            padding: 0,
            key: &raw const key as u64,
            value,
            flags: 0,
        };
        // SAFETY: the attributes are of the form that the commands read; the key and the values, of all CPUs that can be, are as
        // large as the map's, and outlive the call.
        unsafe { bpf(command, &mut attributes) }.map(drop)
    }
}

/// `batch` of `union bpf_attr`; addresses as numbers.
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// How many elements are asked for at once.
const BATCH: u32 = 1024;

/// All elements of a hash of this many at most. What changes meanwhile is met once, or not at all.
pub(crate) fn elements<K: Pod, V: Pod>(map: &MapData, most: u32) -> io::Result<Vec<(K, V)>> {
    let mut found = Vec::new();
    lookup_batches(map, most, size_of::<K>(), size_of::<V>(), |key, value| {
        found.push((read(key), read(value)));
    })?;
    Ok(found)
}

/// As [`elements`] of a per-CPU hash or array, each the sum over all CPUs.
pub(crate) fn sums<K: Pod, V: Pod + Default + AddAssign>(
    map: &MapData,
    most: u32,
) -> io::Result<Vec<(K, V)>> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    // `BPF_MAP_LOOKUP_BATCH` writes an element's values CPU by CPU, each padded.
    let padded = size_of::<V>().next_multiple_of(8);
    let mut found = Vec::new();
    lookup_batches(map, most, size_of::<K>(), padded * cpus, |key, values| {
        let mut sum = V::default();
        values.chunks_exact(padded).for_each(|value| sum += read(value));
        found.push((read(key), sum));
    })?;
    Ok(found)
}

/// Meets all elements of a hash, whose keys and values have so many bytes.
fn lookup_batches(
    map: &MapData,
    most: u32,
    key_bytes: usize,
    value_bytes: usize,
    mut meet: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    let mut batch = BATCH.min(most);
    // A place in the table (`__htab_map_lookup_and_delete_batch`), or a key (`generic_map_lookup_batch`).
    let mut place: Option<u32> = None;
    loop {
        let wanted = usize::try_from(batch).map_err(io::Error::other)?;
        let mut keys = vec![0_u8; key_bytes * wanted];
        let mut values = vec![0_u8; value_bytes * wanted];
        let mut next = 0_u32;
        let mut attributes = BatchAttributes {
            in_batch: place.as_ref().map_or(0, |place| ptr::from_ref(place) as u64),
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: batch,
            map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the attributes are of the form that the command reads; what they point to is as large as it says there,
        // and outlives the call.
        let last = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) } {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // More lie in one place than were asked for.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && batch < most => {
                batch = batch.saturating_mul(2).min(most);
                continue;
            }
            result => result.map(|_| false)?,
        };
        let count = usize::try_from(attributes.count).map_err(io::Error::other)?;
        let found = keys.chunks_exact(key_bytes).zip(values.chunks_exact(value_bytes));
        found.take(count).for_each(|(key, value)| meet(key, value));
        if last {
            return Ok(());
        }
        place = Some(next);
    }
}

/// What a value is made of.
pub(crate) fn bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: as many bytes as a `T` has lie there as long as it does; what is shared with the programs has no padding
    // (asserted in `bridge_common`).
    unsafe { slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The value that lies at the beginning of these bytes.
fn read<T: Pod>(bytes: &[u8]) -> T {
    assert!(bytes.len() >= size_of::<T>());
    // SAFETY: any bytes are a `T`, and there are enough of them.
    unsafe { bytes.as_ptr().cast::<T>().read_unaligned() }
}

/// # Safety
///
/// `attributes` must be what the command reads from `union bpf_attr` and writes to it.
pub(crate) unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes and takes the rest of the union for zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(i32::try_from(result).unwrap_or(-1))
    }
}
