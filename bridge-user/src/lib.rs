//! The user side of `tapbridge`: it loads the programs, keeps the maps, and reads what they counted.
//!
//! Nothing here has to keep running: what is attached is pinned in a folder of bpffs ([`state`], [`fastpath`]).
//! [`operations`] move the programs to ports of Linux bridges and off them, a [`snapshot`] is what there is at one moment,
//! and [`control`] may run beside it, to fit hooks to traffic. All of them ask the [`kernel`]. [`syscalls`] has nothing to do
//! with bridges: it counts what a VMM asks of the kernel, and leaves nothing behind.

pub mod control;
pub mod error;
pub mod fastpath;
pub mod kernel;
pub mod operations;
pub mod own_bridge;
pub mod port;
pub mod snapshot;
pub mod state;
pub mod syscalls;

pub use bridge_common as common;
pub use error::{Error, Result};

/// Version of the JSON that the commands print.
pub const SCHEMA: u32 = 2;

/// The programs at the ports of bridges, built for the kernel by the build script.
pub static FASTPATH_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fastpath.bpf.o"));

/// The counter of system calls, as above: an object of its own, since it has nothing of the bridge's.
pub static SYSCALLS_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls.bpf.o"));
