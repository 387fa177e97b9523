//! One port's way into a bridge and out of it.

use std::io;

use aya::{Pod, maps::PerCpuValues, util::nr_cpus};
use bridge_common::{
    Hook,
    counters::{DetachedPaths, PathCounters, PortCounters, PortId},
    port::{HookMode, INTERFACE_NAME, Ingress, Port, flag},
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    bridge::Bridge,
    error::{Context as _, Error, Result},
    journal::{self, Journal},
    netlink::{Kind, Link, Netlink, Queueing, Queueings},
    sys::leave_programs,
    sysctl,
};

/// The name that a device had when it was attached, as its port's record has it.
pub fn recorded_name(name: &[u8; INTERFACE_NAME]) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// Names of the hooks that frames from a port with these [`flag`]s meet, first to last.
pub fn hooks(flags: u32) -> Vec<&'static str> {
    Hook::ALL
        .into_iter()
        .filter(|&hook| hook == Hook::Tcx || flags & flag::XDP != 0)
        .map(Hook::name)
        .collect()
}

/// What tells how devices were before they become ports.
pub(crate) struct Originals {
    /// Their queueing disciplines.
    pub queueings: Queueings,
    /// Of devices that are not given back yet.
    pub journal: Journal,
}

impl Bridge<'_> {
    /// Makes a device the port in a free slot, with the hooks of this mode if it is a tap, or takes the place of the port
    /// of its name that was there `before`: what was counted stays. On failure the device is as it was.
    pub(crate) async fn add_port(
        &mut self,
        netlink: &Netlink,
        link: &Link,
        originals: &Originals,
        mode: HookMode,
        slot: u32,
        before: Option<&Port>,
    ) -> Result<()> {
        let result = self.fill_slot(netlink, link, originals, mode, slot, before).await;
        if result.is_err() {
            self.remove_ports(netlink, &[slot], |_| ()).await?;
        }
        result
    }

    async fn fill_slot(
        &mut self,
        netlink: &Netlink,
        link: &Link,
        originals: &Originals,
        mode: HookMode,
        slot: u32,
        before: Option<&Port>,
    ) -> Result<()> {
        let mut name = [0; INTERFACE_NAME];
        name[..link.name.len()].copy_from_slice(link.name.as_bytes());
        let tap = link.kind == Kind::Tap;
        let mut port = Port {
            ifindex: link.ifindex,
            generation: self.take_generation()?,
            flags: flag::UNFINISHED,
            hook_changes: before.map_or(0, |before| before.hook_changes),
            hook_changed_at: before.map_or(0, |before| before.hook_changed_at),
            tx_dropped_at_attach: link.tx_dropped,
            name,
        };
        // What is to be restored is written down before it is changed: if this process is killed, the next command
        // finds an unfinished port and undoes it.
        // What a bridge has changed that went with its bpffs is not what the device was like.
        let noted = originals.journal.flags(link).unwrap_or(0);
        if sysctl::ipv6_enabled(&link.name)? || noted & flag::RESTORE_IPV6 != 0 {
            port.flags |= flag::RESTORE_IPV6;
        }
        // A device that was in another network namespace meanwhile is still as promiscuous as we have made it.
        let ours = before
            .is_some_and(|before| before.ifindex == link.ifindex && before.has(flag::RESTORE_PROMISCUOUS));
        let ours = ours || noted & flag::RESTORE_PROMISCUOUS != 0;
        if !tap && (!link.promiscuous || ours) {
            port.flags |= flag::RESTORE_PROMISCUOUS;
        }
        // A tap has a ring of its own. What an administrator has chosen stays.
        let queueing = originals.queueings.of(link.ifindex);
        let chosen_by_us = queueing == Queueing::ChosenNone && noted & flag::RESTORE_QUEUE != 0;
        if tap && (queueing == Queueing::Default || chosen_by_us) {
            port.flags |= flag::RESTORE_QUEUE;
        }
        self.write_port(slot, port)?;
        originals.journal.write(link, port.flags);
        self.set_device(slot, link.ifindex)
            .at(&link.name, "enter into the devmap")?;
        if port.has(flag::RESTORE_IPV6) {
            sysctl::set_ipv6(&link.name, false)?;
        }
        if port.has(flag::RESTORE_PROMISCUOUS) {
            netlink.set_promiscuous(link, true).await?;
        }
        if port.has(flag::RESTORE_QUEUE) {
            netlink.set_no_queue(link).await?;
        }
        let ingress = Ingress {
            generation: port.generation,
            slot,
        };
        self.ingress
            .insert(link.ifindex, ingress, 0)
            .at(&link.name, "enter into the bridge")?;
        self.forget_recent()?;
        self.link(slot, Hook::Tcx, link.ifindex, &link.name)?;
        if tap {
            port.flags |= flag::NATIVE_TARGET;
            if mode == HookMode::Auto {
                port.flags |= flag::AUTO;
            }
            if mode != HookMode::Tcx {
                self.link(slot, Hook::Xdp, link.ifindex, &link.name)?;
                port.flags |= flag::XDP;
            }
        }
        let slots_in_use = self.config()?.slots_in_use;
        self.set_slots_in_use(slots_in_use.max(slot + 1))?;
        port.flags = port.flags & !flag::UNFINISHED | flag::ACTIVE;
        self.write_port(slot, port)
    }

    /// Gives an attached tap the hooks that it shall have from now on.
    pub(crate) fn set_hooks(&mut self, slot: u32, link: &Link, auto: bool, xdp: bool) -> Result<()> {
        let mut port = self.port(slot)?;
        port.flags = port.flags & !flag::AUTO | if auto { flag::AUTO } else { 0 };
        self.set_xdp(slot, link, port, xdp).map(drop)
    }

    /// Switches the XDP program of an attached tap on or off, and writes down that this was done.
    pub(crate) fn adapt_hooks(&mut self, slot: u32, link: &Link, xdp: bool) -> Result<Port> {
        let mut port = self.port(slot)?;
        port.hook_changes = port.hook_changes.wrapping_add(1);
        port.hook_changed_at = since_boot()?;
        self.set_xdp(slot, link, port, xdp)
    }

    /// Writes the port, and attaches the XDP program or detaches it. No frame is lost or overtaken meanwhile: a tap's
    /// driver takes each frame through either hook before it returns to the VMM (`tun_get_user`), and tcx takes all that
    /// XDP does not.
    ///
    /// The record says that XDP is on only while it is: a link that it does not know of is what a killed command left.
    fn set_xdp(&mut self, slot: u32, link: &Link, mut port: Port, on: bool) -> Result<Port> {
        if on && !port.has(flag::XDP) {
            self.unlink(slot, Hook::Xdp)?;
            self.link(slot, Hook::Xdp, link.ifindex, &link.name)?;
            port.flags |= flag::XDP;
        } else if !on {
            port.flags &= !flag::XDP;
        }
        self.write_port(slot, port)?;
        if !on {
            self.unlink(slot, Hook::Xdp)?;
        }
        // By this count `run` sees that hooks have changed.
        self.forget_recent()?;
        Ok(port)
    }

    /// Empties slots and gives their devices back as they were. Every step may have been done before. Answers, through
    /// `done`, how many devices have been given back so far. One that can't be does not keep the others from it.
    pub(crate) async fn remove_ports(
        &mut self,
        netlink: &Netlink,
        slots: &[u32],
        done: impl FnMut(usize),
    ) -> Result<()> {
        let released = self.release(netlink, slots, done).await?;
        // Who reads counters meanwhile begins anew. One that a killed command has left odd stays so until here.
        let settling = self.config()?.settling;
        self.set_settling(settling | 1)?;
        // In this order a detach that was killed is repeated: see `retire_counters`.
        for &slot in &released.slots {
            let port = self.port(slot)?;
            self.retire_counters(slot, &port)?;
            self.write_port(slot, Port::EMPTY)?;
        }
        self.set_settling((settling | 1).wrapping_add(1))?;
        self.set_slots_in_use(self.occupied()?.last().map_or(0, |(slot, _)| slot + 1))?;
        released.failure.map_or(Ok(()), Err)
    }

    /// Takes ports out of forwarding and gives their devices back; their slots stay unfinished.
    pub(crate) async fn release(
        &mut self,
        netlink: &Netlink,
        slots: &[u32],
        mut done: impl FnMut(usize),
    ) -> Result<Released> {
        let mut released = Released::default();
        let mut slots = slots.to_vec();
        slots.sort_unstable();
        slots.dedup();
        slots.retain(|&slot| self.port(slot).is_ok_and(|port| port.ifindex != 0));
        if slots.is_empty() {
            return Ok(released);
        }
        let queueings = netlink.queueings().await?;
        let mut waited = true;
        for (slot, count) in slots.into_iter().zip(1..) {
            match self.release_one(netlink, &queueings, slot).await {
                Ok(every_cpu_has_left) => {
                    waited &= every_cpu_has_left;
                    released.slots.push(slot);
                }
                Err(error) => drop(released.failure.get_or_insert(error)),
            }
            done(count);
        }
        self.forget_ports(&released.slots)?;
        if !waited {
            leave_programs();
        }
        Ok(released)
    }

    /// Says whether every CPU has left the programs since they could use the port.
    async fn release_one(&mut self, netlink: &Netlink, queueings: &Queueings, slot: u32) -> Result<bool> {
        let mut port = self.port(slot)?;
        port.flags = port.flags & !flag::ACTIVE | flag::UNFINISHED;
        self.write_port(slot, port)?;
        self.unlink(slot, Hook::Xdp)?;
        let waited = self.unlink(slot, Hook::Tcx)?;
        if self.has_device(slot)? {
            restore(netlink, queueings, &port).await?;
        } else if netlink.link_at(port.ifindex).await?.is_none() {
            journal::forget(port.ifindex)?;
        }
        self.set_device(slot, 0).at(&self.name, "write the devmap")?;
        self.leave(slot, &port)?;
        Ok(waited)
    }

    /// No frame comes in by the port any more.
    fn leave(&mut self, slot: u32, port: &Port) -> Result<()> {
        let entry = self.ingress.get(&port.ifindex, 0);
        if entry.is_ok_and(|ingress| ingress.slot == slot) {
            self.ingress
                .remove(&port.ifindex)
                .at(&self.name, "leave the bridge")?;
        }
        Ok(())
    }

    /// Attaches programs that somebody has detached from an attached port.
    pub(crate) fn attach_again(&mut self, slot: u32, link: &Link, hooks: &[Hook]) -> Result<()> {
        for &hook in hooks {
            self.unlink(slot, hook)?;
            self.link(slot, hook, link.ifindex, &link.name)?;
        }
        Ok(())
    }

    /// Undoes what a killed command has left, and clears ports whose device is gone.
    pub(crate) async fn tidy(&mut self, netlink: &Netlink) -> Result<()> {
        self.tidy_for(netlink, &[]).await
    }

    /// As [`Bridge::tidy`], but keeps what is recorded of ports of these names, since they return.
    pub(crate) async fn tidy_for(&mut self, netlink: &Netlink, returning: &[&str]) -> Result<()> {
        let mut remains = Vec::new();
        for (slot, port) in self.occupied()? {
            if port.has(flag::UNFINISHED) {
                remains.push(slot);
            } else if !self.has_device(slot)? {
                if !returning.contains(&&*recorded_name(&port.name)) {
                    remains.push(slot);
                    continue;
                }
                // The device may be here again, or in another network namespace.
                self.unlink(slot, Hook::Xdp)?;
                self.unlink(slot, Hook::Tcx)?;
                self.leave(slot, &port)?;
                self.forget_ports(&[slot])?;
            } else if !port.has(flag::XDP) {
                self.unlink(slot, Hook::Xdp)?;
            }
        }
        if remains.is_empty() {
            return Ok(());
        }
        self.remove_ports(netlink, &remains, |_| ()).await
    }

    fn write_port(&mut self, slot: u32, port: Port) -> Result<()> {
        self.ports.set(slot, port, 0).at(&self.name, "write a port")
    }

    fn take_generation(&mut self) -> Result<u32> {
        let generation = self.meta.next_generation;
        // 0 is an empty slot's; 4 billion attaches later an entry that old has aged out.
        self.meta.next_generation = generation.checked_add(1).unwrap_or(1);
        self.record
            .set(0, self.meta, 0)
            .at(&self.name, "write its record")?;
        Ok(generation)
    }

    fn set_settling(&mut self, settling: u64) -> Result<()> {
        let config = self.config()?;
        self.set_config(bridge_common::layout::Config { settling, ..config })
    }

    fn set_slots_in_use(&mut self, slots_in_use: u32) -> Result<()> {
        let config = self.config()?;
        self.set_config(bridge_common::layout::Config {
            slots_in_use,
            ..config
        })
    }

    /// Clears a slot's counters, once its share of the other ports' is noted there. No program counts for the slot any
    /// more. Killed in the middle of it, it is done again: what has been noted is not noted twice, since no other port
    /// is cleared meanwhile.
    fn retire_counters(&mut self, slot: u32, port: &Port) -> Result<()> {
        let gone = PortId {
            slot,
            generation: port.generation,
        };
        let sent = self.paths_from(slot)?;
        for (other, _) in self.occupied()? {
            if other == slot {
                continue;
            }
            let received = self.path(other, slot)?;
            let mut detached = self.detached_paths(other)?;
            if detached.last != gone {
                detached.forwarded += received.total();
                detached.transmitted += sent[other as usize].total();
                detached.last = gone;
                self.set_detached_paths(other, detached)?;
            }
        }
        for (other, _) in self.occupied()? {
            self.clear_path(slot, other)?;
            self.clear_path(other, slot)?;
        }
        self.set_detached_paths(slot, DetachedPaths::default())?;
        let zero = per_cpu(PortCounters::default()).at(&self.name, "clear counters")?;
        self.port_counters
            .set(slot, zero, 0)
            .at(&self.name, "clear counters")
    }

    fn path(&self, from: u32, to: u32) -> Result<PathCounters> {
        let values = self.paths.get(&(from * self.meta.max_ports + to), 0);
        let mut sum = PathCounters::default();
        let values = values.at(&self.name, "read counters")?;
        values.iter().for_each(|value| sum += *value);
        Ok(sum)
    }

    fn clear_path(&mut self, from: u32, to: u32) -> Result<()> {
        if self.path(from, to)? == PathCounters::default() {
            return Ok(());
        }
        let zero = per_cpu(PathCounters::default()).at(&self.name, "clear counters")?;
        self.paths
            .set(from * self.meta.max_ports + to, zero, 0)
            .at(&self.name, "clear counters")
    }

    fn set_detached_paths(&mut self, slot: u32, paths: DetachedPaths) -> Result<()> {
        self.detached.set(slot, paths, 0).at(&self.name, "write counters")
    }
}

/// A value for each CPU.
fn per_cpu<T: Pod>(value: T) -> io::Result<PerCpuValues<T>> {
    PerCpuValues::try_from(vec![value; nr_cpus().map_err(|(_, error)| error)?])
}

/// In ns, of the clock that goes on while the machine sleeps.
pub(crate) fn since_boot() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).at("CLOCK_BOOTTIME", "read")?;
    let now = std::time::Duration::from(now).as_nanos();
    u64::try_from(now).at("CLOCK_BOOTTIME", "read")
}

/// What has become of ports that were to be released.
#[derive(Default)]
pub(crate) struct Released {
    /// Those that were, sorted.
    slots: Vec<u32>,
    /// Why the first one was not that could not be.
    pub(crate) failure: Option<Error>,
}

/// Gives a device its settings back. It may have got another name, and may go at any moment.
pub(crate) async fn restore(netlink: &Netlink, queueings: &Queueings, port: &Port) -> Result<()> {
    if let Some(link) = netlink.link_at(port.ifindex).await? {
        match restore_link(netlink, queueings, port, &link).await {
            Err(_) if netlink.link_at(port.ifindex).await?.is_none() => {}
            restored => restored?,
        }
    }
    journal::forget(port.ifindex)
}

async fn restore_link(netlink: &Netlink, queueings: &Queueings, port: &Port, link: &Link) -> Result<()> {
    if port.has(flag::RESTORE_PROMISCUOUS) {
        netlink.set_promiscuous(link, false).await?;
    }
    // Whoever has chosen another one meanwhile keeps it.
    if port.has(flag::RESTORE_QUEUE) && queueings.of(port.ifindex) == Queueing::ChosenNone {
        netlink.reset_queue(link).await?;
    }
    if port.has(flag::RESTORE_IPV6) {
        sysctl::set_ipv6(&link.name, true)?;
    }
    Ok(())
}
