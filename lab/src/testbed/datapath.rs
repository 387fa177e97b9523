//! Datapaths: what may connect guests.

mod link;
pub mod linux_bridge;
pub mod macvtap;
mod ovs;
mod tapbridge;

use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use lab::Namespace;
use serde_json::Value;

use super::device::{Device, Hardware};
use crate::host::plan::GuestId;

pub use link::ip;
pub use ovs::version as ovs_version;
pub use tapbridge::{Change, Hook, Watcher, clear};

/// A way to connect guests.
pub trait Datapath {
    /// Makes in the host's namespace what the guests' devices depend on; says what devices these are.
    fn prepare(&self, _host: &Namespace, _ids: &[GuestId], _hardware: Hardware) -> Result<Device> {
        Ok(Device::Tap)
    }

    /// Connects the guests' devices, which are up, in the host's namespace.
    fn attach<'host>(&self, host: &'host Namespace, taps: &[String]) -> Result<Box<dyn Attachment + 'host>>;
}

/// Guests that are connected. Dropping it disconnects them.
pub trait Attachment {
    /// What the datapath has counted, as JSON, if it counts.
    fn stats(&self) -> Result<Option<Value>> {
        Ok(None)
    }

    /// What the datapath has counted, for people, if it counts.
    fn stats_text(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// What a reader of figures has to know of it, beside its name.
    fn facts(&self) -> Option<String> {
        None
    }

    /// Its own processes on the host that live as long as it does.
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }

    /// How the guests' ports have changed by themselves since.
    fn changes(&self) -> Result<Vec<Change>> {
        Ok(Vec::new())
    }

    /// Makes ports that change by themselves what they are when they are new, whatever was sent before.
    fn renew(&self) -> Result<()> {
        Ok(())
    }

    /// Disconnects them; unlike a drop it tells what went wrong.
    fn detach(self: Box<Self>) -> Result<()>;
}

/// The datapaths there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The kernel's bridge with this project's programs at its ports
    Tapbridge,
    /// The kernel's bridge, without STP and netfilter
    LinuxBridge,
    /// The kernel's macvtap in bridge mode, over a veth
    Macvtap,
    /// Open vSwitch, in the kernel or else in userspace
    Ovs,
}

impl Kind {
    /// The datapath, configured: tapbridge with this project's binary and these hooks.
    pub fn datapath(self, tapbridge: Option<&Path>, hook: Hook) -> Result<Box<dyn Datapath>> {
        Ok(match self {
            Self::Tapbridge => {
                let program = tapbridge.context("the datapath tapbridge needs --tapbridge PATH")?;
                Box::new(tapbridge::Tapbridge {
                    program: program.to_owned(),
                    hook,
                })
            }
            Self::LinuxBridge => Box::new(linux_bridge::LinuxBridge),
            Self::Macvtap => Box::new(macvtap::Macvtap),
            Self::Ovs => Box::new(ovs::OpenVswitch {
                version: ovs::version()?,
            }),
        })
    }

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tapbridge => "tapbridge",
            Self::LinuxBridge => "linux-bridge",
            Self::Macvtap => "macvtap",
            Self::Ovs => "ovs",
        }
    }
}
