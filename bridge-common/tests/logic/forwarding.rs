//! Every answer that keeps a frame from going past the bridge does so by itself, and has its reason.

use bridge_common::{
    Hook,
    forwarding::{
        EntryFlags, Filtering, Membership, Options, PortVlan, Reason, Received, Retag, STATE_FORWARDING,
        Tables, Verdict, decide, port_flag,
    },
    frame::{ETHERTYPE_8021Q, VlanTag},
};

const SOURCE: u64 = 0x0200_0000_0052;
const DESTINATION: u64 = 0x0300_0000_0052;
const BLOCKING: u8 = 4;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// What a forwarding database says of an address.
#[derive(Clone, Copy)]
struct Entry {
    port: Option<usize>,
    flags: EntryFlags,
}

/// Two ports, numbered as their devices; the source is at the first and the destination at the second.
#[expect(clippy::struct_excessive_bools, reason = "each is one answer of the kernel")]
struct World {
    ingress: Option<usize>,
    flags: [u64; 2],
    states: [u8; 2],
    options: Options,
    filtering: Filtering,
    bypass: [bool; 2],
    kept_by_netfilter: bool,
    icmpv6: bool,
    vlan_devices: bool,
    ingress_hook: bool,
    ingress_filter: bool,
    searchable: bool,
    source: Option<Entry>,
    destination: Option<Entry>,
    fresh: bool,
    carrier: bool,
    mtu: u32,
    egress_hook: bool,
    native_obstacle: Option<Reason>,
}

impl World {
    /// Nothing is in the way.
    fn new() -> Self {
        let entry = |port| {
            Some(Entry {
                port: Some(port),
                flags: EntryFlags::default(),
            })
        };
        Self {
            ingress: Some(0),
            flags: [port_flag::LEARNING; 2],
            states: [STATE_FORWARDING; 2],
            options: Options::default(),
            filtering: Filtering::Nothing,
            bypass: [false; 2],
            kept_by_netfilter: true,
            icmpv6: false,
            vlan_devices: false,
            ingress_hook: false,
            ingress_filter: false,
            searchable: true,
            source: entry(0),
            destination: entry(1),
            fresh: true,
            carrier: true,
            mtu: 1500,
            egress_hook: false,
            native_obstacle: None,
        }
    }

    fn source(&mut self) -> &mut Entry {
        self.source.as_mut().expect("known")
    }

    fn destination(&mut self) -> &mut Entry {
        self.destination.as_mut().expect("known")
    }
}

impl Tables for World {
    type Port = usize;
    type Bridge = ();
    type Database = ();
    type Entry = Entry;
    type Device = usize;

    fn ingress(&self) -> Option<usize> {
        self.ingress
    }
    fn flags(&self, port: usize) -> u64 {
        self.flags[port]
    }
    fn state(&self, port: usize) -> u8 {
        self.states[port]
    }
    fn bridge(&self, _: usize) {}
    fn options(&self, (): ()) -> Options {
        self.options
    }
    fn filtering(&self, _: Options) -> Filtering {
        self.filtering
    }
    fn bypasses_netfilter(&self, device: usize) -> bool {
        self.bypass[device]
    }
    fn is_kept_by_netfilter(&self, _: &Received) -> bool {
        self.kept_by_netfilter
    }
    fn may_be_icmpv6(&self) -> bool {
        self.icmpv6
    }
    fn has_vlan_devices(&self) -> bool {
        self.vlan_devices
    }
    fn has_ingress_hook(&self) -> bool {
        self.ingress_hook
    }
    fn has_ingress_filter(&self) -> bool {
        self.ingress_filter
    }
    fn vlan_protocol(&self, (): ()) -> u16 {
        ETHERTYPE_8021Q
    }
    /// An access port, whose frames leave by the other one with a tag.
    fn port_vlan(&self, _: usize) -> PortVlan {
        PortVlan {
            id: 10,
            state: STATE_FORWARDING,
        }
    }
    fn membership(&self, port: usize, vlan: u16) -> Option<Membership> {
        (vlan == 10).then_some(Membership {
            state: STATE_FORWARDING,
            untagged: port == 0,
        })
    }
    fn database(&self, (): ()) -> Option<()> {
        self.searchable.then_some(())
    }
    fn entry(&self, (): (), _: u16, address: u64) -> Option<Entry> {
        match address {
            SOURCE => self.source,
            DESTINATION => self.destination,
            _ => None,
        }
    }
    fn entry_flags(&self, entry: Entry) -> EntryFlags {
        entry.flags
    }
    fn entry_port(&self, entry: Entry) -> Option<usize> {
        entry.port
    }
    fn is_fresh(&self, (): (), _: Entry) -> bool {
        self.fresh
    }
    fn device(&self, port: usize) -> usize {
        port
    }
    fn index(&self, device: usize) -> u32 {
        u32::try_from(device).unwrap()
    }
    fn has_carrier(&self, _: usize) -> bool {
        self.carrier
    }
    fn mtu(&self, _: usize) -> u32 {
        self.mtu
    }
    fn has_egress_hook(&self, _: usize) -> bool {
        self.egress_hook
    }
    fn native_obstacle(&self, _: usize) -> Option<Reason> {
        self.native_obstacle
    }
}

const FRAME: Received = Received {
    destination: DESTINATION,
    source: SOURCE,
    ethertype: IPV4,
    tag: None,
    length: 1514,
    gso: false,
};

const TAGGED: Received = Received {
    tag: Some(VlanTag {
        protocol: ETHERTYPE_8021Q,
        control: 10,
    }),
    ..FRAME
};

/// What is different from where nothing is in the way: one thing, or those that belong together.
type Change = fn(&mut World);
type Case = (Reason, Change, Received);

const fn of_ethertype(ethertype: u16) -> Received {
    Received { ethertype, ..FRAME }
}

const CASES: &[Case] = &[
    (
        Reason::Group,
        |_| {},
        Received {
            destination: DESTINATION | 1,
            ..FRAME
        },
    ),
    (
        Reason::InvalidSource,
        |_| {},
        Received {
            source: SOURCE | 1,
            ..FRAME
        },
    ),
    (Reason::InvalidSource, |_| {}, Received { source: 0, ..FRAME }),
    (Reason::Protocol, |_| {}, of_ethertype(0x0806)),
    (Reason::Protocol, |_| {}, of_ethertype(0x8035)),
    (Reason::Protocol, |_| {}, of_ethertype(0x88e3)),
    (Reason::Protocol, |_| {}, of_ethertype(0x8902)),
    (Reason::NotAPort, |world| world.ingress = None, FRAME),
    (Reason::IngressState, |world| world.states[0] = BLOCKING, FRAME),
    (
        Reason::PortFlags,
        |world| world.flags[0] |= port_flag::VLAN_TUNNEL,
        FRAME,
    ),
    (
        Reason::PortFlags,
        |world| world.flags[0] |= port_flag::UNKNOWN,
        FRAME,
    ),
    (Reason::VlanFiltering, |world| world.options.mst = true, FRAME),
    (
        Reason::VlanFiltering,
        |world| {
            world.options.vlan_filtering = true;
            world.options.vlan_statistics = true;
        },
        TAGGED,
    ),
    (
        Reason::NeighSuppress,
        |world| {
            world.options.neigh_suppress = true;
            world.icmpv6 = true;
        },
        of_ethertype(IPV6),
    ),
    (
        Reason::Promiscuous,
        |world| world.options.promiscuous = true,
        FRAME,
    ),
    (
        Reason::DestinationUnknown,
        |world| world.searchable = false,
        FRAME,
    ),
    (
        Reason::DestinationUnknown,
        |world| world.destination = None,
        FRAME,
    ),
    (
        Reason::Host,
        |world| world.destination().flags.local = true,
        FRAME,
    ),
    (Reason::Host, |world| world.destination().port = None, FRAME),
    (
        Reason::SamePort,
        |world| world.destination().port = Some(0),
        FRAME,
    ),
    (
        Reason::Header,
        |world| {
            world.filtering = Filtering::Headers;
            world.kept_by_netfilter = false;
        },
        FRAME,
    ),
    (
        Reason::Header,
        |world| world.filtering = Filtering::Headers,
        TAGGED,
    ),
    (
        Reason::Header,
        |world| {
            world.filtering = Filtering::Headers;
            world.mtu = 1499;
        },
        FRAME,
    ),
    (
        Reason::BridgeFilter,
        |world| world.filtering = Filtering::Rules,
        FRAME,
    ),
    (
        Reason::BridgeFilter,
        |world| {
            world.filtering = Filtering::Rules;
            world.bypass[0] = true;
        },
        FRAME,
    ),
    (
        Reason::BridgeFilter,
        |world| {
            world.filtering = Filtering::Headers;
            world.bypass[0] = true;
        },
        FRAME,
    ),
    (Reason::IngressHook, |world| world.ingress_hook = true, FRAME),
    (Reason::IngressFilter, |world| world.ingress_filter = true, FRAME),
    (Reason::VlanDevice, |world| world.vlan_devices = true, TAGGED),
    (Reason::SourceUnknown, |world| world.source = None, FRAME),
    (
        Reason::SourceUnknown,
        |world| {
            world.flags[0] = port_flag::LOCKED;
            world.source = None;
        },
        FRAME,
    ),
    (
        Reason::SourceElsewhere,
        |world| world.source().port = Some(1),
        FRAME,
    ),
    (Reason::SourceElsewhere, |world| world.source().port = None, FRAME),
    (
        Reason::SourceFlags,
        |world| world.source().flags.local = true,
        FRAME,
    ),
    (
        Reason::SourceFlags,
        |world| world.source().flags.locked = true,
        FRAME,
    ),
    (
        Reason::SourceFlags,
        |world| world.source().flags.notify_inactive = true,
        FRAME,
    ),
    (Reason::SourceRefresh, |world| world.fresh = false, FRAME),
    (Reason::EgressState, |world| world.states[1] = BLOCKING, FRAME),
    (
        Reason::Isolated,
        |world| world.flags = [port_flag::LEARNING | port_flag::ISOLATED; 2],
        FRAME,
    ),
    (
        Reason::PortFlags,
        |world| world.flags[1] |= port_flag::VLAN_TUNNEL,
        FRAME,
    ),
    (
        Reason::PortFlags,
        |world| world.flags[1] |= port_flag::TX_FORWARD_OFFLOAD,
        FRAME,
    ),
    (
        Reason::PortFlags,
        |world| world.flags[1] |= port_flag::UNKNOWN,
        FRAME,
    ),
    (Reason::EgressNoCarrier, |world| world.carrier = false, FRAME),
    (Reason::EgressMtu, |world| world.mtu = 1400, FRAME),
    (Reason::EgressHook, |world| world.egress_hook = true, FRAME),
];

#[test]
fn each_answer_in_the_way_is_the_reason() {
    for (number, (reason, change, received)) in CASES.iter().enumerate() {
        let mut world = World::new();
        change(&mut world);
        for hook in Hook::ALL {
            let verdict = decide(&world, received, hook);
            assert_eq!(verdict, Verdict::Leave(*reason), "case {number}, {hook:?}");
        }
    }
}

#[test]
fn what_is_left_to_the_other_hook_is_no_reason_for_it() {
    let mut world = World::new();
    world.native_obstacle = Some(Reason::Queueing);
    let [xdp, tcx] = [Hook::Xdp, Hook::Tcx].map(|hook| decide(&world, &FRAME, hook));
    assert_eq!(xdp, Verdict::Leave(Reason::Queueing));
    assert_eq!(tcx, Verdict::Forward(1, Retag::Keep));

    let mut world = World::new();
    world.options.vlan_filtering = true;
    let [xdp, tcx] = [Hook::Xdp, Hook::Tcx].map(|hook| decide(&world, &FRAME, hook));
    assert_eq!(xdp, Verdict::Leave(Reason::VlanTag));
    assert!(matches!(tcx, Verdict::Forward(1, Retag::Add(_))), "{tcx:?}");
    // What netfilter calls for frames that leave, it may call for one with another tag.
    world.filtering = Filtering::Headers;
    let tcx = decide(&world, &FRAME, Hook::Tcx);
    assert_eq!(tcx, Verdict::Leave(Reason::Header));
}

#[test]
fn what_would_be_in_the_way_of_others_is_not_in_that_of_this_one() {
    let cases: [(&str, Change, Received); 13] = [
        ("nothing", |_| {}, FRAME),
        ("a tag of no VLAN device", |_| {}, TAGGED),
        (
            "VLAN devices, without a tag",
            |world| world.vlan_devices = true,
            FRAME,
        ),
        (
            "statistics of VLANs that nobody filters",
            |world| world.options.vlan_statistics = true,
            FRAME,
        ),
        (
            "suppression, of other IPv6",
            |world| world.options.neigh_suppress = true,
            of_ethertype(IPV6),
        ),
        (
            "suppression, of IPv4",
            |world| {
                world.options.neigh_suppress = true;
                world.icmpv6 = true;
            },
            FRAME,
        ),
        (
            "one isolated port",
            |world| world.flags[1] |= port_flag::ISOLATED,
            FRAME,
        ),
        (
            "a header that is kept",
            |world| world.filtering = Filtering::Headers,
            FRAME,
        ),
        (
            "rules that both ports pass by",
            |world| {
                world.filtering = Filtering::Rules;
                world.bypass = [true; 2];
            },
            FRAME,
        ),
        (
            "a header that both ports pass by",
            |world| {
                world.filtering = Filtering::Headers;
                world.kept_by_netfilter = false;
                world.bypass = [true; 2];
            },
            FRAME,
        ),
        (
            "a source that a port does not learn",
            |world| {
                world.flags[0] = 0;
                world.source = None;
            },
            FRAME,
        ),
        (
            "a locked port that does not learn refreshes nothing",
            |world| {
                world.flags[0] = port_flag::LOCKED;
                world.fresh = false;
            },
            FRAME,
        ),
        (
            "segments that are cut later",
            |world| world.mtu = 1400,
            Received {
                gso: true,
                length: 64_000,
                ..FRAME
            },
        ),
    ];
    for (description, change, received) in cases {
        let mut world = World::new();
        change(&mut world);
        for hook in Hook::ALL {
            let verdict = decide(&world, &received, hook);
            assert_eq!(verdict, Verdict::Forward(1, Retag::Keep), "{description}");
        }
    }
}
