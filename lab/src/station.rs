//! Stations: guests that are nothing but generators and receivers of frames, as with DPDK or pktgen in the guest. A
//! station beside the lab holds the host's tap as a VMM does; one in a virtual machine has the card's packet socket.

mod act;
pub mod frame;
pub mod orders;
mod port;
pub mod task;
pub mod times;

pub use act::Station;
pub use port::Port;
