//! The user side of `tapbridge`: it loads the programs, keeps the maps, and reads what they counted.
//!
//! Nothing here has to keep running: what is attached is pinned in a folder of bpffs ([`state`], [`fastpath`]). [`attach`]
//! and [`detach`] move the programs to ports of Linux bridges and off them, [`show`], [`stats`] and [`fdb`] read what there
//! is. [`run`] may run beside it, to fit hooks to traffic. [`syscalls`] has nothing to do with bridges: it counts what a VMM
//! asks of the kernel, and leaves nothing behind.

pub mod attach;
pub mod btf;
pub mod detach;
pub mod error;
pub mod fastpath;
pub mod fdb;
mod ioctl;
pub mod kernel;
mod link;
pub mod namespace;
pub mod netlink;
pub mod own_bridge;
pub mod port;
pub mod problem;
pub mod run;
pub mod show;
pub mod state;
pub mod stats;
mod sys;
pub mod syscalls;
mod sysctl;
pub mod sysfs;
mod verifier;

pub use bridge_common as common;
pub use error::{Error, Result};

/// Version of the JSON that the commands print.
pub const SCHEMA: u32 = 2;

/// The programs at the ports of bridges, built for the kernel by the build script.
pub static FASTPATH_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fastpath.bpf.o"));

/// The counter of system calls, as above: an object of its own, since it has nothing of the bridge's.
pub static SYSCALLS_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls.bpf.o"));
