//! What the kernel is asked with: netlink, bpf(2), its files, and its description of itself.

pub(crate) mod blob;
pub(crate) mod bpf;
pub mod btf;
pub(crate) mod ioctl;
pub(crate) mod link;
pub mod namespace;
pub mod netlink;
pub(crate) mod own_network;
pub(crate) mod process;
pub mod requirements;
pub(crate) mod ring;
pub(crate) mod sysctl;
pub mod sysfs;
pub(crate) mod verifier;
