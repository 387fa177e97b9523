//! A port that is no tap: a device that leads out of the host, as a network card does. It is one end of a veth; a packet
//! socket at the other end is the network.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use lab::{Namespace, VnetHeader};
use nix::{libc, net::if_::if_nametoindex};

use crate::testbed::datapath::ip;

/// The port.
pub const NAME: &str = "uplink";
/// The other end. That it is in the same namespace costs every datapath the same.
const OUTSIDE: &str = "outside";

// Options of packet sockets (include/uapi/linux/if_packet.h).
const QDISC_BYPASS: libc::c_int = 20;
const IGNORE_OUTGOING: libc::c_int = 23;
const HEADER_SIZE: libc::c_int = 24;

/// What is written here the port receives, and what it transmits is read here: frames behind a header, as at a tap.
pub struct Uplink(OwnedFd);

impl Uplink {
    /// Makes the port in a namespace, up.
    pub fn make(host: &Namespace) -> Result<Self> {
        ip(
            host,
            &["link", "add", NAME, "type", "veth", "peer", "name", OUTSIDE],
        )?;
        for end in [NAME, OUTSIDE] {
            ip(host, &["link", "set", "dev", end, "up"])?;
        }
        let socket = host.run(open).context("opening a packet socket")?;
        Ok(Self(socket))
    }
}

impl AsFd for Uplink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A packet socket at the other end.
fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes three numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor, for nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let header = libc::c_int::try_from(VnetHeader::LEN).map_err(io::Error::other)?;
    for (option, value) in [(QDISC_BYPASS, 1), (IGNORE_OUTGOING, 1), (HEADER_SIZE, header)] {
        let size = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
        // SAFETY: the kernel reads one integer.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const value).cast(),
                size,
            )
        };
        check(result)?;
    }
    let index = if_nametoindex(OUTSIDE)?;
    // SAFETY: all zeroes are a valid `struct sockaddr_ll`.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be();
    address.sll_ifindex = index.cast_signed();
    let size = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the kernel reads one `struct sockaddr_ll`.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) })?;
    Ok(socket)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
