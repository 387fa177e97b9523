//! What is measured: cases, and how many ports and addresses each is measured among.

use std::time::Duration;

use super::frame::{SHORTEST, Shape};

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// On the command line, in results and budgets.
    pub name: &'static str,
    pub text: &'static str,
    pub family: Family,
    pub topology: Topology,
    pub work: Work,
}

/// Cases that are drawn side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Frames,
    Bulk,
    Broadcast,
    Scale,
    Latency,
    Threads,
    Statistics,
}

/// Each with the name and the title of its plot.
pub const FAMILIES: &[(&str, &str, Family)] = &[
    ("frames", "One frame, written and read", Family::Frames),
    ("bulk", "Long frames, written and read", Family::Bulk),
    (
        "broadcast",
        "A broadcast, written once and read by all",
        Family::Broadcast,
    ),
    ("scale", "One frame among many ports and addresses", Family::Scale),
    (
        "round-trip",
        "A frame there and back, both sides asleep",
        Family::Latency,
    ),
    (
        "threads",
        "Frames of VMMs that run side by side, by those delivered",
        Family::Threads,
    ),
    (
        "statistics",
        "One frame, while statistics are read and not",
        Family::Statistics,
    ),
];

/// What surrounds the ports that take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topology {
    /// Two ports.
    Pair,
    /// The same, with an MTU of 9000.
    Jumbo,
    Three,
    Nine,
    SixtyFive,
    /// 256 ports.
    Wide,
    /// Two ports, and 32,768 addresses behind each.
    Crowded,
}

impl Topology {
    pub fn ports(self) -> usize {
        match self {
            Self::Pair | Self::Jumbo | Self::Crowded => 2,
            Self::Three => 3,
            Self::Nine => 9,
            Self::SixtyFive => 65,
            Self::Wide => 256,
        }
    }

    /// In octets.
    pub fn mtu(self) -> u32 {
        if self == Self::Jumbo { 9000 } else { 1500 }
    }

    /// Behind each port.
    pub fn addresses(self) -> usize {
        if self == Self::Crowded { 32_768 } else { 1 }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// One thread writes a frame to the first port and reads it from the second.
    WriteRead(Shape),
    /// The same, one frame after the other between so many pairs of stations.
    Spread(usize),
    /// One thread writes a broadcast and reads it from every other port.
    Flood,
    /// A frame goes to the second port and back, each side's thread asleep until it comes.
    RoundTrip,
    /// Threads of their own write as fast as they can, and read.
    OneWay,
    BothWays,
    FourSenders,
    /// As [`Work::WriteRead`] for long enough that the statistics can be read meanwhile, or not.
    Steady {
        read: bool,
    },
}

const SHORT: Work = Work::WriteRead(Shape::Complete(SHORTEST));

pub const CASES: &[Case] = &[
    case("64", "64 B", Family::Frames, Topology::Pair, SHORT),
    case(
        "256",
        "256 B",
        Family::Frames,
        Topology::Pair,
        Work::WriteRead(Shape::Complete(252)),
    ),
    case(
        "1514-complete",
        "1514 B, complete checksum",
        Family::Frames,
        Topology::Pair,
        Work::WriteRead(Shape::Complete(1514)),
    ),
    case(
        "1514-partial",
        "1514 B, partial checksum",
        Family::Frames,
        Topology::Pair,
        Work::WriteRead(Shape::Partial(1514)),
    ),
    case(
        "9014-partial",
        "9014 B, partial checksum, MTU 9000",
        Family::Bulk,
        Topology::Jumbo,
        Work::WriteRead(Shape::Partial(9014)),
    ),
    case(
        "tso4",
        "64 KB TSO, IPv4",
        Family::Bulk,
        Topology::Pair,
        Work::WriteRead(Shape::Tso4),
    ),
    case(
        "tso6",
        "64 KB TSO, IPv6",
        Family::Bulk,
        Topology::Pair,
        Work::WriteRead(Shape::Tso6),
    ),
    case(
        "broadcast-2",
        "64 B broadcast to 2 ports",
        Family::Broadcast,
        Topology::Three,
        Work::Flood,
    ),
    case(
        "broadcast-8",
        "64 B broadcast to 8 ports",
        Family::Broadcast,
        Topology::Nine,
        Work::Flood,
    ),
    case(
        "broadcast-64",
        "64 B broadcast to 64 ports",
        Family::Broadcast,
        Topology::SixtyFive,
        Work::Flood,
    ),
    case(
        "ports-256",
        "64 B, 256 ports",
        Family::Scale,
        Topology::Wide,
        SHORT,
    ),
    case(
        "addresses-65536",
        "64 B, 256 flows, 65,536 addresses known",
        Family::Scale,
        Topology::Crowded,
        Work::Spread(256),
    ),
    case(
        "addresses-in-turn",
        "64 B, 65,536 addresses in turn",
        Family::Scale,
        Topology::Crowded,
        Work::Spread(32_768),
    ),
    case(
        "round-trip",
        "64 B there and back",
        Family::Latency,
        Topology::Pair,
        Work::RoundTrip,
    ),
    case(
        "one-way",
        "64 B, a writer and a reader",
        Family::Threads,
        Topology::Pair,
        Work::OneWay,
    ),
    case(
        "both-ways",
        "64 B, both write and read",
        Family::Threads,
        Topology::Pair,
        Work::BothWays,
    ),
    case(
        "four-senders",
        "64 B, four writers and a reader",
        Family::Threads,
        Topology::Nine,
        Work::FourSenders,
    ),
    case(
        "steady",
        "64 B, statistics not read",
        Family::Statistics,
        Topology::Pair,
        Work::Steady { read: false },
    ),
    case(
        "steady-read",
        "64 B, statistics read once a turn",
        Family::Statistics,
        Topology::Pair,
        Work::Steady { read: true },
    ),
];

const fn case(
    name: &'static str,
    text: &'static str,
    family: Family,
    topology: Topology,
    work: Work,
) -> Case {
    Case {
        name,
        text,
        family,
        topology,
        work,
    }
}

impl Case {
    /// What a turn tells; less of it is better.
    pub fn figures(self) -> &'static [&'static str] {
        match self.work {
            Work::RoundTrip => &["p50 µs", "p99 µs", "p99.9 µs"],
            Work::OneWay | Work::BothWays | Work::FourSenders => &["ns/delivered frame"],
            _ => &["ns/frame"],
        }
    }

    /// Frames between two looks at the clock: enough that the look costs nothing, few enough that a turn has many.
    pub fn batch(self) -> usize {
        match self.work {
            Work::WriteRead(Shape::Complete(1515..) | Shape::Partial(1515..) | Shape::Tso4 | Shape::Tso6) => {
                40
            }
            Work::Flood => (400 / self.topology.ports()).max(4),
            _ => 200,
        }
    }

    /// Whether those who write and those who read do not wait for each other.
    pub fn has_threads(self) -> bool {
        matches!(self.work, Work::OneWay | Work::BothWays | Work::FourSenders)
    }

    /// How long a turn takes where the usual one takes this long.
    pub fn turn(self, usual: Duration) -> Duration {
        usual
            * match self.work {
                // A thousandth is to be of several frames.
                Work::RoundTrip => 6,
                Work::OneWay | Work::BothWays | Work::FourSenders => 4,
                // A second, unless the user has chosen another time.
                Work::Steady { .. } => 50,
                _ => 1,
            }
    }

    /// Whether it has its turn in this round, counted from 1: the long ones have fewer.
    pub fn has_turn(self, round: u32) -> bool {
        !matches!(self.work, Work::Steady { .. }) || round % 8 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_cases_have_one_name() {
        for (index, case) in CASES.iter().enumerate() {
            assert!(
                CASES[..index].iter().all(|other| other.name != case.name),
                "{}",
                case.name
            );
        }
    }
}
