//! The kernel's own bridge: the peer that every figure is compared with.

use anyhow::Result;
use lab::Namespace;

use super::{
    Attachment, Datapath,
    link::{Link, ip},
};

const BRIDGE: &str = "br0";

pub struct LinuxBridge;

impl Datapath for LinuxBridge {
    fn attach<'host>(&self, host: &'host Namespace, taps: &[String]) -> Result<Box<dyn Attachment + 'host>> {
        ip(host, &["link", "add", BRIDGE, "type", "bridge", "stp_state", "0"])?;
        let attached = Link::new(host, BRIDGE);
        for tap in taps {
            ip(host, &["link", "set", "dev", tap, "master", BRIDGE])?;
        }
        ip(host, &["link", "set", "dev", BRIDGE, "up"])?;
        Ok(Box::new(attached))
    }
}
