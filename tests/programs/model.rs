//! What a bridge's tables should say, kept beside the bridge: the decision over this model is what the programs must
//! make of the tables that they read in the kernel's memory.

use std::collections::BTreeMap;

use tapbridge::common::{
    Hook,
    forwarding::{
        EntryFlags, Filtering, Membership, Options, PortVlan, Reason, Received, STATE_FORWARDING, Tables,
        Verdict, decide, port_flag,
    },
    frame::{ETHERTYPE_8021AD, ETHERTYPE_8021Q, VlanTag},
    mac::Mac,
};

use crate::rig::{BRIDGE, STATIONS, TAPS};

/// A tap and the port that it is.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something of its own that an administrator does"
)]
pub struct Port {
    pub ifindex: u32,
    /// Whether it is a port of the bridge.
    pub enslaved: bool,
    pub up: bool,
    pub mtu: u32,
    pub state: u8,
    pub learning: bool,
    pub isolated: bool,
    /// Somebody else's program at its ingress.
    pub ingress_filter: bool,
    /// And at its egress.
    pub egress_filter: bool,
    /// A rule of netfilter at its ingress.
    pub ingress_hook: bool,
    /// A discipline that shapes what leaves by it.
    pub shaper: bool,
}

impl Port {
    /// As it is when it becomes a port.
    pub fn join(&mut self) {
        self.enslaved = true;
        self.state = if self.up { STATE_FORWARDING } else { 0 };
        self.learning = true;
        self.isolated = false;
    }
}

#[derive(Clone, Debug)]
pub struct Model {
    pub ports: [Port; TAPS],
    /// Where addresses are; nowhere, if they are the bridge's own.
    pub entries: BTreeMap<Mac, Option<usize>>,
    pub promiscuous: bool,
    /// A rule of netfilter for bridges.
    pub rule: bool,
}

impl Model {
    pub fn new(ifindexes: [u32; TAPS]) -> Self {
        let ports = ifindexes.map(|ifindex| Port {
            ifindex,
            enslaved: true,
            up: true,
            mtu: 1500,
            state: STATE_FORWARDING,
            learning: true,
            isolated: false,
            ingress_filter: false,
            egress_filter: false,
            ingress_hook: false,
            shaper: false,
        });
        let stations = (0..TAPS).map(|number| (STATIONS[number], Some(number)));
        Self {
            ports,
            entries: stations.chain([(BRIDGE, None)]).collect(),
            promiscuous: false,
            rule: false,
        }
    }

    /// What a program must make of a frame that a tap receives.
    pub fn verdict(&self, from: usize, frame: &[u8], hook: Hook) -> Verdict {
        decide(&Seen { model: self, from }, &received(frame), hook)
    }
}

fn received(frame: &[u8]) -> Received {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let address = |at: usize| Mac(frame[at..at + 6].try_into().expect("6 bytes")).to_bits();
    let tagged = matches!(word(12), ETHERTYPE_8021Q | ETHERTYPE_8021AD);
    Received {
        destination: address(0),
        source: address(6),
        ethertype: word(if tagged { 16 } else { 12 }),
        tag: tagged.then(|| VlanTag {
            protocol: word(12),
            control: word(14),
        }),
        length: u32::try_from(frame.len()).expect("a short frame"),
        gso: false,
    }
}

/// The model from where a frame comes in.
struct Seen<'model> {
    model: &'model Model,
    from: usize,
}

impl Seen<'_> {
    fn ingress_port(&self) -> &Port {
        &self.model.ports[self.from]
    }
}

/// Ports and devices are the taps' numbers, entries are addresses. What the model's bridge never has is never so.
impl Tables for Seen<'_> {
    type Port = usize;
    /// There is one.
    type Bridge = ();
    type Database = ();
    type Entry = Mac;
    type Device = usize;

    fn ingress(&self) -> Option<usize> {
        self.ingress_port().enslaved.then_some(self.from)
    }

    fn flags(&self, port: usize) -> u64 {
        let port = &self.model.ports[port];
        let flag = |set: bool, flag: u64| if set { flag } else { 0 };
        flag(port.learning, port_flag::LEARNING) | flag(port.isolated, port_flag::ISOLATED)
    }

    fn state(&self, port: usize) -> u8 {
        self.model.ports[port].state
    }

    fn bridge(&self, _: usize) {}

    fn options(&self, (): ()) -> Options {
        Options {
            promiscuous: self.model.promiscuous,
            ..Options::default()
        }
    }

    fn filtering(&self, _: Options) -> Filtering {
        if self.model.rule {
            Filtering::Rules
        } else {
            Filtering::Nothing
        }
    }

    fn bypasses_netfilter(&self, _: usize) -> bool {
        false
    }

    fn is_kept_by_netfilter(&self, _: &Received) -> bool {
        unreachable!("br_netfilter calls nothing")
    }

    fn may_be_icmpv6(&self) -> bool {
        unreachable!("the bridge answers no solicitations")
    }

    fn has_vlan_devices(&self) -> bool {
        false
    }

    fn has_ingress_hook(&self) -> bool {
        self.ingress_port().ingress_hook
    }

    fn has_ingress_filter(&self) -> bool {
        self.ingress_port().ingress_filter
    }

    fn vlan_protocol(&self, (): ()) -> u16 {
        unreachable!("the bridge filters no VLANs")
    }

    fn port_vlan(&self, _: usize) -> PortVlan {
        unreachable!("the bridge filters no VLANs")
    }

    fn membership(&self, _: usize, _: u16) -> Option<Membership> {
        unreachable!("the bridge filters no VLANs")
    }

    fn database(&self, (): ()) -> Option<()> {
        Some(())
    }

    fn entry(&self, (): (), vlan: u16, address: u64) -> Option<Mac> {
        assert_eq!(vlan, 0);
        let mac = Mac::from_bits(address);
        self.model.entries.contains_key(&mac).then_some(mac)
    }

    fn entry_flags(&self, entry: Mac) -> EntryFlags {
        EntryFlags {
            local: self.model.entries[&entry].is_none(),
            ..EntryFlags::default()
        }
    }

    fn entry_port(&self, entry: Mac) -> Option<usize> {
        self.model.entries[&entry]
    }

    fn is_fresh(&self, (): (), _: Mac) -> bool {
        true
    }

    fn device(&self, port: usize) -> usize {
        port
    }

    fn index(&self, device: usize) -> u32 {
        self.model.ports[device].ifindex
    }

    fn has_carrier(&self, _: usize) -> bool {
        true
    }

    fn mtu(&self, device: usize) -> u32 {
        self.model.ports[device].mtu
    }

    fn has_egress_hook(&self, _: usize) -> bool {
        false
    }

    fn native_obstacle(&self, device: usize) -> Option<Reason> {
        let target = &self.model.ports[device];
        if target.egress_filter {
            Some(Reason::EgressFilter)
        } else if target.shaper {
            Some(Reason::Queueing)
        } else {
            None
        }
    }
}
