//! What holds of every decision.

use bridge_common::{
    counters::DropReason,
    decision::{Decision, Device, Received, Verdict, decide},
    fdb::{FdbEntry, FdbKey},
    frame::{Ethernet, VLAN_TAG, Vlan, VlanTag},
    mac::Mac,
    port::{Ingress, Port, flag},
};
use proptest::prelude::*;

use crate::{
    tables::{FakeDevice, FakeTables, untagged},
    watched::Watched,
};

/// Few enough of each that frames meet entries.
const SLOTS: u16 = 4;
const GENERATIONS: u32 = 3;

fn macs() -> impl Strategy<Value = Mac> {
    prop_oneof![
        8 => (0_u8..4).prop_map(|last| Mac([2, 0, 0, 0, 0, last])),
        1 => Just(Mac([0xff; 6])),
        1 => any::<[u8; 6]>().prop_map(Mac),
    ]
}

fn controls() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0), Just(0xe000), Just(5), Just(0x2005), any::<u16>()]
}

fn entries() -> impl Strategy<Value = FdbEntry> {
    let slots = prop_oneof![9 => 0..SLOTS, 1 => any::<u16>()];
    (any::<u64>(), 0..GENERATIONS, slots).prop_map(|(last_seen, generation, slot)| FdbEntry {
        last_seen,
        generation,
        slot,
        reserved: 0,
    })
}

fn ports() -> impl Strategy<Value = Port> {
    (0..GENERATIONS, prop::bool::weighted(0.8)).prop_map(|(generation, active)| Port {
        ifindex: 7,
        generation,
        flags: if active { flag::ACTIVE } else { 0 },
        ..Port::EMPTY
    })
}

fn devices() -> impl Strategy<Value = Option<FakeDevice>> {
    let up = || prop::bool::weighted(0.8);
    let mtu = prop::option::weighted(0.9, prop_oneof![Just(1500), 68_u32..=65_535]);
    let device = (up(), up(), mtu).prop_map(|(up, carrier, mtu)| FakeDevice {
        state: Device {
            up,
            carrier,
            queues: 1,
        },
        mtu,
    });
    prop::option::weighted(0.9, device)
}

fn tables() -> impl Strategy<Value = FakeTables> {
    let entries = || {
        let key = (macs(), controls(), any::<bool>());
        let key = key.prop_map(|(mac, control, service)| FdbKey {
            mac,
            vlan: Vlan::new(control, service),
        });
        prop::collection::btree_map(key, entries(), 0..16)
    };
    let ports = prop::collection::vec(ports(), usize::from(SLOTS));
    let devices = prop::collection::vec(devices(), usize::from(SLOTS));
    (entries(), entries(), ports, devices, any::<u64>()).prop_map(
        |(learned, statics, ports, devices, now)| FakeTables {
            learned,
            statics,
            ports,
            devices,
            now,
            ..FakeTables::default()
        },
    )
}

fn ingresses() -> impl Strategy<Value = Ingress> {
    (0..GENERATIONS, 0..u32::from(SLOTS)).prop_map(|(generation, slot)| Ingress { generation, slot })
}

/// A tagged frame as the wire has it.
fn wire(destination: Mac, source: Mac, tag: VlanTag, length: usize) -> Vec<u8> {
    let mut octets = [destination.0, source.0].concat();
    octets.extend(tag.protocol.to_be_bytes());
    octets.extend(tag.control.to_be_bytes());
    octets.extend([0x08, 0x00]);
    octets.resize(length.max(18), 0);
    octets
}

/// As the XDP program describes a frame to the decision.
fn seen_by_xdp(octets: &[u8], ingress: Ingress) -> Received {
    let ethernet = Ethernet::read(&Watched::new(octets), None);
    Received {
        ingress,
        ethernet,
        length: u32::try_from(octets.len()).unwrap(),
        gso: false,
    }
}

/// As the tcx program does, after the kernel has moved the tag into the skb's metadata (`skb_vlan_untag`).
fn seen_by_tcx(octets: &[u8], tag: VlanTag, ingress: Ingress) -> Received {
    let mut data = octets.to_vec();
    data.drain(12..12 + VLAN_TAG as usize);
    Received {
        ingress,
        ethernet: Ethernet::read(&Watched::new(&data), Some(tag)),
        length: u32::try_from(data.len()).unwrap(),
        gso: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_frame_goes_back_to_the_port_it_came_from(
        tables in tables(),
        ingress in ingresses(),
        destination in macs(),
        source in macs(),
        length in 60_usize..2000,
        ageing: u64,
        gso: bool,
    ) {
        let tag = VlanTag { protocol: 0x8100, control: 0 };
        let received = Received { gso, ..seen_by_xdp(&wire(destination, source, tag, length), ingress) };
        let decision = decide(&tables, &received, ageing);
        if let Verdict::Forward { slot, port, .. } = decision.verdict {
            prop_assert_ne!(slot, ingress.slot);
            // Nor to anything but an active port whose device is up.
            prop_assert_eq!(port, tables.ports[slot as usize]);
            prop_assert!(port.has(flag::ACTIVE));
            let device = tables.devices[slot as usize].unwrap();
            prop_assert!(device.state.up && device.state.carrier);
            let fits = device.mtu.is_none_or(|mtu| received.length <= mtu + 18);
            prop_assert!(gso || fits);
        }
        // The hooks count these themselves.
        let own = [DropReason::IngressDown, DropReason::NoOtherPort];
        prop_assert!(!own.map(Verdict::Drop).contains(&decision.verdict));
    }

    /// The verdict can't depend on the hook: `decide` has no argument that says which one asks, its tables answer
    /// both hooks from the same maps, and where the tag lies is gone once the header is read, as this proves. Only for
    /// a frame that is too long by its tag alone XDP says no, and so leaves it to tcx.
    #[test]
    fn both_hooks_come_to_the_same_decision(
        tables in tables(),
        ingress in ingresses(),
        destination in macs(),
        source in macs(),
        protocol in prop::sample::select(vec![0x8100, 0x88a8]),
        control in controls(),
        length in 18_usize..2000,
        ageing: u64,
    ) {
        let _: fn(&FakeTables, &Received, u64) -> Decision = decide;
        let tag = VlanTag { protocol, control };
        let octets = wire(destination, source, tag, length);
        let xdp = decide(&tables, &seen_by_xdp(&octets, ingress), ageing);
        let tcx = decide(&tables, &seen_by_tcx(&octets, tag, ingress), ageing);
        if xdp.verdict != Verdict::Drop(DropReason::EgressMtu) {
            prop_assert_eq!(xdp, tcx);
        }
    }

    /// What is remembered is only where the destination is: the ports and devices are looked at for every frame.
    #[test]
    fn a_frame_whose_flow_is_remembered_goes_where_one_whose_flow_is_not_goes(
        tables in tables(),
        changed in tables(),
        ingress in ingresses(),
        location in (0..SLOTS, 0..GENERATIONS),
        length in 60_usize..2000,
        ageing: u64,
        is_static: bool,
    ) {
        let (source, destination) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let mut tables = tables;
        let entry = |slot, generation| FdbEntry { last_seen: tables.now, generation, slot, reserved: 0 };
        let (known, own) = (
            entry(location.0, location.1),
            entry(u16::try_from(ingress.slot).unwrap(), ingress.generation),
        );
        let [source_key, destination_key] = [source, destination].map(untagged);
        tables.learned.insert(source_key, own);
        if is_static {
            tables.learned.remove(&destination_key);
            tables.statics.insert(destination_key, known);
        } else {
            tables.learned.insert(destination_key, known);
        }
        let tag = VlanTag { protocol: 0x8100, control: 0 };
        let received = seen_by_xdp(&wire(destination, source, tag, length), ingress);
        decide(&tables, &received, ageing);
        prop_assert!(tables.recent.get().is_some(), "not remembered");
        tables.ports = changed.ports;
        tables.devices = changed.devices;
        let recalled = decide(&tables, &received, ageing);
        tables.recent.set(None);
        prop_assert_eq!(recalled, decide(&tables, &received, ageing));
    }
}
