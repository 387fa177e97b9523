//! bpf(2) as others use it: what our own code does is not to be checked with it.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// Calls it; the attributes must be of the form that the command reads, and what they point to must outlive the call.
pub fn call<T>(command: libc::c_long, attributes: &T) -> libc::c_long {
    // SAFETY: the kernel reads the attributes' bytes and takes the rest of the union for zero; they are as said above.
    unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) }
}

/// The same, of a command that must succeed.
pub fn succeed<T>(command: libc::c_long, attributes: &T) -> libc::c_long {
    let result = call(command, attributes);
    assert!(
        result >= 0,
        "bpf command {command}: {}",
        io::Error::last_os_error()
    );
    result
}

/// The descriptor that a command opens, which must succeed.
pub fn open<T>(command: libc::c_long, attributes: &T) -> OwnedFd {
    let fd = i32::try_from(succeed(command, attributes)).expect("a descriptor");
    // SAFETY: the kernel has just opened this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
