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

/// Elements of a per-CPU array, from index `first` on, each the sum over all CPUs: one system call for all of them.
pub(crate) fn sums<T: Pod + Default + AddAssign>(
    map: &MapData,
    first: u32,
    count: u32,
) -> io::Result<Vec<T>> {
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    // `BPF_MAP_LOOKUP_BATCH` writes an element's values CPU by CPU, each padded.
    let padded = size_of::<T>().next_multiple_of(8);
    let values = lookup_batch(map, first, count, padded * cpus)?;
    let sum = |element: &[u8]| {
        let mut sum = T::default();
        values_in(element, padded).for_each(|value| sum += value);
        sum
    };
    Ok(values.chunks_exact(padded * cpus).map(sum).collect())
}

/// Elements of an array, from index `first` on: one system call for all of them.
pub(crate) fn elements<T: Pod>(map: &MapData, first: u32, count: u32) -> io::Result<Vec<T>> {
    let values = lookup_batch(map, first, count, size_of::<T>())?;
    Ok(values_in(&values, size_of::<T>()).collect())
}

/// The values that lie one after the other, each in so many octets.
fn values_in<T: Pod>(octets: &[u8], each: usize) -> impl Iterator<Item = T> {
    assert!(each >= size_of::<T>());
    // SAFETY: any octets are a `T`, and there are enough of them.
    let value = |octets: &[u8]| unsafe { octets.as_ptr().cast::<T>().read_unaligned() };
    octets.chunks_exact(each).map(value)
}

/// The values of an array's elements, from index `first` on, each of so many octets.
fn lookup_batch(map: &MapData, first: u32, count: u32, each: usize) -> io::Result<Vec<u8>> {
    let wanted = usize::try_from(count).map_err(io::Error::other)?;
    let mut values = vec![0_u8; each * wanted];
    let mut keys = vec![0_u32; wanted];
    let before = first.checked_sub(1);
    let mut last = 0_u32;
    let mut attributes = BatchAttributes {
        in_batch: before.as_ref().map_or(0, |before| ptr::from_ref(before) as u64),
        out_batch: &raw mut last as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the attributes are of the form that the command reads; what they point to is as large as it says there, and
    // outlives the call.
    match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) } {
        // Behind the last element of the map.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        result => drop(result?),
    }
    if attributes.count != count {
        return Err(io::Error::other(format!(
            "{} elements of {count}",
            attributes.count
        )));
    }
    Ok(values)
}

/// `MEMBARRIER_CMD_GLOBAL`: waits for an RCU grace period.
const MEMBARRIER_GLOBAL: libc::c_int = 1;

/// Waits until every CPU has left the programs that it is in now. A kernel with `nohz_full` refuses; then nothing but
/// the count of a frame on its way at this moment can be missed.
pub(crate) fn leave_programs() {
    // SAFETY: the call takes three numbers and touches no memory.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) };
}

/// # Safety
///
/// `attributes` must be what the command reads from `union bpf_attr` and writes to it.
pub(crate) unsafe fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` octets and takes the rest of the union for zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(i32::try_from(result).unwrap_or(-1))
    }
}
