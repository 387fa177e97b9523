//! Bytes that are pinned in bpffs, where there are no plain files: the value of a map of one element.

use std::{
    ffi::OsString,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use aya::maps::MapData;

use super::{
    bpf::{BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, ElementAttributes, bpf},
    link,
};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// What the name ends with of what is not there yet. bpffs takes no '.' (`bpf_lookup`).
const NEW: &str = "~";

#[repr(C)]
struct CreateAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
}

/// Pins bytes, in the place of those that were pinned there, if some were: who reads finds the ones or the others.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut create = CreateAttributes {
        kind: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: u32::try_from(bytes.len()).map_err(io::Error::other)?,
        entries: 1,
    };
    // SAFETY: the attributes are of the form that the command reads.
    let map = unsafe { bpf(BPF_MAP_CREATE, &mut create)? };
    // SAFETY: the kernel has just opened this descriptor for us.
    let map = unsafe { OwnedFd::from_raw_fd(map) };
    let key = 0_u32;
    let mut update = ElementAttributes {
        map_fd: map.as_raw_fd().cast_unsigned(),
        padding: 0,
        key: &raw const key as u64,
        value: bytes.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the attributes are of the form that the command reads; the key and the value are as large as the map's, and
    // outlive the call.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut update)? };
    let mut new = OsString::from(path);
    new.push(NEW);
    let new = Path::new(&new);
    // What a killed command has left.
    remove(new)?;
    link::pin(&map, new)?;
    fs::rename(new, path)
}

/// The bytes that are pinned here; none if none are.
pub(crate) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !path.exists() {
        return Ok(None);
    }
    let map = MapData::from_fd(link::open(path)?).map_err(io::Error::other)?;
    let info = map.info().map_err(io::Error::other)?;
    let mut bytes = vec![0; usize::try_from(info.value_size()).map_err(io::Error::other)?];
    let key = 0_u32;
    let mut lookup = ElementAttributes {
        map_fd: map.fd().as_fd().as_raw_fd().cast_unsigned(),
        padding: 0,
        key: &raw const key as u64,
        value: bytes.as_mut_ptr() as u64,
        flags: 0,
    };
    if info.key_size() != 4 || info.max_entries() != 1 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the attributes are of the form that the command reads; the key and the value are as large as the map's, and
    // outlive the call.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut lookup)? };
    Ok(Some(bytes))
}

/// Unpins what is pinned here, if something is.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
