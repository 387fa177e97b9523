//! A device of the host that connects guests, by `ip link`.

use anyhow::Result;
use lab::Namespace;

use super::Attachment;
use crate::host::process;

/// Guests that are connected as long as a device is there, which does not count.
pub struct Link<'host> {
    host: &'host Namespace,
    name: &'static str,
    there: bool,
}

impl<'host> Link<'host> {
    /// Of a device that was made; it goes with this value.
    pub fn new(host: &'host Namespace, name: &'static str) -> Self {
        Self {
            host,
            name,
            there: true,
        }
    }

    fn remove(&mut self) -> Result<()> {
        self.there = false;
        ip(self.host, &["link", "delete", "dev", self.name])
    }
}

impl Attachment for Link<'_> {
    fn detach(mut self: Box<Self>) -> Result<()> {
        self.remove()
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        if self.there {
            // Should it fail, the device goes with the host's namespace.
            let _ = self.remove();
        }
    }
}

/// Runs `ip` in the host's namespace.
pub fn ip(host: &Namespace, words: &[&str]) -> Result<()> {
    ip_output(host, words).map(drop)
}

/// Runs `ip` in the host's namespace and returns what it prints.
pub fn ip_output(host: &Namespace, words: &[&str]) -> Result<String> {
    let mut ip = host.command("ip")?;
    ip.args(words);
    process::call(ip)
}
