//! A tap's own filter of what its holder gets.

use std::{io, mem::MaybeUninit, os::fd::AsRawFd as _, ptr};

use lab::Tap;

nix::ioctl_write_ptr!(attach_filter, b'T', 213, libc::sock_fprog);
nix::ioctl_write_ptr!(detach_filter, b'T', 214, libc::sock_fprog);

/// Lets nothing pass.
pub fn attach(tap: &Tap) {
    // `BPF_RET | BPF_K`: so many bytes.
    let mut nothing = libc::sock_filter {
        code: 0x06,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let program = libc::sock_fprog {
        len: 1,
        filter: &raw mut nothing,
    };
    // SAFETY: the kernel reads a program of one instruction, which outlives the call.
    let attached = unsafe { attach_filter(tap.as_raw_fd(), ptr::from_ref(&program)) };
    attached.map_err(io::Error::from).expect("TUNATTACHFILTER");
}

/// Lets everything pass.
pub fn detach(tap: &Tap) {
    let program = MaybeUninit::<libc::sock_fprog>::zeroed();
    // SAFETY: the kernel does not look at it.
    let detached = unsafe { detach_filter(tap.as_raw_fd(), program.as_ptr()) };
    detached.map_err(io::Error::from).expect("TUNDETACHFILTER");
}
