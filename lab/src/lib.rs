//! Building blocks of a virtual machine lab on one Linux machine: tap devices held like a VMM holds them, and
//! network namespaces that vanish with their guard. The end-to-end tests and the `tapbridge-lab` binary share them.

mod error;
mod ioctl;
pub mod netns;
pub mod pump;
mod rtnetlink;
pub mod tap;
pub mod vnet;

pub use error::{Error, Result};
pub use netns::{Entered, Namespace};
pub use tap::{Offloads, Tap};
pub use vnet::VnetHeader;
