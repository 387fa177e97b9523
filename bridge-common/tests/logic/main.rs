//! The switch's logic on the host: the same functions that both programs run in the kernel.

mod adaptive;
mod checksum;
mod decision;
mod ethernet;
mod fdb;
mod forwarding_vlan;
mod left_to_tcx;
mod packet;
mod planned;
mod reads;
mod tables;
mod tunnels;
mod watched;
