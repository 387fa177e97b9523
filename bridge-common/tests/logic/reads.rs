//! No read outside the frame, whatever the bytes are.

use bridge_common::{
    checksum::{self, ChecksumAction},
    forwarding::netfilter,
    frame::{Ethernet, VlanTag},
};
use proptest::prelude::*;

use crate::{
    packet::{ADDRESSES, Ip, Shape, noise},
    watched::Watched,
};

/// Longer than any frame that runs native XDP.
const LONGEST: usize = 3500;

/// The longest header that is asked for in one piece, that of IPv6: no read ends further behind the frame than that.
const LONGEST_HEADER: usize = 40;

/// All that the programs do with a frame's bytes. [`Watched`] panics where they are summed past their end.
fn read_all(bytes: &[u8], metadata_tag: Option<VlanTag>) -> Option<ChecksumAction> {
    let frame = Watched::new(bytes);
    let length = u32::try_from(bytes.len()).unwrap();
    let ethernet = Ethernet::read(&frame, metadata_tag);
    if let Some(ethernet) = ethernet {
        // Whatever they say: they read no further.
        ethernet.tag_in_data(&frame);
        netfilter::keeps(&frame, ethernet.ethertype, length);
    }
    let action = ethernet.map(|ethernet| checksum::action(&frame, &ethernet, length));
    if let Some(ChecksumAction::Complete { offset, .. }) = action {
        assert!(offset as usize + 2 <= bytes.len(), "a checksum outside the frame");
    }
    assert!(
        frame.furthest() <= bytes.len() + LONGEST_HEADER,
        "{} bytes were asked for, of {}",
        frame.furthest(),
        bytes.len()
    );
    action
}

fn tags() -> impl Strategy<Value = Option<VlanTag>> {
    prop::option::of((prop::sample::select(vec![0x8100, 0x88a8]), any::<u16>()))
        .prop_map(|tag| tag.map(|(protocol, control)| VlanTag { protocol, control }))
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_never_read_outside_the_frame(
        bytes in prop::collection::vec(any::<u8>(), 0..=LONGEST),
        tag in tags(),
    ) {
        read_all(&bytes, tag);
    }

    /// Arbitrary bytes seldom get past the Ethernet header: these do.
    #[test]
    fn a_packet_with_some_bytes_changed_and_cut_anywhere_is_never_read_outside_the_frame(
        shape in prop::sample::select(Shape::all().collect::<Vec<_>>()),
        payload in 0..=LONGEST - 78,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        stated in prop::option::of(any::<u16>()),
        cut in any::<prop::sample::Index>(),
        whole: bool,
    ) {
        let packet = shape.build(ADDRESSES, &noise(payload));
        let mut bytes = packet.partial();
        if let Some(stated) = stated {
            let at = shape.network() + if shape.ip == Ip::V4 { 2 } else { 4 };
            bytes[at..at + 2].copy_from_slice(&stated.to_be_bytes());
        }
        for (at, byte) in changes {
            // Only the headers matter.
            bytes[at.index(shape.field() + 2)] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        read_all(&bytes, None);
    }
}

#[test]
fn a_packet_of_every_length_cut_at_every_byte_of_its_headers_is_never_read_outside() {
    for shape in Shape::all() {
        let packet = shape.build(ADDRESSES, &noise(40));
        for cut in 0..packet.bytes.len() {
            let action = read_all(&packet.partial()[..cut], None);
            let header = if cut < shape.network() {
                None
            } else {
                Some(ChecksumAction::Pass)
            };
            assert_eq!(action, header, "{shape:?} cut at {cut}");
        }
    }
}
