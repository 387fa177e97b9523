//! The commands of `bpf(2)` that aya does not make.

use std::{
    io,
    ops::AddAssign,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr,
};

use aya::{Pod, maps::MapData, util::nr_cpus};

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

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

/// All elements of a per-CPU hash of this many at most, each the sum over all CPUs. What changes meanwhile is met once, or
/// not at all.
pub(crate) fn sums<K: Pod, V: Pod + Default + AddAssign>(
    map: &MapData,
    most: u32,
) -> io::Result<Vec<(K, V)>> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    // `BPF_MAP_LOOKUP_BATCH` writes an element's values CPU by CPU, each padded.
    let padded = size_of::<V>().next_multiple_of(8);
    let mut found = Vec::new();
    let mut batch = BATCH.min(most);
    // A place in the table (`__htab_map_lookup_and_delete_batch`).
    let mut place: Option<u32> = None;
    loop {
        let wanted = usize::try_from(batch).map_err(io::Error::other)?;
        let mut keys = vec![0_u8; size_of::<K>() * wanted];
        let mut values = vec![0_u8; padded * cpus * wanted];
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
        let elements = keys
            .chunks_exact(size_of::<K>())
            .zip(values.chunks_exact(padded * cpus));
        for (key, value) in elements.take(count) {
            let mut sum = V::default();
            value.chunks_exact(padded).for_each(|value| sum += read(value));
            found.push((read(key), sum));
        }
        if last {
            return Ok(found);
        }
        place = Some(next);
    }
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
