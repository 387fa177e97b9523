//! What the lab sets up and measures, from the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use lab::Offloads;
use serde::Serialize;

use crate::{
    datapath::{self, Hook},
    guest::{self, Hardware},
};

/// Guests, and what connects them.
#[derive(Debug, Args, Serialize)]
pub struct Setup {
    /// The program of this project's switch
    #[arg(long, value_name = "PATH")]
    pub tapbridge: Option<PathBuf>,
    /// Datapaths, each in turn
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "tapbridge,linux-bridge"
    )]
    pub datapath: Vec<datapath::Kind>,
    /// Hook of the datapath tapbridge [default: the switch's own]
    #[arg(long, value_enum)]
    pub hook: Option<Hook>,
    /// Kind of the guests
    #[arg(long, value_enum, default_value = "netns")]
    pub guest: guest::Kind,
    /// Folder with the packages of virtual machines, which `cargo xtask lab --guest qemu` sets up
    #[arg(long, value_name = "FOLDER")]
    pub vm: Option<PathBuf>,
    /// Let the host's kernel copy the frames of virtual machines, not QEMU
    #[arg(long)]
    pub vhost: bool,
    /// MTU of guests and taps, in bytes; at least what IPv6 needs
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=65521))]
    pub mtu: u32,
    /// Checksum and segmentation offloads of the guests' network cards
    #[arg(long, value_enum, default_value_t = Switched::On)]
    pub offloads: Switched,
}

/// Measure throughput and latency between two guests, over each of the datapaths in turn
///
/// Nothing is pinned to a CPU, so identical runs differ by a fifth or more: compare datapaths by their ratio within a
/// round, over several rounds.
#[derive(Debug, Args, Serialize)]
pub struct Settings {
    #[command(flatten)]
    #[serde(flatten)]
    pub setup: Setup,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub time: u32,
    /// Rounds
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// TCP streams of the throughput measurement
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=128))]
    pub streams: u32,
    /// Print one JSON document with every sample instead of the table
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

impl Setup {
    /// The guests' cards and taps.
    pub fn hardware(&self) -> Hardware {
        Hardware {
            mtu: self.mtu,
            offloads: self.offloads.into(),
        }
    }
}

/// A feature's state on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Switched {
    On,
    Off,
}

impl From<Switched> for Offloads {
    fn from(switched: Switched) -> Self {
        match switched {
            Switched::On => Self::All,
            Switched::Off => Self::None,
        }
    }
}
