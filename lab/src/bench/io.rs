//! What a VMM does to its tap, and where bridges are pinned meanwhile.

use std::{io::IoSlice, os::fd::BorrowedFd};

use anyhow::{Context, Result};
use nix::sys::uio::writev;

use super::frame::Frame;

/// Where bridges are pinned.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Writes a frame as a VMM does that has header and frame in separate buffers.
pub fn write(port: BorrowedFd, frame: &Frame) -> Result<()> {
    let parts = [IoSlice::new(&frame.header), IoSlice::new(&frame.bytes)];
    writev(port, &parts).context("writing to a port")?;
    Ok(())
}
