//! The Ethernet header, with its tag in the data as XDP sees it and in the metadata as tcx does.

use bridge_common::{
    frame::{ETHERNET_HEADER, ETHERTYPE_8021AD, ETHERTYPE_8021Q, Ethernet, VLAN_TAG, VlanTag},
    mac::Mac,
};
use proptest::prelude::*;

use crate::watched::Watched;

const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];

fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = ADDRESSES.to_vec();
    bytes.extend(parts.concat());
    bytes
}

fn read(bytes: &[u8], tag: Option<VlanTag>) -> Option<Ethernet> {
    Ethernet::read(&Watched::new(bytes), tag)
}

#[test]
fn an_untagged_header_is_read_as_it_stands() {
    let bytes = frame(&[&[0x08, 0x00], b"payload"]);
    let expected = Ethernet {
        destination: Mac([2, 0, 0, 0, 0, 2]),
        source: Mac([2, 0, 0, 0, 0, 1]),
        ethertype: 0x0800,
        payload: 14,
    };
    assert_eq!(read(&bytes, None), Some(expected));
}

#[test]
fn behind_a_tag_is_the_ethertype_and_then_the_payload() {
    for protocol in [ETHERTYPE_8021Q, ETHERTYPE_8021AD] {
        let bytes = frame(&[&protocol.to_be_bytes(), &[0xf0, 42], &[0x86, 0xdd], b"payload"]);
        let ethernet = read(&bytes, None).unwrap();
        assert_eq!((ethernet.ethertype, ethernet.payload), (0x86dd, 18));
        let tag = ethernet.tag_in_data(&Watched::new(&bytes)).unwrap();
        assert_eq!((tag.protocol, tag.control), (protocol, 0xf02a));
        // Priority 7 and the drop eligibility bit are no part of the identifier.
        assert_eq!(tag.id(), 42);
    }
}

#[test]
fn only_the_outermost_tag_is_read() {
    let tags: &[&[u8]] = &[&[0x88, 0xa8, 0, 5], &[0x81, 0x00, 0, 6], &[0x08, 0x00]];
    let bytes = frame(tags);
    let in_data = read(&bytes, None).unwrap();
    assert_eq!(in_data.ethertype, ETHERTYPE_8021Q);
    let outer = VlanTag {
        protocol: ETHERTYPE_8021AD,
        control: 5,
    };
    assert_eq!(in_data.tag_in_data(&Watched::new(&bytes)), Some(outer));
    let bytes = frame(&tags[1..]);
    let in_metadata = read(&bytes, Some(outer)).unwrap();
    assert_eq!(
        (in_metadata.ethertype, in_metadata.payload),
        (ETHERTYPE_8021Q, 14)
    );
    assert_eq!(in_metadata.tag_in_data(&Watched::new(&bytes)), None);
}

#[test]
fn a_header_that_is_cut_is_none() {
    let untagged = frame(&[&[0x08, 0x00]]);
    for length in 0..14 {
        assert_eq!(read(&untagged[..length], None), None, "{length} bytes");
    }
    assert!(read(&untagged, None).is_some());
    for protocol in [ETHERTYPE_8021Q, ETHERTYPE_8021AD] {
        let tagged = frame(&[&protocol.to_be_bytes(), &[0, 42], &[0x08, 0x00]]);
        for length in 0..18 {
            assert_eq!(
                read(&tagged[..length], None),
                None,
                "{length} bytes, {protocol:#x}"
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
    /// The same frame as XDP sees it and as tcx does, so both decide alike.
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
