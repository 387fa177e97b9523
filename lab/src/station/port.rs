//! Where a station's frames go in and out.

use std::{
    io::{self, IoSlice},
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
};

use lab::{Macvtap, PacketSocket, Tap, VnetHeader};
use nix::{errno::Errno, sys::uio::writev, unistd::read};

/// The host's end of a card, as a VMM holds it, or the guest's. It never blocks.
pub enum Port {
    Tap(Tap),
    Macvtap(Macvtap),
    Socket(PacketSocket),
}

/// Of a complete frame.
const HEADER: [u8; VnetHeader::LEN] = [0; VnetHeader::LEN];

impl Port {
    /// Bytes before the frame.
    fn header(&self) -> &'static [u8] {
        match self {
            Self::Tap(_) | Self::Macvtap(_) => &HEADER,
            Self::Socket(_) => &[],
        }
    }

    /// Sends a frame with one system call, as QEMU does; false if there is no room for it now.
    pub fn send(&self, frame: &[u8]) -> io::Result<bool> {
        loop {
            match writev(self.as_fd(), &[IoSlice::new(self.header()), IoSlice::new(frame)]) {
                Ok(_) => return Ok(true),
                Err(Errno::EAGAIN | Errno::ENOBUFS) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives a frame, if there is one, to that part of a buffer.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Range<usize>>> {
        loop {
            match read(self.as_fd(), &mut *buffer) {
                Ok(length) => return Ok(Some(self.header().len().min(length)..length)),
                Err(Errno::EAGAIN) => return Ok(None),
                // The card was down for a moment.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tap(tap) => tap.as_fd(),
            Self::Macvtap(macvtap) => macvtap.as_fd(),
            Self::Socket(socket) => socket.as_fd(),
        }
    }
}
