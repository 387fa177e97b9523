//! The programs' logic on the host: the same functions that both programs run in the kernel.

mod checksum;
mod checksum_action;
mod ethernet;
mod forwarding;
mod forwarding_vlan;
mod hook_policy;
mod negative_cache;
mod packet;
mod reads;
mod tables;
mod tunnels;
mod watched;
mod xdp_pass;
