//! What is done about a packet's checksum, and what should be.

use bridge_common::{
    checksum::{self, ChecksumAction},
    frame::Ethernet,
};

use crate::{
    packet::Packet,
    watched::{Sums, Watched},
};

impl Packet {
    /// What the action must be when the checksum is to be completed.
    pub fn completed(&self) -> ChecksumAction {
        ChecksumAction::Complete {
            offset: u32::try_from(self.shape.field()).expect("a short offset"),
            checksum: self.checksum(),
        }
    }
}

/// The action for a frame, which must not depend on how the kernel leaves its sums.
pub fn action(bytes: &[u8]) -> ChecksumAction {
    let [unfolded, folded] =
        Sums::ALL.map(|sums| action_of(&Watched::new(bytes).with_sums(sums), bytes.len()));
    assert_eq!(unfolded, folded, "sums of 32 bits and of 16 bits");
    unfolded
}

/// The action for a frame that is watched.
pub fn action_of(frame: &Watched<'_>, length: usize) -> ChecksumAction {
    let ethernet = Ethernet::read(frame, None).expect("a whole Ethernet header");
    checksum::action(frame, &ethernet, u32::try_from(length).expect("a short frame"))
}
