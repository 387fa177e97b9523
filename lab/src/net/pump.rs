//! The frame pump: it stands in for the VMM of a guest whose network card is a second tap.
//!
//! A VMM without vhost copies frames between the guest's rings and the host's tap, in an event loop. Here the guest
//! is a network namespace, its card is the tap `g0` in there, and the copying is the same: the system calls on the
//! host's tap are those of QEMU's main loop.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{time::TimeSpec, uio::writev},
    unistd::read,
};
use serde::{Deserialize, Serialize};

use crate::net::vnet::VnetHeader;

/// QEMU's `tap_send` hands 50 frames to the guest, then lets the rest of its event loop have a turn.
pub const BURST: u32 = 50;
/// QEMU's `NET_BUFSIZE`, 68 KiB, holds the longest frame: 65,550 bytes and the header.
pub const BUFFER: usize = 68 * 1024;
/// How late a stop may be noticed when no frame comes.
const TICK: Duration = Duration::from_secs(1);

/// What a pump has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// From the guest to the host's tap.
    pub to_host: Direction,
    /// From the host's tap to the guest.
    pub to_guest: Direction,
    /// Calls of `ppoll`.
    pub ppoll: u64,
}

/// Frames that went one way, and the system calls that took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Frames delivered.
    pub frames: u64,
    /// Their bytes, without the `virtio_net_hdr`.
    pub bytes: u64,
    /// Frames that the receiving tap refused.
    pub dropped: u64,
    /// Calls of `read`, also those that found no frame.
    pub read: u64,
    /// Calls of `writev`: one per frame, delivered or dropped.
    pub writev: u64,
}

/// Copies frames between two non-blocking taps until `stopped` says so, which it is asked at least once a second.
///
/// # Errors
///
/// When a tap is gone.
pub fn run(host: impl AsFd, guest: impl AsFd, stopped: impl Fn() -> bool) -> io::Result<Report> {
    let (host, guest) = (host.as_fd(), guest.as_fd());
    let mut fds = [host, guest].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let mut buffer = vec![0; BUFFER];
    let mut report = Report::default();
    while !stopped() {
        report.ppoll += 1;
        match ppoll(&mut fds, Some(TimeSpec::from_duration(TICK)), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        }
        // An error counts as ready too: the read then says which.
        let [host_ready, guest_ready] = fds.each_ref().map(|fd| fd.any() != Some(false));
        if host_ready {
            copy_burst(host, guest, &mut buffer, &mut report.to_guest)?;
        }
        if guest_ready {
            copy_burst(guest, host, &mut buffer, &mut report.to_host)?;
        }
    }
    Ok(report)
}

/// Copies what one tap has to say, but not more than a burst.
fn copy_burst(
    from: BorrowedFd,
    to: BorrowedFd,
    buffer: &mut [u8],
    direction: &mut Direction,
) -> io::Result<()> {
    for _ in 0..BURST {
        direction.read += 1;
        let length = match read(from, buffer) {
            Ok(length) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (header, frame) = buffer[..length].split_at(VnetHeader::LEN);
        direction.writev += 1;
        match writev(to, &[IoSlice::new(header), IoSlice::new(frame)]) {
            Ok(_) => {
                direction.frames += 1;
                direction.bytes += frame.len() as u64;
            }
            Err(Errno::EBADFD) => return Err(Errno::EBADFD.into()),
            // QEMU drops such a frame as well. Only at EAGAIN it waits until it may write, but a tap whose send
            // buffer is unlimited never says that.
            Err(_) => direction.dropped += 1,
        }
    }
    Ok(())
}
