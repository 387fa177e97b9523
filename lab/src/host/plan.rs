//! Who is called what in the lab: namespaces, taps, addresses.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    process,
};

/// What the lab's namespaces start with; the process's id follows.
const PREFIX: &str = "tblab-";

/// The part that the host's namespace plays.
pub const HOST: &str = "host";

/// A namespace of the lab that process `pid` runs; `role` is [`HOST`] or a guest's name.
pub fn namespace(pid: u32, role: &str) -> String {
    format!("{PREFIX}{pid}-{role}")
}

/// The process whose lab a namespace of this name belongs to, and the namespace's role there.
pub fn owner(namespace: &str) -> Option<(u32, &str)> {
    let (pid, role) = namespace.strip_prefix(PREFIX)?.split_once('-')?;
    Some((pid.parse().ok()?, role))
}

/// The namespace of this process's lab for a role.
pub fn own_namespace(role: &str) -> String {
    namespace(process::id(), role)
}

/// A guest's place in the plan, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestId(pub u8);

impl GuestId {
    /// The guest's name.
    pub fn name(self) -> String {
        format!("guest{}", self.0)
    }

    /// The host's tap that leads to the guest.
    pub fn tap(self) -> String {
        format!("vm{}", self.0)
    }

    /// The MAC address of the guest's network card.
    pub fn mac(self) -> String {
        self.mac_bytes().map(|byte| format!("{byte:02x}")).join(":")
    }

    /// The same as it is in frames.
    pub fn mac_bytes(self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.0]
    }

    /// The guest's IPv4 address.
    pub fn ipv4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.0)
    }

    /// The guest's IPv6 address.
    pub fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(self.0))
    }
}

/// Networks of stations, of the addresses that are for measurements (RFC 2544).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StationNetwork {
    First,
    /// Behind a router.
    Second,
}

impl GuestId {
    /// The guest's IPv4 address as a station: no kernel of a guest has it.
    pub fn station(self, network: StationNetwork) -> Ipv4Addr {
        match network {
            StationNetwork::First => Ipv4Addr::new(198, 18, 0, self.0),
            StationNetwork::Second => Ipv4Addr::new(198, 19, 0, self.0),
        }
    }
}

/// Bits of the IPv4 network's prefix.
pub const IPV4_PREFIX: u8 = 24;
/// Bits of the IPv6 network's prefix.
pub const IPV6_PREFIX: u8 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_tells_whose_it_is() {
        assert_eq!(owner(&namespace(4321, HOST)), Some((4321, HOST)));
        assert_eq!(owner("tblab-host"), None);
        assert_eq!(owner("blue"), None);
    }
}
