//! A packet socket, as tcpdump opens one; it reads nothing.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// `ETH_P_ALL` in network byte order.
const EVERYTHING: u16 = 0x0003_u16.to_be();
#[expect(clippy::cast_possible_truncation, reason = "an address is short")]
const ADDRESS: libc::socklen_t = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;

/// At the device of this index, or at all devices of the namespace if it is 0, until it is closed.
pub fn listen(ifindex: u32) -> OwnedFd {
    // SAFETY: the call takes three numbers. Of protocol 0, which hears nothing until it is bound.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just opened this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeroes are a valid address.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
    address.sll_protocol = EVERYTHING;
    address.sll_ifindex = ifindex.cast_signed();
    // SAFETY: the kernel reads one address of the length that it is told.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS) };
    assert_eq!(bound, 0, "bind to {ifindex}: {}", io::Error::last_os_error());
    socket
}
