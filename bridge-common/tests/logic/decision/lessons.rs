//! What frames teach about their sources.

use bridge_common::{
    counters::DropReason,
    decision::{Lesson, Verdict, decide},
    fdb::REFRESH_INTERVAL,
    frame::Vlan,
    mac::Mac,
};

use super::{Case, Change, Goes, check, frame, from_slot};
use crate::tables::{AGEING, FakeTables, NOW, ON_0, ON_1, SECOND, UNKNOWN, entry};

/// A frame that is forwarded.
fn case(description: &'static str, lesson: Lesson, change: Change) -> Case {
    Case {
        description,
        change,
        goes: Goes::To(1),
        lesson,
    }
}

impl Case {
    /// Changes where the frame goes.
    fn going(self, goes: Goes) -> Self {
        Self { goes, ..self }
    }
}

#[test]
fn a_source_is_learned_where_it_was_not_known() {
    check(&[
        case("new", Lesson::Learn, |_, _, ethernet| ethernet.source = UNKNOWN),
        case("forgotten on another port", Lesson::Learn, |tables, _, _| {
            tables.learn(ON_0, 2, NOW - AGEING - 1);
        }),
        case("known under another tag", Lesson::Learn, |tables, _, ethernet| {
            ethernet.vlan = Vlan::new(5, false);
            tables.learned.insert(ethernet.destination_key(), entry(2, NOW));
        })
        .going(Goes::To(2)),
        case("from a frame that is flooded", Lesson::Learn, |_, _, ethernet| {
            ethernet.source = UNKNOWN;
            ethernet.destination = Mac([0xff; 6]);
        })
        .going(Goes::ToAllOthers),
        case(
            "from a frame that finds its target down",
            Lesson::Learn,
            |tables, _, ethernet| {
                ethernet.source = UNKNOWN;
                tables.device(1).state.up = false;
            },
        )
        .going(Goes::Nowhere(DropReason::EgressDown)),
    ]);
}

#[test]
fn a_source_is_refreshed_when_its_entry_is_older_than_the_refresh_interval() {
    check(&[
        case("just seen", Lesson::Nothing, |_, _, _| {}),
        case("seen in the future", Lesson::Nothing, |tables, _, _| {
            tables.learn(ON_0, 0, NOW + SECOND);
        }),
        case("seen an interval ago", Lesson::Nothing, |tables, _, _| {
            tables.learn(ON_0, 0, NOW - REFRESH_INTERVAL);
        }),
        case("seen longer ago", Lesson::Refresh, |tables, _, _| {
            tables.learn(ON_0, 0, NOW - REFRESH_INTERVAL - 1);
        }),
        case("expired, on the same port", Lesson::Refresh, |tables, _, _| {
            tables.learn(ON_0, 0, NOW - AGEING - 1);
        }),
    ]);
}

#[test]
fn a_source_moves_with_its_frames() {
    check(&[
        case("from another port", Lesson::Move, |_, received, _| {
            from_slot(received, 2);
        }),
        case(
            "from another port, as late as can be",
            Lesson::Move,
            |tables, received, _| {
                tables.learn(ON_0, 0, NOW - AGEING);
                from_slot(received, 2);
            },
        ),
        case(
            "from an earlier port in the same slot",
            Lesson::Move,
            |tables, _, _| tables.entry(ON_0).generation -= 1,
        ),
        case(
            "to the port that the frame was meant for",
            Lesson::Move,
            |_, received, _| {
                from_slot(received, 1);
            },
        )
        .going(Goes::Nowhere(DropReason::SamePort)),
    ]);
}

#[test]
fn a_static_source_stays_where_the_administrator_put_it() {
    check(&[
        case("where it is", Lesson::Nothing, |tables, _, ethernet| {
            ethernet.source = UNKNOWN;
            tables.fix(UNKNOWN, 0);
        }),
        case("from another port", Lesson::Nothing, |tables, _, ethernet| {
            ethernet.source = UNKNOWN;
            tables.fix(UNKNOWN, 2);
        }),
        case(
            "from another port than a learned one",
            Lesson::Nothing,
            |tables, received, _| {
                tables.fix(ON_0, 0);
                from_slot(received, 2);
            },
        ),
        case(
            "learned under another tag",
            Lesson::Learn,
            |tables, _, ethernet| {
                tables.fix(UNKNOWN, 0);
                ethernet.source = UNKNOWN;
                ethernet.vlan = Vlan::new(5, false);
                tables.learned.insert(ethernet.destination_key(), entry(2, NOW));
            },
        )
        .going(Goes::To(2)),
    ]);
}

#[test]
fn a_frame_that_no_bridge_may_forward_teaches_nothing() {
    let station = UNKNOWN;
    let group = Mac([3, 0, 0, 0, 0, 1]);
    let link_local = Mac([0x01, 0x80, 0xc2, 0, 0, 0x0e]);
    for (reason, source, destination) in [
        (DropReason::InvalidSource, group, ON_1),
        (DropReason::InvalidSource, Mac([0; 6]), ON_1),
        (DropReason::LinkLocalGroup, station, link_local),
    ] {
        let mut received = frame();
        let ethernet = received.ethernet.as_mut().unwrap();
        (ethernet.source, ethernet.destination) = (source, destination);
        let decision = decide(&FakeTables::usual(), &received, AGEING);
        assert_eq!(decision.verdict, Verdict::Drop(reason));
        assert_eq!(decision.lesson, Lesson::Nothing);
    }
}
