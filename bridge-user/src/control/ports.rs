//! Reads what ports have received, and finds those that their hooks do not fit.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use bridge_common::{
    counters::PathCounters,
    fastpath::Cause,
    hook_policy::{CounterDelta, CounterSnapshot, HookPolicy},
    port::flag,
};

use super::notice::{Change, Vanished};
use crate::{
    error::Result,
    fastpath::{FastPath, refuse_other_xdp},
    kernel::netlink::Netlink,
    port::{recorded_name, since_boot},
    state::{Folder, StateLock},
};

/// The ports of `--hook auto` of the calling thread's network namespace.
#[derive(Default)]
pub(super) struct Ports {
    /// As it was opened, and what tells it from a later one.
    fast: Option<(FastPath, u64)>,
    /// By index of the device.
    watched: BTreeMap<u32, Watched>,
    /// How many ports are attached, those with hooks of their own included.
    attached: usize,
    /// Whether none of them has had traffic that matters since the last time.
    calm: bool,
}

struct Watched {
    policy: HookPolicy,
    /// At its counters, the last one.
    snapshot: CounterSnapshot,
}

/// A change that is called for.
pub(super) struct Wanted {
    pub(super) ifindex: u32,
    pub(super) xdp: bool,
    delta: CounterDelta,
}

impl Ports {
    /// Opens what is pinned, if it is new. If there is nothing any more, says what there was that no command has removed:
    /// a command takes the ports out first, and if it has not, the pins went by themselves.
    pub(super) fn find(&mut self, folder: Option<&Folder>) -> Result<Option<Vanished>> {
        let inode = folder.map_or(Ok(None), FastPath::inode)?;
        if self.fast.as_ref().map(|(_, inode)| *inode) == inode {
            return Ok(None);
        }
        self.watched.clear();
        let before = self.fast.take();
        if let (Some(folder), Some(inode)) = (folder, inode) {
            self.fast = FastPath::open(folder)?.map(|fast| (fast, inode));
        }
        let now = self.fast.as_ref().map(|(fast, _)| fast);
        Ok(before.and_then(|(before, _)| vanished(&before, now)))
    }

    /// Reads the counters, and finds the ports whose hooks do not fit.
    pub(super) fn observe(&mut self, now: Duration) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        (self.attached, self.calm) = (0, true);
        let Some((fast, _)) = &self.fast else {
            return Ok(wanted);
        };
        let mut ports = fast.ports()?;
        self.attached = ports.iter().filter(|(_, port)| port.has(flag::ACTIVE)).count();
        ports.retain(|(_, port)| port.has(flag::ACTIVE | flag::AUTO));
        self.watched
            .retain(|ifindex, _| ports.iter().any(|(index, _)| index == ifindex));
        if ports.is_empty() {
            return Ok(wanted);
        }
        let mut forwarded = BTreeMap::<u32, PathCounters>::new();
        for (path, counters) in fast.paths()? {
            *forwarded.entry(path.from).or_default() += counters;
        }
        for (ifindex, port) in ports {
            let xdp = port.has(flag::XDP);
            let snapshot = CounterSnapshot {
                counters: fast.counters(ifindex)?,
                forwarded: forwarded.remove(&ifindex).unwrap_or_default(),
            };
            let new = || Watched {
                policy: HookPolicy::new(xdp),
                snapshot,
            };
            let watched = match self.watched.entry(ifindex) {
                Entry::Vacant(place) => {
                    // It tells nothing yet: the next look is to come soon.
                    self.calm = false;
                    place.insert(new())
                }
                Entry::Occupied(place) => {
                    let watched = place.into_mut();
                    // A command has changed the hooks.
                    if watched.policy.xdp() != xdp {
                        *watched = new();
                    }
                    watched
                }
            };
            let delta = CounterDelta::between(&watched.snapshot, &snapshot, xdp);
            watched.snapshot = snapshot;
            self.calm &= delta.balance(xdp).is_calm();
            if let Some(xdp) = watched.policy.observe(&delta, now) {
                wanted.push(Wanted { ifindex, xdp, delta });
            }
        }
        Ok(wanted)
    }

    pub(super) fn attached(&self) -> usize {
        self.attached
    }

    pub(super) fn are_calm(&self) -> bool {
        self.calm
    }

    pub(super) fn policy(&mut self, ifindex: u32) -> Option<&mut HookPolicy> {
        self.watched.get_mut(&ifindex).map(|watched| &mut watched.policy)
    }
}

/// The ports of a folder that is gone, but for those that have new programs.
fn vanished(before: &FastPath, now: Option<&FastPath>) -> Option<Vanished> {
    let ports = before.ports().unwrap_or_default();
    let is_there = |ifindex: u32| now.is_some_and(|now| matches!(now.port(ifindex), Ok(Some(_))));
    let names: Vec<String> = ports
        .iter()
        .filter(|(ifindex, port)| port.has(flag::ACTIVE) && !is_there(*ifindex))
        .map(|(_, port)| recorded_name(&port.name))
        .collect();
    (!names.is_empty()).then_some(Vanished {
        event: "vanished",
        ports: names,
    })
}

impl Wanted {
    /// Makes the change, if the port is still what it was.
    pub(super) async fn change(
        &self,
        locked: &StateLock,
        netlink: &Netlink,
        interval: Duration,
    ) -> Result<Option<Change>> {
        let Some(mut fast) = FastPath::open_current(locked)? else {
            return Ok(None);
        };
        let Some(port) = fast.port(self.ifindex)? else {
            return Ok(None);
        };
        if !port.has(flag::ACTIVE | flag::AUTO) || port.has(flag::XDP) == self.xdp {
            return Ok(None);
        }
        let Some(link) = netlink.link_at(self.ifindex).await? else {
            return Ok(None);
        };
        if self.xdp {
            refuse_other_xdp(&link)?;
        }
        let master = match link.master {
            Some(master) => netlink.link_at(master).await?,
            None => None,
        };
        let port = fast.adapt(&link, port, self.xdp, since_boot()?, self.cause())?;
        Ok(Some(Change::new(
            link.name,
            master.map_or_else(String::new, |master| master.name),
            &port,
            self.cause(),
            &self.delta,
            interval,
        )))
    }

    fn cause(&self) -> Cause {
        if self.delta.vhost_net > 0 {
            Cause::VhostNet
        } else {
            Cause::Cost
        }
    }
}
