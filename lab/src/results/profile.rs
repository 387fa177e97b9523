//! Where the CPU time of a measurement went, by samples.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the CPUs did in the kernel during a measurement, found out by looking at them at regular intervals of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// How often each CPU was looked at, if it was neither idle nor in user space.
    pub frequency_hz: u32,
    /// How often something was seen.
    pub samples: u64,
    /// Samples that the kernel had no room for; they are in no part.
    pub lost: u64,
    /// CPU time by what it was spent on, of all CPUs together.
    pub seconds: BTreeMap<Part, f64>,
    /// The functions that took most of each part, without those that they called.
    pub functions: BTreeMap<Part, Vec<FunctionTime>>,
}

/// What kernel time is spent on while frames go from guest to guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// From a frame's entry into the host's stack, or the XDP program's start, to the receiver's ring: all that a datapath
    /// can make cheaper or dearer.
    Path,
    /// The sender's tap: buffers, and the copy from the VMM.
    Write,
    /// The receiver's tap: the copy to the VMM, and the buffers' end.
    Read,
    /// Waiting for frames, and waking who waits.
    WakeUp,
    /// Into and out of the VMM's system calls, and to its files.
    SystemCalls,
    /// The guests: for namespaces their network stacks, cards and sockets, for virtual machines what runs them.
    Guest,
    /// Interrupts of VMMs, the lab's own counting, and what has no other name.
    Other,
    /// What other processes did that has nothing to do with frames, as far as one can see.
    Elsewhere,
}

/// A function of the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FunctionTime {
    pub name: String,
    pub seconds: f64,
}

impl Part {
    /// The path is the first, since it is what is compared.
    pub const ALL: [Self; 8] = [
        Self::Path,
        Self::Write,
        Self::Read,
        Self::WakeUp,
        Self::SystemCalls,
        Self::Guest,
        Self::Other,
        Self::Elsewhere,
    ];

    /// What it is called, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Write => "write side",
            Self::Read => "read side",
            Self::WakeUp => "wake-up",
            Self::SystemCalls => "system calls",
            Self::Guest => "guests",
            Self::Other => "other",
            Self::Elsewhere => "other processes",
        }
    }
}

impl Profile {
    /// CPU time of a part; nothing of one that was never seen.
    pub fn part_s(&self, part: Part) -> f64 {
        self.seconds.get(&part).copied().unwrap_or(0.0)
    }

    /// What guests and carrying their frames took; other processes may do so by chance.
    pub fn total_s(&self) -> f64 {
        let parts = self.seconds.iter().filter(|&(&part, _)| part != Part::Elsewhere);
        parts.map(|(_, seconds)| seconds).sum()
    }

    /// How often a part was seen.
    pub fn samples_of(&self, part: Part) -> f64 {
        self.part_s(part) * f64::from(self.frequency_hz)
    }
}
