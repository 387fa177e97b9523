//! How long a frame may be.

use bridge_common::counters::DropReason;

use super::{Goes, check, verdicts::case};

#[test]
fn a_frame_fits_its_target_with_a_header_and_room_for_a_tag_beside_the_mtu() {
    check(&[
        case("the longest", Goes::To(1), |_, received, _| {
            received.length = 1518;
        }),
        case(
            "one octet more",
            Goes::Nowhere(DropReason::EgressMtu),
            |_, received, _| {
                received.length = 1519;
            },
        ),
        case(
            "one octet more, through a port with a larger MTU",
            Goes::Nowhere(DropReason::EgressMtu),
            |tables, received, _| {
                tables.device(0).mtu = Some(9000);
                received.length = 1519;
            },
        ),
        case("jumbo", Goes::To(1), |tables, received, _| {
            tables.device(1).mtu = Some(9000);
            received.length = 9018;
        }),
        case(
            "longer than jumbo",
            Goes::Nowhere(DropReason::EgressMtu),
            |tables, received, _| {
                tables.device(1).mtu = Some(9000);
                received.length = 9019;
            },
        ),
        case("several segments, to be cut", Goes::To(1), |_, received, _| {
            received.length = 65_549;
            received.gso = true;
        }),
        case(
            "several segments to a port that is down",
            Goes::Nowhere(DropReason::EgressDown),
            |tables, received, _| {
                tables.device(1).state.up = false;
                received.gso = true;
            },
        ),
        case("an MTU beyond all bounds", Goes::To(1), |tables, received, _| {
            tables.device(1).mtu = Some(u32::MAX);
            received.length = u32::MAX;
        }),
        case("the smallest MTU there is", Goes::To(1), |tables, received, _| {
            tables.device(1).mtu = Some(68);
            received.length = 86;
        }),
        case(
            "one octet more than the smallest MTU",
            Goes::Nowhere(DropReason::EgressMtu),
            |tables, received, _| {
                tables.device(1).mtu = Some(68);
                received.length = 87;
            },
        ),
        // An MTU that can't be asked for stands for the question.
        case(
            "so short that no MTU is asked for",
            Goes::To(1),
            |tables, received, _| {
                tables.device(1).mtu = None;
                received.length = 86;
            },
        ),
        case(
            "just long enough that the MTU is asked for",
            Goes::ToAllOthers,
            |tables, received, _| {
                tables.device(1).mtu = None;
                received.length = 87;
            },
        ),
    ]);
}
