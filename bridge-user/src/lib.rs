//! The user side of `tapbridge`: it loads the programs, keeps the maps, and reads what they counted.
//!
//! Nothing here has to keep running: a bridge is a folder of pinned maps, programs and links in bpffs ([`state`]).
//! [`bridge`] opens and makes such a folder, [`attach`] and [`detach`] move ports in and out of it, [`fdb`],
//! [`show`], [`stats`] and [`monitor`] read it. [`run`] may run beside it, to fit hooks to traffic. [`syscalls`] has nothing to do with bridges: it counts what a VMM asks
//! of the kernel, and leaves nothing behind.

pub mod attach;
pub mod bridge;
pub mod btf;
pub mod detach;
pub mod error;
pub mod fastpath;
pub mod fdb;
mod journal;
pub mod kernel;
mod link;
pub mod monitor;
pub mod namespace;
pub mod netlink;
pub mod port;
pub mod problem;
pub mod run;
pub mod show;
pub mod state;
pub mod stats;
mod sys;
pub mod syscalls;
pub mod sysctl;
pub mod sysfs;
mod verifier;

pub use bridge_common as common;
pub use error::{Error, Result};

/// The switch's programs and maps, built for the kernel by the build script.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tapbridge.bpf.o"));

/// The fast path of Linux bridges, as above.
pub static FASTPATH_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fastpath.bpf.o"));

/// The counter of system calls, as above: an object of its own, since it has nothing of the switch's.
pub static SYSCALLS_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls.bpf.o"));
