//! Guests and what connects them, from the command line.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use lab::Offloads;

use super::{
    datapath::{self, Datapath, Hook, Kind, ovs_version},
    device::Hardware,
    guest::{self, GuestBackend},
};
use crate::host::{
    cpus::Placement,
    machine::{self, Machine},
};

/// Guests, and what connects them.
#[derive(Debug, Clone, Args)]
pub struct Setup {
    /// This project's binary
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
    /// Hooks of the datapath tapbridge, each measured as a datapath of its own, such as tapbridge-tcx [default: auto, as
    /// the datapath tapbridge]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub hook: Vec<Hook>,
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

impl Setup {
    /// The guests' cards and taps.
    pub fn hardware(&self) -> Hardware {
        Hardware {
            mtu: self.mtu,
            offloads: self.offloads.into(),
        }
    }

    /// Whoever makes such guests, and stations if there are some.
    pub fn backend(&self, placement: Placement, stations: bool) -> Result<Box<dyn GuestBackend>> {
        guest::backend(self.guest, self.vm.as_deref(), self.vhost, placement, stations)
    }

    /// Looks at the machine; an error says what it lacks and how to mend that.
    pub fn inspect(&self) -> Result<Machine> {
        if !self.hook.is_empty() && !self.datapath.contains(&Kind::Tapbridge) {
            bail!("--hook is for the datapath tapbridge, which is not among those of --datapath");
        }
        let tapbridge = match (&self.tapbridge, self.datapath.contains(&Kind::Tapbridge)) {
            (_, false) => None,
            (None, true) => bail!("the datapath tapbridge needs --tapbridge PATH"),
            (Some(path), true) => Some(&**path),
        };
        let machine = machine::inspect(tapbridge)?;
        if self.datapath.contains(&Kind::Ovs) {
            ovs_version()?;
        }
        Ok(machine)
    }
}

/// A datapath that is measured: tapbridge once for each hook that the user has named.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    kind: Kind,
    hook: Option<Hook>,
}

impl Choice {
    /// Those of the command line, in its order.
    pub fn all(setup: &Setup) -> Vec<Self> {
        let hooks = |kind| match kind {
            Kind::Tapbridge if !setup.hook.is_empty() => setup.hook.iter().copied().map(Some).collect(),
            _ => vec![None],
        };
        let kinds = setup.datapath.iter();
        kinds
            .flat_map(|&kind| hooks(kind).into_iter().map(move |hook| Self { kind, hook }))
            .collect()
    }

    /// The name in reports, such as "tapbridge-tcx".
    pub fn name(self) -> String {
        match self.hook {
            Some(hook) => format!("{}-{}", self.kind.name(), hook.name()),
            None => self.kind.name().into(),
        }
    }

    /// The datapath, configured.
    pub fn datapath(self, setup: &Setup) -> Result<Box<dyn Datapath>> {
        let hook = self.hook.unwrap_or(Hook::Auto);
        self.kind.datapath(setup.tapbridge.as_deref(), hook)
    }
}

/// A feature's state on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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
