//! A port's way onto the fast path and off it.

use std::{fs, io, os::fd::AsFd as _, path::PathBuf};

use bridge_common::{
    Hook,
    fastpath::{Port, program},
    port::{HookMode, INTERFACE_NAME, flag},
};

use super::FastPath;
use crate::{
    error::{Context as _, Result},
    link,
    netlink::{Kind, Link},
};

impl FastPath {
    fn link_path(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.pin(&format!("link_{ifindex}_{}", hook.name()))
    }

    /// Attaches the programs to a port of a bridge, with the hooks of this mode if it is a tap. On failure the device is
    /// as it was.
    pub fn attach(&mut self, device: &Link, mode: HookMode) -> Result<()> {
        let result = self.attach_hooks(device, mode);
        if result.is_err() {
            self.detach(device.ifindex)?;
        }
        result
    }

    fn attach_hooks(&mut self, device: &Link, mode: HookMode) -> Result<()> {
        let mut name = [0; INTERFACE_NAME];
        name[..device.name.len()].copy_from_slice(device.name.as_bytes());
        let mut port = Port {
            flags: flag::UNFINISHED,
            name,
            ..Port::default()
        };
        if mode == HookMode::Auto {
            port.flags |= flag::AUTO;
        }
        self.add(device.ifindex, port)?;
        // tcx first: XDP redirects nothing without it.
        self.link(device.ifindex, Hook::Tcx)
            .at(&device.name, "attach tcx")?;
        if device.kind == Kind::Tap && mode != HookMode::Tcx {
            self.link(device.ifindex, Hook::Xdp)
                .at(&device.name, "attach xdp")?;
            port.flags |= flag::XDP;
        }
        port.flags = port.flags & !flag::UNFINISHED | flag::ACTIVE;
        self.write(device.ifindex, port)
    }

    /// Says of an attached port whether no rule of netfilter is meant for frames between it and others of which the same
    /// has been said.
    pub fn bypass_netfilter(&mut self, ifindex: u32, bypass: bool) -> Result<()> {
        let ports = self.ports()?;
        let Some((_, port)) = ports.iter().find(|(index, _)| *index == ifindex) else {
            return Ok(());
        };
        let mut port = *port;
        port.flags &= !flag::BYPASS_NETFILTER;
        if bypass {
            port.flags |= flag::BYPASS_NETFILTER;
        }
        self.write(ifindex, port)
    }

    fn link(&self, ifindex: u32, hook: Hook) -> io::Result<()> {
        let name = match hook {
            Hook::Xdp => program::XDP,
            Hook::Tcx => program::TCX,
        };
        let program = link::open(&self.pin(name))?;
        let created = link::create(program.as_fd(), ifindex, hook)?;
        link::pin(&created, &self.link_path(ifindex, hook))
    }

    /// Detaches the programs from a port. Every step may have been done before.
    pub fn detach(&mut self, ifindex: u32) -> Result<()> {
        // XDP first: what it passes finds tcx.
        for hook in [Hook::Xdp, Hook::Tcx] {
            let path = self.link_path(ifindex, hook);
            if path.exists() {
                link::detach(&path).at(path.display(), "detach the program")?;
                fs::remove_file(&path).at(path.display(), "unpin the link")?;
            }
        }
        self.forget(ifindex)
    }

    /// Undoes what a killed command has left, and clears ports whose device is gone.
    pub fn tidy(&mut self) -> Result<()> {
        for (ifindex, port) in self.ports()? {
            let attached = link::device_of(&self.link_path(ifindex, Hook::Tcx)) == Some(ifindex);
            if port.flags & flag::UNFINISHED != 0 || !attached {
                self.detach(ifindex)?;
            }
        }
        Ok(())
    }
}
