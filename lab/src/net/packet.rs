//! A network card's frames as they are on it, by a packet socket: how a program in a guest generates them.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};

use super::{
    error::{Context, Result},
    ioctl,
};

/// An open packet socket, without blocking: whole Ethernet frames, with nothing before them.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens one for an interface of the calling thread's network namespace. It gets what the interface receives, and
    /// nothing of what others send by it.
    pub fn open(interface: &str) -> Result<Self> {
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        );
        let socket = socket
            .map_err(io::Error::from)
            .context(interface, "packet socket")?;
        let index = ioctl::interface_index(&socket, interface).context(interface, "SIOCGIFINDEX")?;
        ignore_outgoing(&socket).context(interface, "PACKET_IGNORE_OUTGOING")?;
        bind(&socket, index).context(interface, "bind a packet socket")?;
        // What came from other interfaces before it was bound to this one.
        drain(&socket).context(interface, "read a packet socket")?;
        Ok(Self(socket))
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn ignore_outgoing(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).expect("an int is short");
    // SAFETY: the kernel reads one int, which lives across the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            length,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let narrow = |number: libc::c_int| u16::try_from(number).expect("the kernel's constants fit a short");
    let address = libc::sockaddr_ll {
        sll_family: narrow(libc::AF_PACKET),
        sll_protocol: narrow(libc::ETH_P_ALL).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = libc::socklen_t::try_from(size_of_val(&address)).expect("an address is short");
    // SAFETY: the kernel reads one `struct sockaddr_ll` of this length, which lives across the call.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    Ok(Errno::result(result).map(drop)?)
}

fn drain(socket: &OwnedFd) -> io::Result<()> {
    loop {
        match nix::unistd::read(socket, &mut [0]) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}
