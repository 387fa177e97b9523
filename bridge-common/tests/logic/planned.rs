//! What is planned for a packet, and what should be.

use bridge_common::{
    checksum::{self, Plan},
    frame::Ethernet,
};

use crate::{
    packet::Packet,
    watched::{Sums, Watched},
};

impl Packet {
    /// What the plan must be when the checksum is to be completed.
    pub fn store(&self) -> Plan {
        Plan::Store {
            offset: u32::try_from(self.shape.field()).expect("a short offset"),
            checksum: self.checksum(),
        }
    }
}

/// The plan for a frame, which must not depend on how the kernel leaves its sums.
pub fn plan(octets: &[u8]) -> Plan {
    let [unfolded, folded] =
        Sums::ALL.map(|sums| plan_of(&Watched::new(octets).with_sums(sums), octets.len()));
    assert_eq!(unfolded, folded, "sums of 32 bits and of 16 bits");
    unfolded
}

/// The plan for a frame that is watched.
pub fn plan_of(frame: &Watched<'_>, length: usize) -> Plan {
    let ethernet = Ethernet::read(frame, None).expect("a whole Ethernet header");
    checksum::plan(frame, &ethernet, u32::try_from(length).expect("a short frame"))
}
