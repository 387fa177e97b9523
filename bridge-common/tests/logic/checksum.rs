//! Frames whose checksum field shows what it holds: native XDP completes or keeps it.

use bridge_common::checksum::ChecksumAction;
use proptest::prelude::*;

use crate::{
    checksum_action::{action, action_of},
    packet::{ADDRESSES, Ip, Packet, Shape, Transport, noise, with_checksum},
    watched::Watched,
};

/// Longer than any frame that runs native XDP (about 3456 bytes).
const LONGEST_PAYLOAD: usize = 3300;

fn shapes() -> impl Strategy<Value = Shape> {
    prop::sample::select(Shape::all().collect::<Vec<_>>())
}

fn of_transport(transport: Transport) -> impl Iterator<Item = Shape> {
    Shape::all().filter(move |shape| shape.transport == transport)
}

#[test]
fn a_partial_checksum_of_every_length_is_completed_as_etherparse_does() {
    for shape in Shape::all() {
        for length in 0..=LONGEST_PAYLOAD {
            let packet = shape.build(ADDRESSES, &noise(length));
            assert_eq!(
                action(&packet.partial()),
                packet.completed(),
                "{shape:?}, payload of {length}"
            );
        }
    }
}

proptest! {
    #[test]
    fn a_partial_checksum_is_completed_whatever_the_addresses_and_the_payload(
        shape in shapes(),
        addresses: [[u8; 16]; 2],
        payload in prop::collection::vec(any::<u8>(), 0..=LONGEST_PAYLOAD),
    ) {
        let packet = shape.build(addresses, &payload);
        // TCP may say zero where the kernel says 0xffff, the other zero.
        prop_assume!(packet.checksum() != [0, 0]);
        prop_assert_eq!(action(&packet.partial()), packet.completed());
    }

    #[test]
    fn a_complete_checksum_stays_whatever_the_addresses_and_the_payload(
        shape in shapes(),
        addresses: [[u8; 16]; 2],
        payload in prop::collection::vec(any::<u8>(), 0..=LONGEST_PAYLOAD),
    ) {
        prop_assert_eq!(action(&shape.build(addresses, &payload).bytes), ChecksumAction::Keep);
    }

    #[test]
    fn a_datagram_whose_checksum_is_wrong_is_left_to_tcx(
        shape in shapes(),
        payload in prop::collection::vec(any::<u8>(), 0..=LONGEST_PAYLOAD),
        field: [u8; 2],
    ) {
        prop_assume!(shape.transport == Transport::Udp);
        let packet = shape.build(ADDRESSES, &payload);
        prop_assume!(field != packet.checksum() && field != packet.pseudo_header());
        prop_assert_eq!(action(&with_field(&packet, field)), ChecksumAction::Pass);
    }
}

#[test]
fn a_complete_checksum_of_every_length_stays() {
    for shape in Shape::all() {
        for length in 0..=LONGEST_PAYLOAD {
            let packet = shape.build(ADDRESSES, &noise(length));
            assert_eq!(
                action(&packet.bytes),
                ChecksumAction::Keep,
                "{shape:?}, payload of {length}"
            );
        }
    }
}

fn with_field(packet: &Packet, field: [u8; 2]) -> Vec<u8> {
    let mut bytes = packet.bytes.clone();
    bytes[packet.shape.field()..][..2].copy_from_slice(&field);
    bytes
}

/// What UDP has where it has no checksum.
const NONE: [u8; 2] = [0, 0];
/// What a guest may leave there that asks for a checksum and prepares nothing.
const UNPREPARED: [[u8; 2]; 2] = [NONE, [0xbe, 0xef]];
/// The least payload that may be a tunnel's with a partial checksum inside: headers of IPv4 and UDP.
const LEAST_TUNNELLED: usize = 28;

#[test]
fn a_datagram_whose_field_nobody_has_prepared_is_left_to_tcx() {
    for shape in of_transport(Transport::Udp) {
        for length in 0..200 {
            let packet = shape.build(ADDRESSES, &noise(length));
            for field in UNPREPARED {
                if field == NONE && length < LEAST_TUNNELLED && shape.ip == Ip::V4 {
                    continue;
                }
                assert_eq!(
                    action(&with_field(&packet, field)),
                    ChecksumAction::Pass,
                    "{shape:?}, payload of {length}"
                );
            }
        }
    }
}

/// Packet generators send such, and there is no room for a checksum inside that might be partial.
#[test]
fn a_short_datagram_without_a_checksum_goes_as_it_is() {
    for shape in of_transport(Transport::Udp).filter(|shape| shape.ip == Ip::V4) {
        for length in 0..LEAST_TUNNELLED {
            let packet = shape.build(ADDRESSES, &noise(length));
            assert_eq!(
                action(&with_field(&packet, NONE)),
                ChecksumAction::Keep,
                "{shape:?}, payload of {length}"
            );
        }
    }
}

/// To sum every segment would cost all of TCP what completing a checksum costs.
#[test]
fn a_tcp_segment_whose_field_is_not_the_partial_checksum_stays_as_it_is_written() {
    for shape in of_transport(Transport::Tcp) {
        for length in [0, 1, 100, 1460] {
            let packet = shape.build(ADDRESSES, &noise(length));
            for field in UNPREPARED {
                assert_eq!(
                    action(&with_field(&packet, field)),
                    ChecksumAction::Keep,
                    "{shape:?}, {length}"
                );
            }
        }
    }
}

/// A packet of this shape whose complete checksum has the given value: the payload's first two bytes make it so.
fn made(shape: Shape, wanted: impl Fn(&Packet) -> [u8; 2]) -> Packet {
    with_checksum(wanted, |word| {
        let mut payload = noise(20);
        payload[..2].copy_from_slice(&word);
        shape.build(ADDRESSES, &payload)
    })
}

#[test]
fn a_complete_checksum_that_looks_partial_by_chance_stays() {
    for shape in Shape::all() {
        let packet = made(shape, Packet::pseudo_header);
        assert_eq!(
            packet.checksum(),
            packet.pseudo_header(),
            "{shape:?}: the chance is made"
        );
        assert_eq!(action(&packet.bytes), ChecksumAction::Keep, "{shape:?}");
    }
}

#[test]
fn a_checksum_that_comes_out_as_zero_is_stored_as_the_kernel_stores_it() {
    for shape in Shape::all() {
        let packet = made(shape, |_| [0, 0]);
        let computed = match shape.transport {
            Transport::Tcp => [0, 0],
            Transport::Udp => [0xff, 0xff],
        };
        assert_eq!(packet.checksum(), computed, "{shape:?}: the sum is made");
        let expected = ChecksumAction::Complete {
            offset: u32::try_from(shape.field()).unwrap(),
            checksum: [0xff, 0xff],
        };
        assert_eq!(action(&packet.partial()), expected, "{shape:?}");
    }
}

#[test]
fn padding_behind_the_packet_is_not_summed_nor_even_read() {
    for shape in Shape::all() {
        for padding in [1, 2, 3, 46] {
            let packet = shape.build(ADDRESSES, &noise(5));
            let mut bytes = packet.partial();
            let end = bytes.len();
            bytes.extend(std::iter::repeat_n(0xff, padding));
            let frame = Watched::new(&bytes).readable_to(end);
            assert_eq!(
                action_of(&frame, bytes.len()),
                packet.completed(),
                "{shape:?}, padding of {padding}"
            );
        }
    }
}

#[test]
fn a_packet_that_must_not_be_fragmented_is_no_fragment() {
    for shape in Shape::all().filter(|shape| shape.ip == Ip::V4) {
        let packet = shape.build(ADDRESSES, &noise(5));
        let mut bytes = packet.partial();
        bytes[shape.network() + 6..shape.network() + 8].copy_from_slice(&[0x40, 0]);
        assert_eq!(action(&bytes), packet.completed(), "{shape:?}");
    }
}

#[test]
fn the_longest_segment_that_is_summed_has_4095_bytes() {
    for shape in Shape::all() {
        let header = match shape.transport {
            Transport::Tcp => 20,
            Transport::Udp => 8,
        };
        let longest = shape.build(ADDRESSES, &noise(4095 - header));
        assert_eq!(action(&longest.partial()), longest.completed(), "{shape:?}");
        let longer = shape.build(ADDRESSES, &noise(4096 - header));
        assert_eq!(action(&longer.partial()), ChecksumAction::Pass, "{shape:?}");
    }
}

#[test]
fn a_frame_of_the_address_resolution_protocol_has_no_checksum_to_complete() {
    for (tag, network) in [(None, 14), (Some([0x81, 0x00]), 18), (Some([0x88, 0xa8]), 18)] {
        let mut bytes = vec![0; network + 28];
        bytes[network - 2..network].copy_from_slice(&[0x08, 0x06]);
        if let Some(tag) = tag {
            bytes[12..14].copy_from_slice(&tag);
        }
        assert_eq!(action(&bytes), ChecksumAction::Keep);
    }
}
