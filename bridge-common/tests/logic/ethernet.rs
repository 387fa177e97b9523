//! The Ethernet header, with its tag in the data as XDP sees it and in the metadata as tcx does.

use bridge_common::{
    frame::{ETHERNET_HEADER, ETHERTYPE_8021AD, ETHERTYPE_8021Q, Ethernet, VLAN_TAG, Vlan, VlanTag},
    mac::Mac,
};
use proptest::prelude::*;

use crate::watched::Watched;

const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let mut octets = ADDRESSES.to_vec();
    octets.extend(parts.concat());
    octets
}

fn read(octets: &[u8], tag: Option<VlanTag>) -> Option<Ethernet> {
    Ethernet::read(&Watched::new(octets), tag)
}

#[test]
fn an_untagged_header_is_read_as_it_stands() {
    let octets = frame(&[&[0x08, 0x00], b"payload"]);
    let expected = Ethernet {
        destination: Mac([2, 0, 0, 0, 0, 2]),
        source: Mac([2, 0, 0, 0, 0, 1]),
        vlan: Vlan(0),
        ethertype: 0x0800,
        payload: 14,
    };
    assert_eq!(read(&octets, None), Some(expected));
    assert_eq!(expected.source_key().mac, expected.source);
    assert_eq!(expected.destination_key().mac, expected.destination);
}

#[test]
fn a_tag_gives_its_domain_and_the_ethertype_behind_it() {
    for (protocol, service) in [(ETHERTYPE_8021Q, false), (ETHERTYPE_8021AD, true)] {
        // Priority 7 and the drop eligibility bit are no part of the domain.
        let octets = frame(&[&protocol.to_be_bytes(), &[0xf0, 42], &[0x86, 0xdd], b"payload"]);
        let ethernet = read(&octets, None).unwrap();
        assert_eq!(ethernet.vlan, Vlan::new(42, service));
        assert_eq!(ethernet.vlan.identifier(), 42);
        assert_eq!(ethernet.vlan.is_service(), service);
        assert_eq!((ethernet.ethertype, ethernet.payload), (0x86dd, 18));
        assert_eq!(ethernet.source_key().vlan, ethernet.vlan);
        assert_eq!(ethernet.destination_key().vlan, ethernet.vlan);
    }
}

#[test]
fn a_frame_with_identifier_zero_is_in_the_untagged_domain() {
    for protocol in [ETHERTYPE_8021Q, ETHERTYPE_8021AD] {
        let octets = frame(&[&protocol.to_be_bytes(), &[0xe0, 0], &[0x08, 0x00]]);
        assert_eq!(read(&octets, None).unwrap().vlan, Vlan(0));
        let tag = VlanTag {
            protocol,
            control: 0xe000,
        };
        let untagged = frame(&[&[0x08, 0x00]]);
        assert_eq!(read(&untagged, Some(tag)).unwrap().vlan, Vlan(0));
    }
}

#[test]
fn customer_and_service_tags_of_one_identifier_are_two_domains() {
    assert_ne!(Vlan::new(42, false), Vlan::new(42, true));
    assert_eq!(Vlan::new(0, true), Vlan::new(0, false));
    assert_eq!(Vlan::new(4095, true).identifier(), 4095);
}

#[test]
fn only_the_outermost_tag_counts() {
    let tags: &[&[u8]] = &[&[0x88, 0xa8, 0, 5], &[0x81, 0x00, 0, 6], &[0x08, 0x00]];
    let in_data = read(&frame(tags), None).unwrap();
    assert_eq!(
        (in_data.vlan, in_data.ethertype),
        (Vlan::new(5, true), ETHERTYPE_8021Q)
    );
    let outer = VlanTag {
        protocol: ETHERTYPE_8021AD,
        control: 5,
    };
    let in_metadata = read(&frame(&tags[1..]), Some(outer)).unwrap();
    assert_eq!(in_metadata.vlan, in_data.vlan);
    assert_eq!(in_metadata.ethertype, in_data.ethertype);
}

#[test]
fn a_header_that_is_cut_is_none() {
    let untagged = frame(&[&[0x08, 0x00]]);
    for length in 0..14 {
        assert_eq!(read(&untagged[..length], None), None, "{length} octets");
    }
    assert!(read(&untagged, None).is_some());
    for protocol in [ETHERTYPE_8021Q, ETHERTYPE_8021AD] {
        let tagged = frame(&[&protocol.to_be_bytes(), &[0, 42], &[0x08, 0x00]]);
        for length in 0..18 {
            assert_eq!(
                read(&tagged[..length], None),
                None,
                "{length} octets, {protocol:#x}"
            );
        }
        assert!(read(&tagged, None).is_some());
        // With the tag in the metadata the data need no more than 14.
        let tag = VlanTag {
            protocol,
            control: 42,
        };
        assert!(read(&untagged, Some(tag)).is_some());
        assert_eq!(read(&untagged[..13], Some(tag)), None);
    }
}

proptest! {
    /// The same frame as XDP sees it and as tcx does, so both look it up under the same key.
    #[test]
    fn a_tag_in_the_data_and_one_in_the_metadata_are_read_alike(
        addresses: [u8; 12],
        protocol in prop::sample::select(vec![ETHERTYPE_8021Q, ETHERTYPE_8021AD]),
        control: u16,
        ethertype: u16,
    ) {
        let inner = [&addresses[..], &ethertype.to_be_bytes()].concat();
        let tag = [protocol.to_be_bytes(), control.to_be_bytes()].concat();
        let outer = [&addresses[..], &tag, &ethertype.to_be_bytes()].concat();
        let in_data = read(&outer, None).unwrap();
        let in_metadata = read(&inner, Some(VlanTag { protocol, control })).unwrap();
        prop_assert_eq!(in_metadata.payload, ETHERNET_HEADER);
        prop_assert_eq!(in_data, Ethernet { payload: ETHERNET_HEADER + VLAN_TAG, ..in_metadata });
    }
}
