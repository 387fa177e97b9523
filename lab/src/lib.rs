//! Building blocks of a virtual machine lab on one Linux machine: tap devices held like a VMM holds them, and
//! network namespaces that vanish with their guard. The end-to-end tests and the `tapbridge-lab` binary share them.

mod error;
mod ioctl;
mod macvtap;
pub mod netns;
mod offloads;
pub mod pump;
mod rtnetlink;
pub mod tap;
pub mod vnet;

pub use error::{Error, Result};
pub use macvtap::Macvtap;
pub use netns::{Entered, Namespace};
pub use offloads::Offloads;
pub use tap::Tap;
pub use vnet::VnetHeader;
