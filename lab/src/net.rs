//! Devices and namespaces of the network.

mod error;
mod ioctl;
mod macvtap;
pub mod netns;
mod offloads;
mod packet;
pub mod pump;
mod rtnetlink;
pub mod tap;
pub mod vnet;

pub use error::{Error, Result};
pub use macvtap::Macvtap;
pub use netns::{Entered, Namespace};
pub use offloads::Offloads;
pub use packet::PacketSocket;
pub use tap::Tap;
pub use vnet::VnetHeader;
