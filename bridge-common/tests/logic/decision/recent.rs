//! What is remembered of a decision, and what is not.

use bridge_common::{
    decision::{Lesson, Verdict, decide},
    fdb::REFRESH_INTERVAL,
    mac::Mac,
    recent::{Flow, Location},
};

use super::{frame, from_slot};
use crate::tables::{AGEING, FakeTables, INGRESS, NOW, ON_0, ON_1, UNKNOWN, generation, untagged};

fn flow() -> Flow {
    Flow {
        source: untagged(ON_0).to_bits(),
        destination: untagged(ON_1).to_bits(),
        ingress: INGRESS,
    }
}

#[test]
fn a_flow_whose_source_teaches_nothing_is_remembered() {
    let tables = FakeTables::usual();
    decide(&tables, &frame(), AGEING);
    let location = Location {
        generation: generation(1),
        slot: 1,
    };
    assert_eq!(tables.recent.get(), Some((flow(), location)));
}

#[test]
fn a_flow_whose_source_still_has_to_be_written_down_is_not_remembered() {
    let not_remembered = |lesson, tables: &FakeTables, received| {
        assert_eq!(decide(tables, &received, AGEING).lesson, lesson);
        assert_eq!(tables.recent.get(), None, "{lesson:?}");
    };
    let mut tables = FakeTables::usual();
    tables.entry(ON_0).last_seen = NOW - REFRESH_INTERVAL - 1;
    not_remembered(Lesson::Refresh, &tables, frame());
    let mut moved = frame();
    from_slot(&mut moved, 2);
    not_remembered(Lesson::Move, &FakeTables::usual(), moved);
    let mut new = frame();
    new.ethernet.as_mut().unwrap().source = UNKNOWN;
    not_remembered(Lesson::Learn, &FakeTables::usual(), new);
}

#[test]
fn a_flow_to_a_group_or_to_a_station_that_is_not_known_is_remembered_to_go_nowhere() {
    for destination in [UNKNOWN, Mac([0xff; 6])] {
        let tables = FakeTables::usual();
        let mut received = frame();
        received.ethernet.as_mut().unwrap().destination = destination;
        let decision = decide(&tables, &received, AGEING);
        let flow = Flow {
            destination: untagged(destination).to_bits(),
            ..flow()
        };
        assert_eq!(tables.recent.get(), Some((flow, Location::NOWHERE)));
        assert_eq!(decide(&tables, &received, AGEING), decision);
        assert_eq!(decision.verdict, Verdict::Flood);
    }
}

#[test]
fn what_is_remembered_is_asked_before_the_tables_are() {
    let mut tables = FakeTables::usual();
    decide(&tables, &frame(), AGEING);
    let remembered = decide(&tables, &frame(), AGEING);
    tables.learned.clear();
    assert_eq!(decide(&tables, &frame(), AGEING), remembered);
}
