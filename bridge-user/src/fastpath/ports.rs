//! A port's way onto the fast path and off it.

use std::{fs, io, os::fd::AsFd as _, path::PathBuf};

use aya::maps::MapError;
use bridge_common::{
    Hook,
    fastpath::{Cause, Event, EventKind, Path, Port, program},
    port::{HookMode, INTERFACE_NAME, flag},
};

use super::{
    events,
    other_programs::{refuse_other_xdp, refuse_strangers},
    pinned::FastPath,
};
use crate::{
    error::{Context as _, Result},
    kernel::{
        link::{self, LinkState},
        netlink::{Kind, Link},
    },
    own_bridge,
    port::{recorded_name, since_boot},
    state::StateLock,
};

/// What is asked for a port; none of it leaves what is, or takes the default of a new port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Who chooses its hooks.
    pub mode: Option<HookMode>,
    /// Whether no rule of netfilter is meant for frames between this port and others of which the same is said.
    pub bypass_netfilter: Option<bool>,
    /// Index of the bridge that it is a port of, or becomes one of, only as long as it is attached; `None` leaves it where
    /// it is.
    pub bridge: Option<u32>,
}

impl From<HookMode> for Wish {
    fn from(mode: HookMode) -> Self {
        Self {
            mode: Some(mode),
            ..Self::default()
        }
    }
}

impl FastPath {
    /// Where the link of a port's hook is pinned.
    fn link_path(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.pin(&format!("{}{ifindex}_{}", link::PREFIX, hook.name()))
    }

    /// What has become of the link of a port's hook.
    pub(crate) fn link_state(&self, ifindex: u32, hook: Hook) -> Result<LinkState> {
        let path = self.link_path(ifindex, hook);
        link::state(&path).at(path.display(), "look at the link")
    }

    /// The port of this index.
    pub fn port(&self, ifindex: u32) -> Result<Option<Port>> {
        match self.ports.get(&ifindex, 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            port => port.at(self.folder.display(), "read a port").map(Some),
        }
    }

    /// The hooks by which a port's frames should come to the programs and don't.
    pub fn broken_hooks(&self, ifindex: u32, port: &Port) -> Result<Vec<Hook>> {
        let mut broken = Vec::new();
        for hook in Hook::ALL {
            let wanted = hook == Hook::Tcx || port.has(flag::XDP);
            if wanted && self.link_state(ifindex, hook)? != LinkState::Attached(ifindex) {
                broken.push(hook);
            }
        }
        Ok(broken)
    }

    /// Attaches the programs to a port of a bridge, or gives an attached one what is asked for and mends what others have
    /// undone. Says whether anything has changed. On failure the device is as it was.
    pub fn attach(&mut self, device: &Link, wish: impl Into<Wish>) -> Result<bool> {
        let wish = wish.into();
        if let Some(port) = self.port(device.ifindex)? {
            return self.change(device, port, wish);
        }
        match self.attach_hooks(device, wish) {
            Ok(port) => {
                let bridge = device.master.unwrap_or(port.bridge);
                self.tell(EventKind::Attached, device.ifindex, bridge, &port, Cause::Command);
                Ok(true)
            }
            Err(error) => {
                self.take_off(device.ifindex)?;
                Err(error)
            }
        }
    }

    fn attach_hooks(&mut self, device: &Link, wish: Wish) -> Result<Port> {
        let mut name = [0; INTERFACE_NAME];
        name[..device.name.len()].copy_from_slice(device.name.as_bytes());
        let wanted = wanted(device, Port::default(), wish);
        refuse_strangers(device)?;
        if wanted & flag::XDP != 0 {
            refuse_other_xdp(device)?;
        }
        let port = Port {
            flags: flag::UNFINISHED,
            name,
            bridge: wish.bridge.unwrap_or(0),
            attachment: attachment()?,
            tx_frames_at_attach: device.tx_frames,
            tx_dropped_at_attach: device.tx_dropped,
            ..Port::default()
        };
        // Before the device is changed: what is unfinished is undone by the next command.
        self.add(device.ifindex, port)?;
        take_in(device, &port)?;
        // tcx first: XDP redirects nothing without it.
        self.link(device, Hook::Tcx)?;
        if wanted & flag::XDP != 0 {
            self.link(device, Hook::Xdp)?;
        }
        let port = Port {
            flags: wanted | flag::ACTIVE,
            ..port
        };
        self.write(device.ifindex, port)?;
        Ok(port)
    }

    fn change(&mut self, device: &Link, before: Port, wish: Wish) -> Result<bool> {
        let wanted = wanted(device, before, wish);
        let broken = self.broken_hooks(device.ifindex, &before)?;
        let has_xdp = before.has(flag::XDP) && !broken.contains(&Hook::Xdp);
        if wanted & flag::XDP != 0 && !has_xdp {
            refuse_other_xdp(device)?;
        }
        if broken.contains(&Hook::Tcx) {
            self.unlink(device.ifindex, Hook::Tcx)?;
            self.link(device, Hook::Tcx)?;
        }
        let after = Port {
            flags: wanted | flag::ACTIVE,
            // Whoever has put it elsewhere wants it there.
            bridge: wish
                .bridge
                .or(device.master.filter(|&master| master == before.bridge))
                .unwrap_or(0),
            ..before
        };
        self.set_xdp(device, after, has_xdp)?;
        if after.has(flag::XDP) != before.has(flag::XDP) {
            self.tell_hooks(device, &after, Cause::Command);
        }
        let taken_in = take_in(device, &after)?;
        Ok(taken_in || after != before || !broken.is_empty())
    }

    /// Writes a port, and gives it XDP or takes it off as that says.
    fn set_xdp(&mut self, device: &Link, port: Port, has_xdp: bool) -> Result<()> {
        let wanted = port.has(flag::XDP);
        // What is on without being written down is taken off by the next command.
        if wanted {
            self.write(device.ifindex, port)?;
        }
        if !(wanted && has_xdp) {
            self.unlink(device.ifindex, Hook::Xdp)?;
        }
        if wanted && !has_xdp {
            self.link(device, Hook::Xdp)?;
        }
        if wanted {
            Ok(())
        } else {
            self.write(device.ifindex, port)
        }
    }

    /// Switches XDP of an attached port on or off, as its traffic fits.
    pub(crate) fn adapt(
        &mut self,
        device: &Link,
        port: Port,
        xdp: bool,
        now: u64,
        cause: Cause,
    ) -> Result<Port> {
        let has_xdp = port.has(flag::XDP);
        let after = Port {
            flags: port.flags & !flag::XDP | if xdp { flag::XDP } else { 0 },
            hook_changes: port.hook_changes.saturating_add(1),
            hook_changed_at: now,
            ..port
        };
        self.set_xdp(device, after, has_xdp)?;
        self.tell_hooks(device, &after, cause);
        Ok(after)
    }

    /// Tells of what has been done to a port that is, or was, of this bridge (0 if that is not known).
    fn tell(&self, kind: EventKind, ifindex: u32, bridge: u32, port: &Port, cause: Cause) {
        let event = Event {
            kind: kind as u32,
            ifindex,
            bridge,
            detail: port.flags,
            cause: cause as u32,
            name: port.name,
            ..Event::default()
        };
        events::tell(&self.folder, &event);
    }

    fn tell_hooks(&self, device: &Link, port: &Port, cause: Cause) {
        let bridge = device.master.unwrap_or(0);
        self.tell(EventKind::Hooks, device.ifindex, bridge, port, cause);
    }

    /// Puts a port back to what it was `before`, if it was one; nothing may be in the way.
    pub(crate) fn undo(&mut self, device: &Link, before: Option<Port>) -> Result<()> {
        match before {
            None => self.detach_for(device.ifindex, Cause::Undone),
            Some(before) => {
                let now = self.port(device.ifindex)?.unwrap_or_default();
                if device.master.is_none() && now.bridge != 0 {
                    own_bridge::release(device.ifindex, now.bridge)?;
                }
                self.set_xdp(device, before, now.has(flag::XDP))?;
                if before.has(flag::XDP) != now.has(flag::XDP) {
                    self.tell_hooks(device, &before, Cause::Undone);
                }
                Ok(())
            }
        }
    }

    /// Attaches a program for as long as the link stays pinned.
    fn link(&self, device: &Link, hook: Hook) -> Result<()> {
        let attach = || -> io::Result<()> {
            let name = match hook {
                Hook::Xdp => program::XDP,
                Hook::Tcx => program::TCX,
            };
            let program = link::open(&self.pin(name))?;
            let created = link::create(program.as_fd(), device.ifindex, hook)?;
            link::pin(&created, &self.link_path(device.ifindex, hook))
        };
        attach().at(
            &device.name,
            match hook {
                Hook::Xdp => "attach xdp",
                Hook::Tcx => "attach tcx",
            },
        )
    }

    fn unlink(&self, ifindex: u32, hook: Hook) -> Result<()> {
        let path = self.link_path(ifindex, hook);
        if path.exists() {
            // Removing the pin would detach too, but some time after this call.
            link::detach(&path).at(path.display(), "detach the program")?;
            fs::remove_file(&path).at(path.display(), "unpin the link")?;
        }
        Ok(())
    }

    /// Detaches the programs from a port, and takes it out of the bridge if it was put there for them. Every step may have
    /// been done before.
    pub fn detach(&mut self, ifindex: u32) -> Result<()> {
        self.detach_for(ifindex, Cause::Command)
    }

    fn detach_for(&mut self, ifindex: u32, cause: Cause) -> Result<()> {
        let port = self.port(ifindex)?;
        self.take_off(ifindex)?;
        // Of what was not attached to the end nobody was told.
        if let Some(port) = port.filter(|port| port.has(flag::ACTIVE)) {
            self.tell(EventKind::Detached, ifindex, port.bridge, &port, cause);
        }
        Ok(())
    }

    fn take_off(&mut self, ifindex: u32) -> Result<()> {
        // XDP first: what it passes finds tcx.
        for hook in [Hook::Xdp, Hook::Tcx] {
            self.unlink(ifindex, hook)?;
        }
        if let Some(port) = self.port(ifindex)?
            && port.bridge != 0
        {
            own_bridge::release(ifindex, port.bridge)?;
        }
        self.forget(ifindex)
    }

    /// Undoes what a killed command has left in the calling thread's network namespace, which changes what devices look
    /// like.
    pub(crate) fn undo_unfinished(state: &StateLock) -> Result<()> {
        let Some(mut fast) = Self::open_current(state)? else {
            return Self::clear(state);
        };
        for (ifindex, port) in fast.ports()? {
            if port.has(flag::UNFINISHED) {
                fast.detach(ifindex)?;
            } else if !port.has(flag::XDP) {
                fast.unlink(ifindex, Hook::Xdp)?;
            }
        }
        Ok(())
    }

    /// Undoes what a killed command has left, and clears ports whose device is gone, given the devices that there are.
    /// Those are answered with: a device that has the name of one now may be the one that was made anew.
    pub fn reconcile(&mut self, links: &[Link]) -> Result<Vec<Port>> {
        let mut gone = Vec::new();
        let is_there = |ifindex: u32| links.iter().any(|link| link.ifindex == ifindex);
        for (ifindex, port) in self.ports()? {
            // A device of another network namespace has its own index there; a later device can have an earlier one's.
            let attached = match self.link_state(ifindex, Hook::Tcx)? {
                LinkState::Attached(index) => index == ifindex,
                LinkState::Detached => false,
                LinkState::Unpinned => true,
            };
            if port.has(flag::UNFINISHED) {
                self.detach(ifindex)?;
            } else if !is_there(ifindex) || !attached && is_other_device(ifindex, &port, links) {
                self.detach_for(ifindex, Cause::Gone)?;
                gone.push(port);
            } else if !port.has(flag::XDP) {
                self.unlink(ifindex, Hook::Xdp)?;
            }
        }
        let _moving = self.moving();
        for (path, counters) in self.paths()? {
            if path.to != Path::GONE && !is_there(path.to) {
                self.move_path(
                    path,
                    Path {
                        to: Path::GONE,
                        ..path
                    },
                    counters,
                )?;
            }
        }
        Ok(gone)
    }
}

/// [`Port::attachment`] of a device that is attached now.
fn attachment() -> Result<u32> {
    let milliseconds = since_boot()? / 1_000_000 % (1 << 32);
    Ok(u32::try_from(milliseconds).unwrap_or(0).max(1))
}

/// Makes a device a port of the bridge that is written down; says whether it was none before.
fn take_in(device: &Link, port: &Port) -> Result<bool> {
    let wanted = port.bridge != 0 && device.master != Some(port.bridge);
    if wanted {
        own_bridge::take_in(device, port.bridge)?;
    }
    Ok(wanted)
}

/// Whether the device of this index is another than the one that was attached.
fn is_other_device(ifindex: u32, port: &Port, links: &[Link]) -> bool {
    let name = recorded_name(&port.name);
    let link = links.iter().find(|link| link.ifindex == ifindex);
    link.is_none_or(|link| !link.is_called(&name))
}

/// The flags of a port of which this is asked for.
fn wanted(device: &Link, before: Port, wish: Wish) -> u32 {
    let mut flags = before.flags & !flag::UNFINISHED;
    let new = before == Port::default();
    if let Some(mode) = wish.mode.or(new.then_some(HookMode::Auto)) {
        flags &= !(flag::AUTO | flag::XDP);
        if device.kind == Kind::Tap {
            flags |= match mode {
                HookMode::Auto => flag::AUTO | flag::XDP,
                HookMode::Xdp => flag::XDP,
                HookMode::Tcx => 0,
            };
            // `run` has chosen already.
            if mode == HookMode::Auto && before.has(flag::AUTO) {
                flags = flags & !flag::XDP | before.flags & flag::XDP;
            }
        }
    }
    match wish.bypass_netfilter {
        Some(true) => flags | flag::BYPASS_NETFILTER,
        Some(false) => flags & !flag::BYPASS_NETFILTER,
        None => flags,
    }
}
