//! What a run has observed, and how two runs differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use bridge_common::{Hook, fastpath::PortCounters, forwarding::Reason};
use etherparse::checksum::Sum16BitWords;
use lab::VnetHeader;
use serde_json::Value;

/// More than this is not told.
const TOLD: usize = 6;

/// A frame that came somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival {
    /// The tap or packet socket.
    pub place: String,
    /// As [`VnetHeader::to_bytes`] has it; all zero at sockets.
    pub header: [u8; VnetHeader::LEN],
    pub frame: Vec<u8>,
}

/// What the bridge and its devices say between two steps.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What was done before.
    pub step: String,
    pub fdb: Vec<String>,
    pub counters: BTreeMap<String, Value>,
}

#[derive(Default)]
pub struct Record {
    /// What was sent, by number: where, and what it was.
    pub sent: Vec<(String, String)>,
    /// What came, by the number of the frame that it is, or that caused it.
    pub arrivals: BTreeMap<u32, Vec<Arrival>>,
    /// Numbers in the order of their arrival, by place.
    pub order: BTreeMap<String, Vec<u32>>,
    pub snapshots: Vec<Snapshot>,
    /// What went past the bridge, by hook.
    pub forwarded: [u64; Hook::ALL.len()],
    /// What all ports counted.
    pub counters: PortCounters,
}

impl Record {
    /// How often each reason was counted.
    pub fn reasons(&self) -> Vec<(Hook, Reason, u64)> {
        let all = Hook::ALL.into_iter().flat_map(|hook| {
            Reason::ALL.map(|reason| (hook, reason, self.counters.left[hook as usize][reason as usize]))
        });
        all.filter(|(_, _, count)| *count > 0).collect()
    }

    /// In which way another run of the same script differs; nothing if it does not. Where XDP took part, a checksum may
    /// have been completed on the way.
    pub fn difference(&self, other: &Self, exact: bool) -> Option<String> {
        let mut told = String::new();
        if self.sent != other.sent {
            let _ = writeln!(told, "the runs sent different frames");
        }
        self.compare_arrivals(other, exact, &mut told);
        self.compare_order(other, &mut told);
        for (mine, theirs) in self.snapshots.iter().zip(&other.snapshots) {
            compare_snapshots(mine, theirs, &mut told);
        }
        (!told.is_empty()).then_some(told)
    }

    fn compare_arrivals(&self, other: &Self, exact: bool, told: &mut String) {
        let mut different = 0;
        for (number, (place, what)) in (0..).zip(&self.sent) {
            let arrived = |record: &Self| {
                let arrivals = record.arrivals.get(&number).cloned().unwrap_or_default();
                let mut arrivals: Vec<_> = arrivals
                    .into_iter()
                    .map(|arrival| if exact { arrival } else { completed(arrival) })
                    .collect();
                arrivals.sort();
                arrivals
            };
            let (mine, theirs) = (arrived(self), arrived(other));
            if mine == theirs {
                continue;
            }
            different += 1;
            if different <= TOLD {
                let _ = writeln!(
                    told,
                    "frame {number} from {place}, {what}:\n  bridge alone: {}\n  fast path:    {}",
                    describe(&mine, &theirs),
                    describe(&theirs, &mine)
                );
            }
        }
        if different > TOLD {
            let _ = writeln!(told, "and {} frames more", different - TOLD);
        }
    }

    /// Frames from one port to another stay in order.
    fn compare_order(&self, other: &Self, told: &mut String) {
        let places: BTreeSet<_> = self.order.keys().chain(other.order.keys()).collect();
        for place in places {
            let by_sender = |record: &Self| {
                let mut by_sender: BTreeMap<String, Vec<u32>> = BTreeMap::new();
                for number in record.order.get(place).into_iter().flatten() {
                    let sender = &self.sent[*number as usize].0;
                    by_sender.entry(sender.clone()).or_default().push(*number);
                }
                by_sender
            };
            let (mine, theirs) = (by_sender(self), by_sender(other));
            for (sender, order) in &mine {
                let others = theirs.get(sender);
                if others.is_some_and(|others| others != order && others.len() == order.len()) {
                    let _ = writeln!(
                        told,
                        "from {sender} to {place} in another order: {order:?}, {others:?}"
                    );
                }
            }
        }
    }
}

fn compare_snapshots(mine: &Snapshot, theirs: &Snapshot, told: &mut String) {
    let step = &mine.step;
    if theirs.step != *step {
        let _ = writeln!(told, "{step} became {}", theirs.step);
    }
    let only = |one: &[String], other: &[String]| -> Vec<String> {
        let missing = one.iter().filter(|entry| !other.contains(entry));
        missing.cloned().collect()
    };
    let (lost, added) = (only(&mine.fdb, &theirs.fdb), only(&theirs.fdb, &mine.fdb));
    if !lost.is_empty() || !added.is_empty() {
        let _ = writeln!(
            told,
            "FDB after {step}: of the bridge alone {lost:?}, with the fast path {added:?}"
        );
    }
    for (device, counters) in &mine.counters {
        let others = theirs.counters.get(device);
        if others != Some(counters) {
            let _ = writeln!(
                told,
                "counters of {device} after {step}:\n  bridge alone: {counters}\n  fast path:    {}",
                others.unwrap_or(&Value::Null)
            );
        }
    }
}

/// Where frames came; their bytes only where they came to the same places.
fn describe(arrivals: &[Arrival], others: &[Arrival]) -> String {
    let places = |arrivals: &[Arrival]| -> Vec<String> {
        arrivals.iter().map(|arrival| arrival.place.clone()).collect()
    };
    if places(arrivals) != places(others) {
        return format!("{:?}", places(arrivals));
    }
    let mut told = String::new();
    for (arrival, other) in arrivals.iter().zip(others).filter(|(one, other)| one != other) {
        let mut bytes = arrival.frame.iter().zip(&other.frame);
        let different = bytes.position(|(one, other)| one != other);
        let _ = write!(
            told,
            "{}: header {:02x?}, {} bytes, first different: {different:?}, {:02x?} ",
            arrival.place,
            arrival.header,
            arrival.frame.len(),
            &arrival.frame[..arrival.frame.len().min(60)]
        );
    }
    told
}

/// With what the header asked for, so that a checksum that XDP has completed is as good as one that is still to be.
fn completed(mut arrival: Arrival) -> Arrival {
    let header = VnetHeader::from_bytes(arrival.header);
    // How much of a frame is linear is a hint, which differs where XDP has seen it.
    if header.gso_type != 0 {
        let hint = VnetHeader { hdr_len: 0, ..header };
        arrival.header = hint.to_bytes();
        return arrival;
    }
    if !header.needs_checksum() {
        return arrival;
    }
    let start = usize::from(header.csum_start);
    let field = start + usize::from(header.csum_offset);
    let sum = Sum16BitWords::new().add_slice(&arrival.frame[start..]);
    let checksum = match sum.ones_complement() {
        // UDP's zero would mean that there is none.
        0 => 0xffff,
        checksum => checksum,
    };
    arrival.frame[field..][..2].copy_from_slice(&checksum.to_ne_bytes());
    arrival.header = VnetHeader::none().to_bytes();
    arrival
}
