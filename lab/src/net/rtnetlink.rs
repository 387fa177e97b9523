//! The one rtnetlink request the library needs: removing an interface.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

const HEADER: usize = 16;
const LINK: usize = 16;

/// A socket onto the interfaces of the calling thread's namespace; it stays with that namespace.
pub fn open() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkRoute,
    )?)
}

/// Removes an interface, like `ip link delete`; done when this returns.
pub fn delete_interface(socket: impl AsFd, ifindex: u32) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_fd();
    send(socket, &delete_request(ifindex), MsgFlags::empty())?;
    // The answer is one NLMSG_ERROR: a header, then 0 or a negative errno.
    let mut answer = [0; 512];
    let read = recv(socket, &mut answer, MsgFlags::empty())?;
    match answer[..read].get(HEADER..).and_then(<[u8]>::first_chunk) {
        Some(&errno) if i32::from_ne_bytes(errno) == 0 => Ok(()),
        Some(&errno) => Err(io::Error::from_raw_os_error(-i32::from_ne_bytes(errno))),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// `struct nlmsghdr` and `struct ifinfomsg`.
fn delete_request(ifindex: u32) -> [u8; HEADER + LINK] {
    let mut request = [0; HEADER + LINK];
    let length = u32::try_from(request.len()).expect("32");
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK).expect("5");
    request[..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_DELLINK.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[HEADER + 4..HEADER + 8].copy_from_slice(&ifindex.to_ne_bytes());
    request
}
