//! `tapbridge-lab pump`: a frame pump as a process of its own, like a guest's VMM.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use lab::{Namespace, Tap, pump};

use crate::{interrupt, settings::Switched};

/// The guest's network card.
pub const GUEST_TAP: &str = "g0";
/// On standard error once both taps are up.
pub const READY: &str = "pumping";

/// Make a tap on the host and a network card in the guest's namespace, and copy frames between them until SIGTERM;
/// then print what was done as one line of JSON.
#[derive(Debug, Args)]
pub struct PumpArguments {
    /// The host's tap: made, or attached to if it is there and persistent
    #[arg(long, value_name = "NAME")]
    host_tap: String,
    /// The guest's network card
    #[arg(long, value_name = "NAME", default_value = GUEST_TAP)]
    guest_tap: String,
    /// The host's network namespace, such as /run/netns/NAME [default: the process's own]
    #[arg(long, value_name = "PATH")]
    host_netns: Option<PathBuf>,
    /// The guest's network namespace [default: the process's own]
    #[arg(long, value_name = "PATH")]
    guest_netns: Option<PathBuf>,
    /// Checksum and segmentation offloads of the guest's network card
    #[arg(long, value_enum, default_value_t = Switched::On)]
    offloads: Switched,
    /// MTU of both, in bytes
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(68..=65521))]
    mtu: u32,
}

impl PumpArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        let host = self.open(&self.host_tap, self.host_netns.as_ref())?;
        let guest = self.open(&self.guest_tap, self.guest_netns.as_ref())?;
        eprintln!("{READY}: {} and {}", host.name(), guest.name());
        let report = pump::run(&host, &guest, || interrupt::received().is_some())
            .with_context(|| format!("copying between {} and {}", host.name(), guest.name()))?;
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }

    fn open(&self, name: &str, namespace: Option<&PathBuf>) -> Result<Tap> {
        let namespace = namespace.map_or_else(Namespace::current, |path| Namespace::open(path))?;
        let options = Tap::builder(name).offloads(self.offloads.into()).mtu(self.mtu);
        let tap = namespace.run(|| options.open())?;
        tap.up()?;
        Ok(tap)
    }
}
