//! What a station is told to do, and what it answers: a line of JSON each.

use std::net::Ipv4Addr;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::times::Times;
use crate::testbed::device::NicCounters;

/// What a station prints once it does what it was told to. The [`Report`] is the next line.
pub const READY: &str = "ready";

/// What a station does next. By its number frames of one task are told from those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Task {
    /// Nothing, which ends what it did before.
    Rest,
    /// Sends frames that nobody answers.
    Send {
        number: u16,
        flow: Flow,
        size: Size,
        /// Frames per second; as fast as they go without.
        rate: Option<u32>,
        time_ms: u64,
    },
    /// Counts them, from the first one on; those of the time that begins so much later are counted apart.
    Count { number: u16, lead_ms: u64, time_ms: u64 },
    /// Sends requests back to where they came from, until the next task.
    Echo { number: u16 },
    /// Sends requests, and takes the time until each comes back.
    Ask {
        number: u16,
        flow: Flow,
        /// Bytes behind the UDP header.
        payload: u16,
        /// Requests per second, answered or not; without, one after the other.
        rate: Option<u32>,
        time_ms: u64,
    },
}

/// From whom to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    pub from: Ipv4Addr,
    pub to: Ipv4Addr,
    /// The address of the next station on the way.
    pub to_mac: [u8; 6],
}

/// Lengths of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Size {
    /// With the frame check sequence, which no tap has: the shortest that there are
    #[serde(rename = "64")]
    #[value(name = "64")]
    Shortest,
    /// With the frame check sequence
    #[serde(rename = "512")]
    #[value(name = "512")]
    Middle,
    /// Of twelve frames seven of 64, four of 594 and one of 1518 bytes, with the frame check sequence
    #[serde(rename = "imix")]
    #[value(name = "imix")]
    Imix,
    /// The longest that an MTU of 1500 allows
    #[serde(rename = "1514")]
    #[value(name = "1514")]
    Longest,
}

/// Without the frame check sequence.
const SHORTEST: usize = 60;
const LONGEST: usize = 1514;

impl Size {
    /// As on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shortest => "64",
            Self::Middle => "512",
            Self::Imix => "imix",
            Self::Longest => "1514",
        }
    }

    /// With its unit.
    pub fn text(self) -> &'static str {
        match self {
            Self::Shortest => "64 B",
            Self::Middle => "512 B",
            Self::Imix => "IMIX",
            Self::Longest => "1514 B",
        }
    }

    /// The lengths of frames, in the order in which they are sent, again and again; without the frame check sequence.
    pub fn lengths(self) -> &'static [usize] {
        const MEDIUM: usize = 590;
        match self {
            Self::Shortest => &[SHORTEST],
            Self::Middle => &[508],
            Self::Imix => &[
                SHORTEST, MEDIUM, SHORTEST, MEDIUM, SHORTEST, SHORTEST, LONGEST, SHORTEST, MEDIUM, SHORTEST,
                MEDIUM, SHORTEST,
            ],
            Self::Longest => &[LONGEST],
        }
    }
}

/// What came of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Frames or requests.
    pub sent: u64,
    /// Frames or answers.
    pub received: u64,
    /// Bytes of the frames received.
    pub bytes: u64,
    /// Of the frames received those of the time that was to be counted.
    pub in_time: u64,
    /// How long was sent, counted or asked.
    pub seconds: f64,
    /// How long answers took.
    pub times: Times,
    /// All frames of the card until now, those of other tasks included.
    pub card: NicCounters,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imix_is_seven_to_four_to_one_and_mixed() {
        let lengths = Size::Imix.lengths();
        let count = |length| lengths.iter().filter(|&&other| other == length).count();
        assert_eq!([count(60), count(590), count(1514)], [7, 4, 1]);
        assert_eq!(lengths.len(), 12);
        assert!(lengths.windows(3).all(|window| window.contains(&60)));
    }

    #[test]
    fn a_task_is_a_line() {
        let task = Task::Ask {
            number: 7,
            flow: Flow {
                from: Ipv4Addr::new(198, 18, 0, 1),
                to: Ipv4Addr::new(198, 18, 0, 2),
                to_mac: [2, 0, 0, 0, 0, 2],
            },
            payload: 64,
            rate: None,
            time_ms: 1000,
        };
        let line = serde_json::to_string(&task).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Task>(&line).unwrap(), task);
    }
}
