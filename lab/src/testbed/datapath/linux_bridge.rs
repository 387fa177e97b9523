//! The kernel's own bridge: the peer that every figure is compared with.

use anyhow::Result;
use lab::Namespace;

use super::{
    Attachment, Datapath,
    link::{Link, ip},
};

/// Its name.
pub const BRIDGE: &str = "br0";

pub struct LinuxBridge;

impl Datapath for LinuxBridge {
    fn attach<'host>(&self, host: &'host Namespace, taps: &[String]) -> Result<Box<dyn Attachment + 'host>> {
        connect(host, taps)?;
        Ok(Box::new(Link::new(host, BRIDGE)))
    }
}

/// Makes a bridge of taps. Like what is left of it after an error, it goes with the host's namespace.
pub fn connect(host: &Namespace, taps: &[impl AsRef<str>]) -> Result<()> {
    ip(host, &["link", "add", BRIDGE, "type", "bridge", "stp_state", "0"])?;
    for tap in taps {
        ip(host, &["link", "set", "dev", tap.as_ref(), "master", BRIDGE])?;
    }
    ip(host, &["link", "set", "dev", BRIDGE, "up"])
}
