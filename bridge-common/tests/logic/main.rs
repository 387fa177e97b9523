//! The programs' logic on the host: the same functions that both programs run in the kernel.

mod adaptive;
mod checksum;
mod ethernet;
mod forwarding_vlan;
mod left_to_tcx;
mod packet;
mod planned;
mod reads;
mod tunnels;
mod watched;
