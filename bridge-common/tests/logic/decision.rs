//! Where frames go, and what they teach.

mod lessons;
mod limits;
mod properties;
mod recent;
mod verdicts;

use bridge_common::{
    counters::DropReason,
    decision::{Decision, Lesson, Received, Verdict, decide},
    frame::{Ethernet, Vlan},
};

use crate::tables::{AGEING, FakeTables, INGRESS, ON_0, ON_1, generation};

/// A verdict as a table writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    To(u32),
    ToAllOthers,
    Nowhere(DropReason),
}

type Change = fn(&mut FakeTables, &mut Received, &mut Ethernet);

/// A frame from the station on slot 0 to the one on slot 1 in [`FakeTables::usual`], but for the changes.
struct Case {
    description: &'static str,
    change: Change,
    goes: Goes,
    lesson: Lesson,
}

fn check(cases: &[Case]) {
    for case in cases {
        let mut tables = FakeTables::usual();
        let mut received = frame();
        let mut ethernet = received.ethernet.expect("a header");
        (case.change)(&mut tables, &mut received, &mut ethernet);
        received.ethernet = received.ethernet.map(|_| ethernet);
        let decision = decide(&tables, &received, AGEING);
        let goes = goes(&tables, &decision);
        assert_eq!(
            (goes, decision.lesson),
            (case.goes, case.lesson),
            "{}",
            case.description
        );
    }
}

/// A verdict as a table writes it, the port checked.
fn goes(tables: &FakeTables, decision: &Decision) -> Goes {
    match decision.verdict {
        Verdict::Forward { slot, port, .. } => {
            assert_eq!(port, tables.ports[slot as usize], "the port in the slot");
            Goes::To(slot)
        }
        Verdict::Flood => Goes::ToAllOthers,
        Verdict::Drop(reason) => Goes::Nowhere(reason),
    }
}

/// An untagged frame of 100 octets from the station on slot 0 to the one on slot 1.
fn frame() -> Received {
    Received {
        ingress: INGRESS,
        ethernet: Some(Ethernet {
            destination: ON_1,
            source: ON_0,
            vlan: Vlan(0),
            ethertype: 0x0800,
            payload: 14,
        }),
        length: 100,
        gso: false,
    }
}

/// A frame from the station on slot 0 that came in by another slot.
fn from_slot(received: &mut Received, slot: u32) {
    received.ingress.slot = slot;
    received.ingress.generation = generation(slot);
}
