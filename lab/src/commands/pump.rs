//! `tapbridge-lab pump`: a frame pump as a process of its own, like a guest's VMM.

use std::{os::fd::AsFd, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use lab::{Macvtap, Namespace, Tap, pump};

use crate::{
    host::interrupt,
    testbed::{
        device::Device,
        guest::{GUEST_TAP, READY},
        setup::Switched,
    },
};

/// Make a tap on the host and a network card in the guest's namespace, and copy frames between them until SIGTERM;
/// then print what was done as one line of JSON.
#[derive(Debug, Args)]
pub struct PumpArguments {
    /// The host's tap: made, or attached to if it is there and persistent; or its macvtap, which is there
    #[arg(long, value_name = "NAME")]
    host_tap: String,
    /// What the host's is
    #[arg(long, value_enum, default_value_t = Device::Tap)]
    host_device: Device,
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
    /// MTU of both, in bytes; a macvtap keeps its own
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(68..=65521))]
    mtu: u32,
}

impl PumpArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        let host = self.host()?;
        let guest = self.open_tap(&self.guest_tap, self.guest_netns.as_ref())?;
        eprintln!("{READY}: {} and {}", self.host_tap, guest.name());
        let report = pump::run(&host, &guest, || interrupt::received().is_some())
            .with_context(|| format!("copying between {} and {}", self.host_tap, guest.name()))?;
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }

    fn host(&self) -> Result<Box<dyn AsFd>> {
        let namespace = self.host_netns.as_ref();
        Ok(match self.host_device {
            Device::Tap => Box::new(self.open_tap(&self.host_tap, namespace)?),
            Device::Macvtap => {
                let open = || Macvtap::open(&*self.host_tap, self.offloads.into());
                Box::new(find(namespace)?.run(open)?)
            }
        })
    }

    fn open_tap(&self, name: &str, namespace: Option<&PathBuf>) -> Result<Tap> {
        let options = Tap::builder(name).offloads(self.offloads.into()).mtu(self.mtu);
        let tap = find(namespace)?.run(|| options.open())?;
        tap.up()?;
        Ok(tap)
    }
}

fn find(namespace: Option<&PathBuf>) -> lab::Result<Namespace> {
    namespace.map_or_else(Namespace::current, |path| Namespace::open(path))
}
