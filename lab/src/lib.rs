//! Building blocks of a virtual machine lab on one Linux machine: tap devices held like a VMM holds them, and
//! network namespaces that vanish with their guard. The end-to-end tests and the `tapbridge-lab` binary share them.

mod net;

pub use net::{
    Entered, Error, Macvtap, Namespace, Offloads, PacketSocket, Result, Tap, VnetHeader, netns, pump, tap,
    vnet,
};
