//! A packet socket, as tcpdump opens one.

use std::{
    ffi::CString,
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// `ETH_P_ALL` in network byte order.
const EVERYTHING: u16 = 0x0003_u16.to_be();
#[expect(clippy::cast_possible_truncation, reason = "an address is short")]
const ADDRESS: libc::socklen_t = mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t;
/// The longest frame and some more.
const ROOM: usize = 70_000;

pub struct Sniffer {
    pub device: String,
    socket: OwnedFd,
}

impl Sniffer {
    /// At a device, or at all devices of the namespace if it has no name.
    pub fn open(device: &str) -> Self {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: the call takes three numbers. Of protocol 0, which hears nothing until it is bound.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        assert!(fd >= 0, "a packet socket: {}", io::Error::last_os_error());
        // SAFETY: the kernel has just opened this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let ifindex = if device.is_empty() { 0 } else { index(device) };
        let sniffer = Self {
            device: device.into(),
            socket,
        };
        let bound = sniffer.bind(EVERYTHING, ifindex);
        bound.unwrap_or_else(|error| panic!("bind to {device:?}: {error}"));
        sniffer
    }

    fn bind(&self, protocol: u16, ifindex: u32) -> io::Result<()> {
        let mut address = no_address();
        address.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex.cast_signed();
        // SAFETY: the kernel reads one address of the length that it is told.
        let bound = unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), ADDRESS) };
        if bound == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Sends a frame out of its device.
    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the kernel reads as many bytes as the frame has.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(
            usize::try_from(sent),
            Ok(frame.len()),
            "{}",
            io::Error::last_os_error()
        );
    }

    /// What it has heard by now: frames, and whether the host sent them.
    pub fn heard(&self) -> Vec<(bool, Vec<u8>)> {
        let mut heard = Vec::new();
        let mut buffer = vec![0; ROOM];
        loop {
            let mut from = no_address();
            let mut length = ADDRESS;
            // SAFETY: the kernel writes at most the bytes that there is room for, and one address.
            let received = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            let Ok(received) = usize::try_from(received) else {
                return heard;
            };
            heard.push((
                from.sll_pkttype == libc::PACKET_OUTGOING,
                buffer[..received].to_vec(),
            ));
        }
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        // Of protocol 0 it hears nothing, at once: closing is not enough, since a process that another thread is starting
        // has a copy of the descriptor until its exec.
        let _ = self.bind(0, 0);
    }
}

/// A device's index in the calling thread's network namespace.
pub fn index(device: &str) -> u32 {
    let name = CString::new(device).expect("a name");
    // SAFETY: the call reads a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "no device {device}");
    index
}

fn no_address() -> libc::sockaddr_ll {
    // SAFETY: all zeroes are a valid address.
    unsafe { mem::zeroed() }
}
