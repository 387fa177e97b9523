//! What guests and host have of the network: cards, and what leads to them.

use clap::ValueEnum;
use lab::Offloads;
use serde::{Deserialize, Serialize};

/// What all guests of a lab have in common.
#[derive(Debug, Clone, Copy)]
pub struct Hardware {
    /// Bytes, on the guest's network card and on the host's tap.
    pub mtu: u32,
    /// What the guest's network card has.
    pub offloads: Offloads,
}

/// What leads to a guest on the host, which its VMM holds open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// A tap that comes and goes with the guest
    Tap,
    /// A macvtap that is there already
    Macvtap,
}

impl Hardware {
    /// As on the command lines of the lab's own programs.
    pub fn options(self) -> [String; 4] {
        let offloads = match self.offloads {
            Offloads::All => "on",
            Offloads::None => "off",
        };
        ["--mtu", &self.mtu.to_string(), "--offloads", offloads].map(str::to_owned)
    }
}

impl Device {
    /// As on the command lines of the lab's own programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Macvtap => "macvtap",
        }
    }
}

/// Frames and bytes of a network card, as the guest counts them, its kernel or the station: what offloads joined is one
/// frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicCounters {
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
}
