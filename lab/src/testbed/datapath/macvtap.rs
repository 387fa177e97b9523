//! The kernel's macvtap in bridge mode: what libvirt calls a direct attachment.

use anyhow::{Context, Result};
use lab::Namespace;

use super::{
    Attachment, Datapath, Device,
    link::{Link, ip},
};
use crate::{host::plan::GuestId, testbed::device::Hardware};

/// Stands for the host's network card. A macvtap has no more offloads than its lower device; a veth has all, so that
/// no segment is cut up and no checksum completed, as over the usual cards. So has a dummy, which fewer kernels have.
/// Bridge mode never sends through it what is for another guest.
const LOWER: &str = "lower";
/// It has to be up, or the lower device has no carrier. There is nobody behind it.
const LOWER_PEER: &str = "lower-peer";

pub struct Macvtap;

impl Datapath for Macvtap {
    fn prepare(&self, host: &Namespace, ids: &[GuestId], hardware: Hardware) -> Result<Device> {
        let ports = ids.iter().map(|id| (id.tap(), id.mac()));
        make(host, hardware.mtu, ports)?;
        Ok(Device::Macvtap)
    }

    /// They are connected by their lower device, and go with it.
    fn attach<'host>(&self, host: &'host Namespace, _taps: &[String]) -> Result<Box<dyn Attachment + 'host>> {
        Ok(Box::new(Link::new(host, LOWER)))
    }
}

/// Makes macvtaps of these names, each with its guest's address, over a lower device of the same MTU.
pub fn make(host: &Namespace, mtu: u32, ports: impl IntoIterator<Item = (String, String)>) -> Result<()> {
    let mtu = &mtu.to_string();
    let veth = ["type", "veth", "peer", "name", LOWER_PEER, "mtu", mtu];
    ip(host, &[&["link", "add", LOWER, "mtu", mtu], &veth[..]].concat())?;
    for end in [LOWER_PEER, LOWER] {
        ip(host, &["link", "set", "dev", end, "up"])?;
    }
    for (name, mac) in ports {
        let link = ["link", "add", &name, "link", LOWER, "address", &mac, "mtu", mtu];
        ip(
            host,
            &[&link, &["type", "macvtap", "mode", "bridge"][..]].concat(),
        )
        .context("making a macvtap: 'modprobe macvtap' loads the driver, where the kernel has it")?;
        // The host does not know which groups the guest's card listens to, IPv6's neighbour discovery for one.
        ip(host, &["link", "set", "dev", &name, "allmulticast", "on", "up"])?;
    }
    Ok(())
}
