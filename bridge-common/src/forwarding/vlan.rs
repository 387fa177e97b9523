//! VLANs of a bridge that filters them: which one a frame belongs to, whether both ports are members, and with what tag
//! it leaves.

use super::{
    reason::{Reason, check},
    tables::{Received, STATE_FORWARDING, Tables},
};
use crate::frame::{ETHERTYPE_8021AD, ETHERTYPE_8021Q, VlanTag};

/// What becomes of a frame's outermost tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retag {
    /// It stays, or there is none.
    Keep,
    /// It is taken off.
    Remove,
    /// The frame gets this one.
    Add(VlanTag),
    /// This one takes its place.
    Replace(VlanTag),
}

/// A frame's VLAN, and the EtherType of the bridge's tags.
#[derive(Clone, Copy)]
pub(super) struct Vlan {
    pub id: u16,
    protocol: u16,
}

impl Vlan {
    /// Without filtering every frame belongs to one domain, and its tag is only content.
    pub const NONE: Self = Self { id: 0, protocol: 0 };

    /// That of a frame which a port receives (`__allowed_ingress`). A tag of another protocol is content to the bridge,
    /// which puts its own before it.
    #[inline(always)]
    pub fn of<T: Tables>(
        tables: &T,
        port: T::Port,
        bridge: T::Bridge,
        received: &Received,
    ) -> Result<Self, Reason> {
        let protocol = tables.vlan_protocol(bridge);
        let mut id = 0;
        if let Some(tag) = received.tag {
            check(tag.protocol == protocol, Reason::VlanIngress)?;
            id = tag.id();
        }
        let state = if id == 0 {
            let own = tables.port_vlan(port);
            check(own.id != 0, Reason::VlanIngress)?;
            id = own.id;
            own.state
        } else {
            let membership = tables.membership(port, id);
            membership.ok_or(Reason::VlanIngress)?.state
        };
        check(state == STATE_FORWARDING, Reason::VlanIngress)?;
        Ok(Self { id, protocol })
    }

    /// What becomes of the frame's tag where it leaves (`br_allowed_egress`, `br_handle_vlan`).
    #[inline(always)]
    pub fn leave<T: Tables>(self, tables: &T, target: T::Port, received: &Received) -> Result<Retag, Reason> {
        let membership = tables.membership(target, self.id).ok_or(Reason::VlanEgress)?;
        check(membership.state == STATE_FORWARDING, Reason::VlanEgress)?;
        let own = VlanTag {
            protocol: self.protocol,
            control: self.id,
        };
        let retag = match received.tag {
            None if membership.untagged => return Ok(Retag::Keep),
            None => return Ok(Retag::Add(own)),
            Some(_) if membership.untagged => Retag::Remove,
            Some(tag) if tag.id() == self.id => return Ok(Retag::Keep),
            // A priority tag keeps its priority.
            Some(tag) => Retag::Replace(VlanTag {
                control: tag.control | self.id,
                ..own
            }),
        };
        // Behind the tag is another one, which the kernel's helper would move into the metadata.
        let inner = matches!(received.ethertype, ETHERTYPE_8021Q | ETHERTYPE_8021AD);
        check(!inner, Reason::VlanTag)?;
        Ok(retag)
    }
}
