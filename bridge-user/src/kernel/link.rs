//! A program's links to devices, pinned beside the maps.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use bridge_common::Hook;

use super::bpf::bpf;

/// What the names of pinned links begin with.
pub(crate) const PREFIX: &str = "link_";

/// What has become of a pinned link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// It is attached to the device of this index, in whichever network namespace that is.
    Attached(u32),
    /// Its device is gone, or somebody has detached it.
    Detached,
    /// Somebody has removed the pin, and with it the link.
    Unpinned,
}

/// Of `enum bpf_cmd`; aya has none of them for a link that it has not made.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
/// Of `enum bpf_attach_type`.
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
/// `XDP_FLAGS_DRV_MODE`
const NATIVE: u32 = 1 << 2;
/// Of `enum bpf_link_type`.
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;

#[repr(C)]
struct ObjectAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct CreateAttributes {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttributes {
    fd: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info` of a link to a device.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
struct DetachAttributes {
    fd: u32,
}

#[repr(C)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Attaches a program to a device, behind all that are attached there, for as long as the descriptor is open or pinned.
pub(crate) fn create(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    let (attach_type, flags) = match hook {
        Hook::Xdp => (BPF_XDP, NATIVE),
        Hook::Tcx => (BPF_TCX_INGRESS, 0),
    };
    let mut attributes = CreateAttributes {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type,
        flags,
    };
    // SAFETY: the attributes are of the form that the command reads.
    let fd = unsafe { bpf(BPF_LINK_CREATE, &mut attributes)? };
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins a link.
pub(crate) fn pin(link: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectAttributes {
        path: path.as_ptr() as u64,
        fd: link.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    // SAFETY: the attributes are of the form that the command reads, and the path outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }.map(drop)
}

/// What has become of the link pinned here.
pub(crate) fn state(path: &Path) -> io::Result<LinkState> {
    match device(path) {
        Ok(0) => Ok(LinkState::Detached),
        Ok(ifindex) => Ok(LinkState::Attached(ifindex)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LinkState::Unpinned),
        Err(error) => Err(error),
    }
}

/// The index of the device that the program of the link pinned here is attached to, in that device's network namespace;
/// none if this is no such link, or if its device is gone.
pub(crate) fn device_of(path: &Path) -> Option<u32> {
    // Programs and maps answer to the same question with something else.
    let is_link = path.file_name()?.to_str()?.starts_with(PREFIX);
    let device = device(path).ok().filter(|_| is_link)?;
    (device != 0).then_some(device)
}

/// As [`device_of`], of what is a link; 0 if its device is gone.
fn device(path: &Path) -> io::Result<u32> {
    let link = open(path)?;
    let mut info = LinkInfo::default();
    let mut attributes = InfoAttributes {
        fd: link.as_raw_fd().cast_unsigned(),
        length: u32::try_from(size_of::<LinkInfo>()).map_err(io::Error::other)?,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes are of the form that the command reads; it writes no more of the information than its length.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)? };
    Ok(match info.kind {
        BPF_LINK_TYPE_XDP | BPF_LINK_TYPE_TCX => info.ifindex,
        _ => 0,
    })
}

/// Opens what is pinned here.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut get = ObjectAttributes {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the attributes are of the form that the command reads, and the path outlives the call.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut get)? };
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives a link another program, at once: a frame meets the one or the other. It is no error if the device is gone.
pub(crate) fn replace_program(link: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let mut update = UpdateAttributes {
        link: link.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: the attributes are of the form that the command reads.
    match unsafe { bpf(BPF_LINK_UPDATE, &mut update) } {
        // The link died with its device (`bpf_xdp_link_update`, `tcx_link_update`).
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        result => result.map(drop),
    }
}

/// Detaches the link pinned here; says whether it was attached. It is no error if the device is gone.
pub(crate) fn detach(path: &Path) -> io::Result<bool> {
    let link = open(path)?;
    let mut detach = DetachAttributes {
        fd: link.as_raw_fd().cast_unsigned(),
    };
    // SAFETY: the attributes are of the form that the command reads.
    match unsafe { bpf(BPF_LINK_DETACH, &mut detach) } {
        // The link died with its device (`bpf_xdp_link_detach` does nothing then, `tcx_link_detach` answers this).
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        result => result.map(|_| true),
    }
}
