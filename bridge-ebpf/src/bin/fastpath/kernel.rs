//! Linux bridges as they lie in the kernel's memory. Programs run under RCU, so whatever they find there is not freed
//! while they look at it.

mod bridge;
mod device;
mod fdb;
mod hash_table;
pub mod memory;
mod netfilter;
mod tables;
mod task;
mod vlan;

pub use self::{
    device::{Device, is_steered},
    tables::{Asks, Kernel},
    task::is_from_vhost,
};
