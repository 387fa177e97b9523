//! Bridges that filter VLANs: what is decided is what the kernel's own steps lead to, for every kind of frame, port and
//! membership.

use bridge_common::{
    Hook,
    forwarding::{
        Filtering, Membership, Options, PortVlan, Reason, Received, Retag, STATE_FORWARDING, Tables, Verdict,
        decide, port_flag,
    },
    frame::{ETHERTYPE_8021AD, ETHERTYPE_8021Q, VlanTag},
};

const SOURCE: u64 = 0x0200_0000_0052;
const DESTINATION: u64 = 0x0300_0000_0052;
const EXPERIMENT: u16 = 0x88b5;
const LEARNING: u8 = 2;

/// Two ports, numbered as their devices; the source is at the first and the destination at the second, in one VLAN.
#[derive(Clone, Debug)]
struct Bridge {
    options: Options,
    protocol: u16,
    pvid: PortVlan,
    /// VLANs of each port.
    members: [Vec<(u16, Membership)>; 2],
    /// The VLAN in which both addresses are known.
    known_in: u16,
}

impl Tables for Bridge {
    crate::tables::one_plain_bridge!();

    fn ingress(&self) -> Option<usize> {
        Some(0)
    }
    fn flags(&self, _: usize) -> u64 {
        port_flag::LEARNING
    }
    fn state(&self, _: usize) -> u8 {
        STATE_FORWARDING
    }
    fn options(&self, (): ()) -> Options {
        self.options
    }
    fn filtering(&self, _: Options) -> Filtering {
        Filtering::Nothing
    }
    fn vlan_protocol(&self, (): ()) -> u16 {
        self.protocol
    }
    fn port_vlan(&self, port: usize) -> PortVlan {
        assert_eq!(port, 0, "only a frame that comes in needs it");
        self.pvid
    }
    fn membership(&self, port: usize, vlan: u16) -> Option<Membership> {
        let mut members = self.members[port].iter();
        members
            .find(|(id, _)| *id == vlan)
            .map(|(_, membership)| *membership)
    }
    fn entry(&self, (): (), vlan: u16, address: u64) -> Option<usize> {
        match address {
            _ if vlan != self.known_in => None,
            SOURCE => Some(0),
            DESTINATION => Some(1),
            _ => None,
        }
    }
    fn entry_port(&self, entry: usize) -> Option<usize> {
        Some(entry)
    }
    fn is_fresh(&self, (): (), _: usize) -> bool {
        true
    }
    fn device(&self, port: usize) -> usize {
        port
    }
    fn index(&self, device: usize) -> u32 {
        u32::try_from(device).unwrap()
    }
    fn has_carrier(&self, _: usize) -> bool {
        true
    }
    fn native_obstacle(&self, _: usize) -> Option<Reason> {
        None
    }
}

fn filtering() -> Options {
    Options {
        vlan_filtering: true,
        ..Options::default()
    }
}

fn tag(protocol: u16, control: u16) -> VlanTag {
    VlanTag { protocol, control }
}

/// A frame with these tags, the outermost first.
fn received(tags: &[VlanTag]) -> Received {
    Received {
        destination: DESTINATION,
        source: SOURCE,
        ethertype: tags.get(1).map_or(EXPERIMENT, |inner| inner.protocol),
        tag: tags.first().copied(),
        length: 60,
        gso: false,
    }
}

/// With what tags the kernel sends a frame out of the second port; none if it does not, or does more than forward it.
fn kernel(bridge: &Bridge, tags: &[VlanTag]) -> Option<Vec<VlanTag>> {
    // `__allowed_ingress`: the tag in the metadata, and those that are content.
    let (mut own, mut content) = match tags {
        [outer, content @ ..] => (Some(*outer), content.to_vec()),
        [] => (None, Vec::new()),
    };
    if let Some(other) = own.filter(|tag| tag.protocol != bridge.protocol) {
        content.insert(0, other);
        own = None;
    }
    let mut vlan = own.map_or(0, |tag| tag.control & 0xfff);
    let state = if vlan == 0 {
        vlan = bridge.pvid.id;
        let control = own.map_or(0, |tag| tag.control) | vlan;
        own = Some(tag(bridge.protocol, control));
        if vlan == 0 {
            return None;
        }
        bridge.pvid.state
    } else {
        bridge.membership(0, vlan)?.state
    };
    if state != STATE_FORWARDING || vlan != bridge.known_in {
        return None;
    }
    // `br_allowed_egress`, `br_handle_vlan`
    let membership = bridge.membership(1, vlan)?;
    if membership.state != STATE_FORWARDING {
        return None;
    }
    Some(
        own.filter(|_| !membership.untagged)
            .into_iter()
            .chain(content)
            .collect(),
    )
}

/// What a frame is after the change, as the kernel's helpers make it.
fn changed(tags: &[VlanTag], retag: Retag) -> Vec<VlanTag> {
    let inner = || tags[1..].iter().copied();
    match retag {
        Retag::Keep => tags.to_vec(),
        Retag::Remove => inner().collect(),
        Retag::Add(tag) => [tag].into_iter().chain(tags.iter().copied()).collect(),
        Retag::Replace(tag) => [tag].into_iter().chain(inner()).collect(),
    }
}

fn frames() -> Vec<Vec<VlanTag>> {
    let mut frames = vec![Vec::new()];
    for protocol in [ETHERTYPE_8021Q, ETHERTYPE_8021AD] {
        // Without and with priority, of a VLAN and of none.
        for control in [0, 0xb000, 10, 0xf00a, 20, 4095] {
            let outer = tag(protocol, control);
            frames.push(vec![outer]);
            for inner in [ETHERTYPE_8021Q, ETHERTYPE_8021AD] {
                frames.push(vec![outer, tag(inner, 0x2007)]);
            }
        }
    }
    frames
}

fn bridges() -> Vec<Bridge> {
    let memberships = || {
        let mut all = vec![Vec::new()];
        for untagged in [false, true] {
            for state in [STATE_FORWARDING, LEARNING] {
                all.push(vec![(10, Membership { state, untagged })]);
            }
        }
        all
    };
    let mut bridges = Vec::new();
    for protocol in [ETHERTYPE_8021Q, ETHERTYPE_8021AD] {
        for (id, state) in [
            (0, STATE_FORWARDING),
            (10, STATE_FORWARDING),
            (10, LEARNING),
            (20, STATE_FORWARDING),
        ] {
            for first in memberships() {
                for second in memberships() {
                    for known_in in [0, 10, 20] {
                        bridges.push(Bridge {
                            options: filtering(),
                            protocol,
                            pvid: PortVlan { id, state },
                            members: [first.clone(), second.clone()],
                            known_in,
                        });
                    }
                }
            }
        }
    }
    bridges
}

#[test]
fn a_frame_leaves_with_the_tags_that_the_kernel_gives_it() {
    let mut carried = [0; 4];
    for bridge in bridges() {
        for tags in frames() {
            let expected = kernel(&bridge, &tags);
            let decided = Hook::ALL.map(|hook| decide(&bridge, &received(&tags), hook));
            for (hook, verdict) in Hook::ALL.into_iter().zip(decided) {
                let Verdict::Forward(to, retag) = verdict else {
                    continue;
                };
                let leaves = Some(changed(&tags, retag));
                assert_eq!((to, leaves), (1, expected.clone()), "{tags:?} {bridge:?}");
                assert!(matches!(hook, Hook::Tcx) || retag == Retag::Keep);
                carried[match retag {
                    Retag::Keep => 0,
                    Retag::Remove => 1,
                    Retag::Add(_) => 2,
                    Retag::Replace(_) => 3,
                }] += 1;
            }
            // What is left although the kernel forwards it, is left for what the hook can't do.
            let own = tags.first().is_none_or(|tag| tag.protocol == bridge.protocol);
            if let Some(expected) = expected
                && own
            {
                let same = expected == tags;
                let nothing_inside = tags.len() < 2;
                for (hook, verdict) in Hook::ALL.into_iter().zip(decided) {
                    let can = same || nothing_inside && matches!(hook, Hook::Tcx);
                    let forwards = matches!(verdict, Verdict::Forward(..));
                    assert_eq!(forwards, can, "{hook:?} {verdict:?} {tags:?} {bridge:?}");
                }
            }
        }
    }
    assert!(carried.iter().all(|count| *count > 0), "{carried:?}");
}

/// A bridge between an access port and a trunk.
fn access_to_trunk() -> Bridge {
    let membership = |untagged| Membership {
        state: STATE_FORWARDING,
        untagged,
    };
    Bridge {
        options: filtering(),
        protocol: ETHERTYPE_8021Q,
        pvid: PortVlan {
            id: 10,
            state: STATE_FORWARDING,
        },
        members: [vec![(10, membership(true))], vec![(10, membership(false))]],
        known_in: 10,
    }
}

#[test]
fn reasons_name_the_side_that_keeps_a_frame() {
    type Change = fn(&mut Bridge);
    let cases: &[(&str, Change, &[VlanTag], Hook, Verdict)] = &[
        (
            "a tag is added",
            |_| {},
            &[],
            Hook::Tcx,
            Verdict::Forward(1, Retag::Add(tag(ETHERTYPE_8021Q, 10))),
        ),
        (
            "which XDP leaves to tcx",
            |_| {},
            &[],
            Hook::Xdp,
            Verdict::Leave(Reason::VlanTag),
        ),
        (
            "no VLAN for frames without one",
            |bridge| bridge.pvid.id = 0,
            &[],
            Hook::Tcx,
            Verdict::Leave(Reason::VlanIngress),
        ),
        (
            "the source's port is no member",
            |bridge| bridge.members[0].clear(),
            &[tag(ETHERTYPE_8021Q, 10)],
            Hook::Tcx,
            Verdict::Leave(Reason::VlanIngress),
        ),
        (
            "the destination's port is no member",
            |bridge| bridge.members[1].clear(),
            &[],
            Hook::Tcx,
            Verdict::Leave(Reason::VlanEgress),
        ),
        (
            "the address is known in another VLAN",
            |bridge| bridge.known_in = 20,
            &[],
            Hook::Tcx,
            Verdict::Leave(Reason::DestinationUnknown),
        ),
        (
            "statistics of VLANs",
            |bridge| bridge.options.vlan_statistics = true,
            &[],
            Hook::Tcx,
            Verdict::Leave(Reason::VlanFiltering),
        ),
        (
            "statistics of VLANs are counted only by who filters",
            |bridge| {
                bridge.options.vlan_statistics = true;
                bridge.options.vlan_filtering = false;
                bridge.known_in = 0;
            },
            &[tag(ETHERTYPE_8021AD, 7)],
            Hook::Xdp,
            Verdict::Forward(1, Retag::Keep),
        ),
        (
            "spanning trees of VLANs",
            |bridge| bridge.options.mst = true,
            &[],
            Hook::Tcx,
            Verdict::Leave(Reason::VlanFiltering),
        ),
    ];
    for (description, change, tags, hook, verdict) in cases {
        let mut bridge = access_to_trunk();
        change(&mut bridge);
        assert_eq!(decide(&bridge, &received(tags), *hook), *verdict, "{description}");
    }
}
