/// Why a hook left a frame to what comes behind it: tcx to the bridge, XDP to tcx.
///
/// As wide as a register: a narrower one would be widened where a verdict may hold something else, which the verifier
/// refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Reason {
    /// The frame ends before its Ethernet header does.
    TooShort = 0,
    /// It is for a group: the bridge floods it, or delivers it to members.
    Group = 1,
    /// Its source is a group or zero: the bridge drops it (`is_valid_ether_addr`).
    InvalidSource = 2,
    /// ARP, RARP, MRP or CFM, which the bridge may answer itself.
    Protocol = 3,
    /// The device is no port of a bridge now.
    NotAPort = 4,
    /// The port is not forwarding: down, or held by spanning tree.
    IngressState = 5,
    /// One of the two ports maps VLANs to tunnels, is offloaded, or has a flag that is not known here.
    PortFlags = 6,
    /// The bridge counts frames by VLAN, or runs spanning trees of groups of VLANs.
    VlanFiltering = 7,
    /// `ICMPv6`, and the bridge answers neighbour solicitations itself.
    NeighSuppress = 8,
    /// The bridge's device is promiscuous: the host gets a copy.
    Promiscuous = 9,
    /// Rules look at bridged frames, of nftables, ebtables or, where `br_netfilter` calls them, of IP.
    BridgeFilter = 10,
    /// Netfilter's ingress hook is taken at the port.
    IngressHook = 11,
    /// Traffic control has a filter or a program of its own at the port's ingress.
    IngressFilter = 12,
    /// It is tagged, and VLAN devices on the port get tagged frames before the bridge.
    VlanDevice = 13,
    /// The source is not in the forwarding database: the bridge learns it.
    SourceUnknown = 14,
    /// The source is known at another port: the bridge moves it, or not.
    SourceElsewhere = 15,
    /// The source's entry is the bridge's own, locked, or watched for activity.
    SourceFlags = 16,
    /// The bridge has not seen the source for a second, or a quarter of its ageing time, and shall see it now.
    SourceRefresh = 17,
    /// The destination is not in the forwarding database: the bridge floods the frame.
    DestinationUnknown = 18,
    /// It is for the host.
    Host = 19,
    /// The destination is at the port that the frame came in by.
    SamePort = 20,
    /// The destination's port is not forwarding.
    EgressState = 21,
    /// Both ports are isolated.
    Isolated = 22,
    /// The destination's device has no carrier: nobody reads the tap, or a backup port stands in.
    EgressNoCarrier = 23,
    /// The frame is longer than the destination's MTU allows and is not GSO.
    EgressMtu = 24,
    /// Netfilter's egress hook is taken at the destination's device.
    EgressHook = 25,
    /// `br_netfilter` itself would drop the frame, cut something off it or fragment it.
    Header = 26,

    // What bridges ask that filter VLANs.
    /// The port is no member of the frame's VLAN, which includes that it has none for frames without a tag; or it holds
    /// the VLAN in another state than forwarding; or the tag is not of the bridge's protocol.
    VlanIngress = 27,
    /// The destination's port is no member of the frame's VLAN, or holds it in another state than forwarding.
    VlanEgress = 28,

    // What XDP alone asks; tcx carries these, but for a tag behind which another one lies.
    /// XDP met an skb: GSO, longer than a page has room for, or written as native XDP does not take it
    /// (`tun_can_build_skb`).
    Generic = 29,
    /// The destination's device takes no native frames.
    Target = 30,
    /// Traffic control has a filter or program at the destination's egress, or its holder has given a tap one: a native
    /// redirect passes it by.
    EgressFilter = 31,
    /// The destination's queueing discipline queues or shapes.
    Queueing = 32,
    /// A packet socket (tcpdump) listens at one of the two devices, or at all.
    PacketSocket = 33,
    /// The frame does not prove that it is complete without its metadata.
    Checksum = 34,
    /// vhost-net sent it, in a batch in which a native redirect is overtaken.
    VhostNet = 35,
    /// The destination has several queues, among which a native redirect chooses otherwise.
    TargetQueues = 36,
    /// Receive packet steering is set at the port.
    Steering = 37,
    /// The tag has to change, which this hook can't do: XDP never, tcx where another tag lies behind it.
    VlanTag = 38,
}

/// Bytes of the longest name.
pub const NAME_BYTES: usize = 19;

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 39] = [
        Self::TooShort,
        Self::Group,
        Self::InvalidSource,
        Self::Protocol,
        Self::NotAPort,
        Self::IngressState,
        Self::PortFlags,
        Self::VlanFiltering,
        Self::NeighSuppress,
        Self::Promiscuous,
        Self::BridgeFilter,
        Self::IngressHook,
        Self::IngressFilter,
        Self::VlanDevice,
        Self::SourceUnknown,
        Self::SourceElsewhere,
        Self::SourceFlags,
        Self::SourceRefresh,
        Self::DestinationUnknown,
        Self::Host,
        Self::SamePort,
        Self::EgressState,
        Self::Isolated,
        Self::EgressNoCarrier,
        Self::EgressMtu,
        Self::EgressHook,
        Self::Header,
        Self::VlanIngress,
        Self::VlanEgress,
        Self::Generic,
        Self::Target,
        Self::EgressFilter,
        Self::Queueing,
        Self::PacketSocket,
        Self::Checksum,
        Self::VhostNet,
        Self::TargetQueues,
        Self::Steering,
        Self::VlanTag,
    ];

    /// Whether only XDP asks for it: tcx carries such frames.
    pub const fn is_of_xdp_alone(self) -> bool {
        Self::is_number_of_xdp_alone(self as u32)
    }

    /// Whether only XDP asks for the reason of this number.
    #[inline(always)]
    pub(super) const fn is_number_of_xdp_alone(number: u32) -> bool {
        number >= Self::Generic as u32 && number <= Self::VlanTag as u32
    }

    /// Whether, as long as it is there, no frame of the port goes past the bridge, of the reason of this number.
    #[inline(always)]
    pub const fn stops_port(number: u32) -> bool {
        const STOPS: u64 = 1 << Reason::NotAPort as u64
            | 1 << Reason::IngressState as u64
            | 1 << Reason::VlanFiltering as u64
            | 1 << Reason::Promiscuous as u64
            | 1 << Reason::BridgeFilter as u64
            | 1 << Reason::IngressHook as u64
            | 1 << Reason::IngressFilter as u64;
        STOPS >> (number & 63) & 1 != 0
    }

    /// Whether it lies with the port that received the frame, with the destination or with the VLAN alone, so that the next
    /// frame of which these are the same meets it too.
    pub const fn is_cacheable(self) -> bool {
        !matches!(
            self,
            Self::TooShort
                | Self::Group
                | Self::InvalidSource
                | Self::Protocol
                | Self::NeighSuppress
                | Self::SourceUnknown
                | Self::SourceElsewhere
                | Self::SourceFlags
                | Self::SourceRefresh
                | Self::EgressMtu
                | Self::Header
                | Self::Generic
                | Self::Checksum
                | Self::VhostNet
        )
    }

    /// The names by number, filled up with spaces.
    pub const fn padded_names() -> [[u8; NAME_BYTES]; Self::COUNT] {
        let mut names = [[b' '; NAME_BYTES]; Self::COUNT];
        let mut number = 0;
        while number < Self::COUNT {
            let name = Self::ALL[number].name().as_bytes();
            names[number].split_at_mut(name.len()).0.copy_from_slice(name);
            number += 1;
        }
        names
    }

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::Group => "group",
            Self::InvalidSource => "invalid_source",
            Self::Protocol => "protocol",
            Self::NotAPort => "not_a_port",
            Self::IngressState => "ingress_state",
            Self::PortFlags => "port_flags",
            Self::VlanFiltering => "vlan_filtering",
            Self::NeighSuppress => "neigh_suppress",
            Self::Promiscuous => "promiscuous",
            Self::BridgeFilter => "bridge_filter",
            Self::IngressHook => "ingress_hook",
            Self::IngressFilter => "ingress_filter",
            Self::VlanDevice => "vlan_device",
            Self::SourceUnknown => "source_unknown",
            Self::SourceElsewhere => "source_elsewhere",
            Self::SourceFlags => "source_flags",
            Self::SourceRefresh => "source_refresh",
            Self::DestinationUnknown => "destination_unknown",
            Self::Host => "host",
            Self::SamePort => "same_port",
            Self::EgressState => "egress_state",
            Self::Isolated => "isolated",
            Self::EgressNoCarrier => "egress_no_carrier",
            Self::EgressMtu => "egress_mtu",
            Self::EgressHook => "egress_hook",
            Self::Header => "netfilter_header",
            Self::VlanIngress => "vlan_ingress",
            Self::VlanEgress => "vlan_egress",
            Self::Generic => "generic",
            Self::Target => "target",
            Self::EgressFilter => "egress_filter",
            Self::Queueing => "queueing",
            Self::PacketSocket => "packet_socket",
            Self::Checksum => "checksum",
            Self::VhostNet => "vhost_net",
            Self::TargetQueues => "target_queues",
            Self::Steering => "rps",
            Self::VlanTag => "vlan_tag",
        }
    }
}

/// Fails for a reason unless all is fine.
#[inline(always)]
pub(super) fn check(fine: bool, reason: Reason) -> Result<(), Reason> {
    if fine { Ok(()) } else { Err(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_at_its_own_index() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
    }
}
