//! The kernel's own bridge: the peer that every figure is compared with.

use anyhow::Result;
use lab::Namespace;

use super::{Attachment, Datapath, Stats};
use crate::process;

const BRIDGE: &str = "br0";

pub struct LinuxBridge;

impl Datapath for LinuxBridge {
    fn attach<'host>(&self, host: &'host Namespace, taps: &[String]) -> Result<Box<dyn Attachment + 'host>> {
        ip(host, &["link", "add", BRIDGE, "type", "bridge", "stp_state", "0"])?;
        let attached = Attached { host, there: true };
        for tap in taps {
            ip(host, &["link", "set", "dev", tap, "master", BRIDGE])?;
        }
        ip(host, &["link", "set", "dev", BRIDGE, "up"])?;
        Ok(Box::new(attached))
    }
}

struct Attached<'host> {
    host: &'host Namespace,
    there: bool,
}

impl Attachment for Attached<'_> {
    fn stats(&self) -> Result<Option<Stats>> {
        Ok(None)
    }

    fn detach(mut self: Box<Self>) -> Result<()> {
        self.there = false;
        ip(self.host, &["link", "delete", "dev", BRIDGE])
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if self.there {
            // Should it fail, the bridge goes with the host's namespace.
            let _ = ip(self.host, &["link", "delete", "dev", BRIDGE]);
        }
    }
}

fn ip(host: &Namespace, words: &[&str]) -> Result<()> {
    let mut ip = host.command("ip")?;
    ip.args(words);
    process::call(ip).map(drop)
}
