//! What is measured: cases, and how many ports and addresses each is measured among.

mod all;

use std::time::Duration;

use super::frame::FrameKind;

pub use all::{CASES, FAMILIES};

/// Stations behind each of the ports of [`Topology::Crowded`].
pub const EVERYBODY: usize = 32_768;

/// What a frame takes that was delivered, where frames may find the receiver's ring full.
const DELIVERED: &str = "ns/delivered frame";
/// How even the senders' shares of what was delivered are (Jain, 1984): from 1 divided by their number, where one has
/// all, to 1, where each has as much.
pub const JAIN: &str = "Jain's index";
/// Of the sender who got the fewest frames through, how many times what each would have if all had as much.
pub const WORST: &str = "worst share";

/// Whether a figure of a case is a share, of which more is better: of all others less is.
pub fn is_share(figure: &str) -> bool {
    figure == JAIN || figure == WORST
}

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
    Mix,
    Broadcast,
    Left,
    Vlan,
    Uplink,
    Beside,
    Scale,
    Latency,
    Threads,
    Statistics,
}

/// What surrounds the ports that take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topology {
    /// Two ports.
    Pair,
    /// Two ports with an MTU of 9000.
    Jumbo,
    Three,
    Nine,
    SixtyFive,
    /// 256 ports.
    Wide,
    /// 1,000 ports, of the 1,023 that a bridge can have.
    Thousand,
    /// Two ports, and 32,768 addresses behind each.
    Crowded,
    /// Two ports whose frames stay with the bridge.
    Kept,
    /// Two ports; `br_netfilter` calls the rules of IP, and there are none.
    Called,
    /// Two ports; `br_netfilter` calls the rules of IP, and there is one.
    Ruled,
    /// Two ports, the first of which is no tap: it leads out of the host.
    Uplink,
    /// Two ports of different hosts, between which VXLAN carries frames.
    Overlay,
    /// Two ports, and two more between which a neighbour sends.
    Beside,
    /// Two ports of a bridge that filters VLANs, in the same VLAN: both have it without a tag.
    Access,
    /// Both have it with a tag.
    Trunk,
    /// The first one without, the second one with a tag.
    AccessToTrunk,
    TrunkToAccess,
}

impl Topology {
    pub fn ports(self) -> usize {
        match self {
            Self::Pair
            | Self::Jumbo
            | Self::Crowded
            | Self::Kept
            | Self::Called
            | Self::Ruled
            | Self::Uplink
            | Self::Overlay
            | Self::Access
            | Self::Trunk
            | Self::AccessToTrunk
            | Self::TrunkToAccess => 2,
            Self::Three => 3,
            Self::Beside => 4,
            Self::Nine => 9,
            Self::SixtyFive => 65,
            Self::Wide => 256,
            Self::Thousand => 1000,
        }
    }

    /// In bytes.
    pub fn mtu(self) -> u32 {
        if self == Self::Jumbo { 9000 } else { 1500 }
    }

    /// Whether frames stay with the bridge, whatever is at its ports.
    pub fn keeps(self) -> bool {
        matches!(self, Self::Kept | Self::Ruled)
    }

    /// Whether each of the two ports has its VLAN with a tag; `None` where no VLANs are filtered.
    pub fn tags(self) -> Option<[bool; 2]> {
        match self {
            Self::Access => Some([false, false]),
            Self::Trunk => Some([true, true]),
            Self::AccessToTrunk => Some([false, true]),
            Self::TrunkToAccess => Some([true, false]),
            _ => None,
        }
    }

    /// Behind each port.
    pub fn addresses(self) -> usize {
        if self == Self::Crowded { EVERYBODY } else { 1 }
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// One thread writes a frame to the first port and reads it from the second.
    WriteRead(FrameKind),
    /// One thread writes and reads, one frame after the other, between so many pairs of stations.
    Spread(usize),
    /// One thread writes and reads, from one station to so many others in turn.
    Destinations(usize),
    /// One thread writes to a station that nobody knows, and reads.
    Unknown,
    /// One thread writes a frame for the host.
    Host,
    /// One thread writes a frame to the first port and reads it from the second, and does the same the other way.
    ThereAndBack,
    /// As TCP in bulk: one thread writes a long segment to the first port and reads it from the second, and does the
    /// same with its acknowledgements the other way.
    Mix,
    /// One thread writes a broadcast and reads it from every other port.
    Flood,
    /// A frame goes to the second port and back, each side's thread asleep until it comes.
    RoundTrip,
    /// Threads of their own write as fast as they can, and read.
    OneWay,
    BothWays,
    /// So many others write to the first port, each a thread of its own, as is the one that reads.
    Senders(usize),
    /// One thread writes a frame to the first port and reads it from the second, while another one sends frames from the
    /// third to the fourth, each from another address that nobody knows yet, or all from one.
    Beside {
        learning: bool,
    },
    /// As [`Work::WriteRead`] for long enough that the statistics can be read meanwhile, or not.
    Steady {
        read: bool,
    },
}

impl Case {
    /// What a turn tells; less of it is better.
    pub fn figures(self) -> &'static [&'static str] {
        match self.work {
            Work::RoundTrip => &["p50 µs", "p99 µs", "p99.9 µs"],
            Work::OneWay | Work::BothWays => &[DELIVERED],
            Work::Senders(_) => &[DELIVERED, JAIN, WORST],
            Work::Mix => &["ns/segment with its ACKs"],
            Work::ThereAndBack => &["ns/frame and answer"],
            _ => &["ns/frame"],
        }
    }

    /// Steps between two looks at the clock, each of which begins with a frame from the first port: enough that the look
    /// costs nothing, few enough that a turn has many.
    pub fn batch(self) -> usize {
        match self.work {
            Work::WriteRead(
                FrameKind::Complete(1515..) | FrameKind::Partial(1515..) | FrameKind::Tso4 | FrameKind::Tso6,
            )
            | Work::Mix => 40,
            Work::Flood => (400 / self.topology.ports()).max(4),
            _ => 200,
        }
    }

    /// Whether those who write and those who read do not wait for each other.
    pub fn has_threads(self) -> bool {
        matches!(self.work, Work::OneWay | Work::BothWays | Work::Senders(_))
    }

    /// How long a turn takes where the usual one takes this long.
    pub fn turn(self, usual: Duration) -> Duration {
        usual
            * match self.work {
                // A thousandth is to be of several frames.
                Work::RoundTrip => 6,
                Work::OneWay | Work::BothWays => 4,
                // A second, unless the user has chosen another time: each of more threads than CPUs is to run often.
                Work::Steady { .. } | Work::Senders(_) => 50,
                _ => 1,
            }
    }

    /// Whether it has its turn in this round, counted from 1: the long ones have fewer.
    pub fn has_turn(self, round: u32) -> bool {
        match self.work {
            Work::Steady { .. } => round % 8 == 1,
            Work::Senders(_) => round % 4 == 1,
            _ => true,
        }
    }

    /// How many turns it has had when a round begins.
    pub fn turns_before(self, round: u32) -> usize {
        (1..round).filter(|&round| self.has_turn(round)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_turn_of_a_case_is_an_odd_one_also_where_it_has_few() {
        for case in CASES {
            let turns = (1..=32).filter(|&round| case.has_turn(round));
            let before: Vec<_> = turns.map(|round| case.turns_before(round)).collect();
            assert_eq!(before, (0..before.len()).collect::<Vec<_>>(), "{}", case.name);
            assert!(before.len() > 2, "{}", case.name);
        }
    }

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
