//! What the tests share: a switch in a namespace of its own, frames, and what the kernel says of them.

pub mod bpf;
pub mod bpffs;
pub mod caller;
pub mod counting;
pub mod earlier;
pub mod end;
pub mod frames;
pub mod guest;
pub mod http;
pub mod linux_bridge;
pub mod load;
pub mod metrics;
pub mod running;
pub mod schema;
pub mod sniffer;
pub mod statistics;
pub mod steps;
pub mod switch;
pub mod text;
pub mod trace;
pub mod vhost_net;

pub use test_support::{program, random, wire};
