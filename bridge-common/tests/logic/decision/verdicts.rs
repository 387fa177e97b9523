//! Where frames go, one by one.

use bridge_common::{
    counters::DropReason, decision::Lesson, fdb::FdbEntry, frame::Vlan, mac::Mac, port::flag,
};

use super::{Case, Change, Goes, check};
use crate::tables::{AGEING, NOW, ON_1, SECOND, UNKNOWN, entry, untagged};

const BROADCAST: Mac = Mac([0xff; 6]);
const MULTICAST: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

const fn link_local(last: u8) -> Mac {
    Mac([0x01, 0x80, 0xc2, 0, 0, last])
}

/// The source is known well enough to teach nothing.
pub fn case(description: &'static str, goes: Goes, change: Change) -> Case {
    Case {
        description,
        change,
        goes,
        lesson: Lesson::Nothing,
    }
}

#[test]
fn a_frame_goes_to_the_port_that_its_destination_is_on() {
    check(&[
        case("learned", Goes::To(1), |_, _, _| {}),
        case("static", Goes::To(2), |tables, _, ethernet| {
            tables.fix(UNKNOWN, 2);
            ethernet.destination = UNKNOWN;
        }),
        case("learned long ago and static", Goes::To(2), |tables, _, _| {
            tables.learn(ON_1, 1, NOW - AGEING - 1);
            tables.fix(ON_1, 2);
        }),
        case(
            "learned just as long ago as entries live",
            Goes::To(1),
            |tables, _, _| {
                tables.learn(ON_1, 1, NOW - AGEING);
            },
        ),
        case(
            "learned in the future: the clocks of two CPUs",
            Goes::To(1),
            |tables, _, _| {
                tables.learn(ON_1, 1, NOW + SECOND);
            },
        ),
        case(
            "learned under the frame's tag",
            Goes::To(2),
            |tables, _, ethernet| {
                ethernet.vlan = Vlan::new(5, true);
                tables.learned.insert(ethernet.source_key(), entry(0, NOW));
                tables.learned.insert(ethernet.destination_key(), entry(2, NOW));
            },
        ),
    ]);
}

#[test]
fn a_frame_whose_destination_is_on_no_port_goes_to_all_others() {
    check(&[
        case("broadcast", Goes::ToAllOthers, |_, _, ethernet| {
            ethernet.destination = BROADCAST;
        }),
        case("multicast", Goes::ToAllOthers, |_, _, ethernet| {
            ethernet.destination = MULTICAST;
        }),
        case(
            "multicast that was learned by mistake",
            Goes::ToAllOthers,
            |tables, _, ethernet| {
                tables.learn(MULTICAST, 1, NOW);
                ethernet.destination = MULTICAST;
            },
        ),
        case("unknown", Goes::ToAllOthers, |_, _, ethernet| {
            ethernet.destination = UNKNOWN;
        }),
        case("expired", Goes::ToAllOthers, |tables, _, _| {
            tables.learn(ON_1, 1, NOW - AGEING - 1);
        }),
        case(
            "known under another tag",
            Goes::ToAllOthers,
            |tables, _, ethernet| {
                ethernet.vlan = Vlan::new(5, false);
                tables.learned.insert(ethernet.source_key(), entry(0, NOW));
            },
        ),
        case(
            "learned for an earlier port in the slot",
            Goes::ToAllOthers,
            |tables, _, _| {
                tables.entry(ON_1).generation -= 1;
            },
        ),
        case(
            "learned for a later port in the slot",
            Goes::ToAllOthers,
            |tables, _, _| {
                tables.entry(ON_1).generation += 1;
            },
        ),
        case(
            "static for an earlier port in the slot",
            Goes::ToAllOthers,
            |tables, _, ethernet| {
                tables.fix(UNKNOWN, 2);
                tables.ports[2].generation += 1;
                ethernet.destination = UNKNOWN;
            },
        ),
        case(
            "on the ingress slot, for an earlier port",
            Goes::ToAllOthers,
            |tables, _, _| {
                tables.learn(ON_1, 0, NOW);
                tables.entry(ON_1).generation -= 1;
            },
        ),
        case(
            "on a port that is being attached or detached",
            Goes::ToAllOthers,
            |tables, _, _| {
                tables.ports[1].flags = flag::UNFINISHED | flag::NATIVE_TARGET | flag::XDP;
            },
        ),
        case("on an empty slot", Goes::ToAllOthers, |tables, _, _| {
            tables.learned.insert(
                untagged(ON_1),
                FdbEntry {
                    generation: 0,
                    ..entry(3, NOW)
                },
            );
        }),
        case(
            "on a slot that the bridge does not have",
            Goes::ToAllOthers,
            |tables, _, _| {
                tables.learn(ON_1, 4, NOW);
            },
        ),
        case("on a device that is gone", Goes::ToAllOthers, |tables, _, _| {
            tables.devices[1] = None;
        }),
        case(
            "on a device that goes at this moment",
            Goes::ToAllOthers,
            |tables, received, _| {
                tables.device(1).mtu = None;
                received.length = 1000;
            },
        ),
    ]);
}

#[test]
fn a_frame_that_no_bridge_may_forward_is_dropped() {
    check(&[
        case(
            "no whole header",
            Goes::Nowhere(DropReason::TooShort),
            |_, received, _| received.ethernet = None,
        ),
        case(
            "from a group",
            Goes::Nowhere(DropReason::InvalidSource),
            |_, _, ethernet| ethernet.source = MULTICAST,
        ),
        case(
            "from all",
            Goes::Nowhere(DropReason::InvalidSource),
            |_, _, ethernet| ethernet.source = BROADCAST,
        ),
        case(
            "from nobody",
            Goes::Nowhere(DropReason::InvalidSource),
            |_, _, ethernet| {
                ethernet.source = Mac([0; 6]);
            },
        ),
        case(
            "from a group to a link-local one",
            Goes::Nowhere(DropReason::InvalidSource),
            |_, _, ethernet| {
                ethernet.source = MULTICAST;
                ethernet.destination = link_local(0);
            },
        ),
        case(
            "to the spanning tree group",
            Goes::Nowhere(DropReason::LinkLocalGroup),
            |_, _, ethernet| {
                ethernet.destination = link_local(0);
            },
        ),
        case(
            "to the last link-local group",
            Goes::Nowhere(DropReason::LinkLocalGroup),
            |_, _, ethernet| {
                ethernet.destination = link_local(0x0f);
            },
        ),
        case(
            "to a link-local group under a tag",
            Goes::Nowhere(DropReason::LinkLocalGroup),
            |_, _, ethernet| {
                ethernet.destination = link_local(3);
                ethernet.vlan = Vlan::new(5, false);
            },
        ),
        case(
            "to the first group that is not link-local",
            Goes::ToAllOthers,
            |_, _, ethernet| {
                ethernet.destination = link_local(0x10);
            },
        ),
    ]);
}

#[test]
fn a_frame_whose_target_can_not_be_sent_to_is_dropped() {
    check(&[
        case(
            "back to the port it came from",
            Goes::Nowhere(DropReason::SamePort),
            |tables, _, _| {
                tables.learn(ON_1, 0, NOW);
            },
        ),
        case(
            "back to the port it came from, which is static",
            Goes::Nowhere(DropReason::SamePort),
            |tables, _, ethernet| {
                tables.fix(UNKNOWN, 0);
                ethernet.destination = UNKNOWN;
            },
        ),
        case(
            "to itself",
            Goes::Nowhere(DropReason::SamePort),
            |_, _, ethernet| ethernet.destination = ethernet.source,
        ),
        case(
            "to a port that is down",
            Goes::Nowhere(DropReason::EgressDown),
            |tables, _, _| {
                tables.device(1).state.up = false;
            },
        ),
        case(
            "to a port that is down and has no carrier",
            Goes::Nowhere(DropReason::EgressDown),
            |tables, _, _| {
                tables.device(1).state.up = false;
                tables.device(1).state.carrier = false;
            },
        ),
        case(
            "to a port that nobody reads",
            Goes::Nowhere(DropReason::EgressNoCarrier),
            |tables, _, _| {
                tables.device(1).state.carrier = false;
            },
        ),
    ]);
}

#[test]
fn the_ingress_port_is_its_slot_and_not_its_generation() {
    // A port that was detached and attached again while a frame was on its way.
    check(&[case(
        "to its own slot",
        Goes::Nowhere(DropReason::SamePort),
        |tables, _, _| {
            tables.ports[0].generation += 1;
            tables.learn(ON_1, 0, NOW);
            tables.entry(ON_1).generation += 1;
        },
    )]);
}
