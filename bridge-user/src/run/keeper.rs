//! Reads what ports have received, and changes the hooks of those that they do not fit.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bridge_common::{
    adaptive::{Choice, Growth},
    counters::PortCounters,
    port::flag,
};

use super::{Change, Notice, Vanished, accelerated::Accelerated};
use crate::{
    bridge::{Bridge, Reading},
    error::{Error, Result},
    fastpath::FastPath,
    link::refuse_other_xdp,
    netlink::Netlink,
    port::{hooks, recorded_name},
    state::State,
};

/// Who looks after the bridges.
pub(super) struct Keeper<'state> {
    state: &'state State,
    netlink: Netlink,
    /// By name.
    bridges: BTreeMap<String, Kept>,
    /// Ports of Linux bridges.
    accelerated: Accelerated,
    /// All there were when they were opened last, others' too.
    seen: BTreeMap<String, u64>,
    start: Instant,
    /// When it looked last, since `start`.
    last: Duration,
    /// Failures that were told of in this minute.
    told: (u64, BTreeSet<String>),
}

/// A bridge, and its ports of `--hook auto`.
struct Kept {
    bridge: Reading,
    /// Tells the bridge from a later one of its name.
    inode: u64,
    /// [`bridge_common::layout::Config::changes`] when the ports were looked up.
    changes: Option<u64>,
    ports: Vec<KeptPort>,
}

/// Tells a port from a later one in its slot.
#[derive(Clone, Copy, PartialEq, Eq)]
struct PortId {
    slot: u32,
    generation: u32,
}

struct KeptPort {
    id: PortId,
    /// When they were read last.
    counters: PortCounters,
    choice: Choice,
}

/// A change that is called for.
struct Wanted {
    port: PortId,
    xdp: bool,
    growth: Growth,
}

impl<'state> Keeper<'state> {
    pub(super) fn new(state: &'state State, netlink: Netlink) -> Self {
        Self {
            state,
            netlink,
            bridges: BTreeMap::new(),
            accelerated: Accelerated::default(),
            seen: BTreeMap::new(),
            start: Instant::now(),
            last: Duration::ZERO,
            told: (0, BTreeSet::new()),
        }
    }

    /// Looks at all ports once, and changes what is to be changed.
    pub(super) async fn look(&mut self) -> Vec<Notice> {
        let now = self.start.elapsed();
        let interval = now.saturating_sub(std::mem::replace(&mut self.last, now));
        let mut failures = Vec::new();
        let mut notices = Vec::new();
        failures.extend(self.find_bridges(&mut notices).err());
        let mut wanted = Vec::new();
        for (name, kept) in &mut self.bridges {
            match kept.observe(now) {
                Ok(changes) => wanted.extend(changes.into_iter().map(|change| (name.clone(), change))),
                Err(error) => failures.push(error),
            }
        }
        for (name, wanted) in wanted {
            let changed = self.change(&name, &wanted, interval).await;
            let choice = self
                .bridges
                .get_mut(&name)
                .and_then(|kept| kept.choice(wanted.port));
            match (changed, choice) {
                (Ok(Some(change)), Some(choice)) => {
                    choice.changed(wanted.xdp, now);
                    notices.push(Notice::Changed(change));
                }
                (Err(error), Some(choice)) => {
                    choice.failed(now);
                    failures.push(error);
                }
                // The port has gone or been changed by a command, or a command is at work: the next look tells.
                _ => {}
            }
        }
        failures.extend(self.look_at_accelerated(now, interval, &mut notices).await.err());
        for error in failures {
            notices.extend(self.failed(error, now));
        }
        notices
    }

    /// The same, of ports of Linux bridges.
    async fn look_at_accelerated(
        &mut self,
        now: Duration,
        interval: Duration,
        notices: &mut Vec<Notice>,
    ) -> Result<()> {
        let Some(folder) = self.state.read()? else {
            notices.extend(self.accelerated.vanished().map(Notice::Vanished));
            return Ok(());
        };
        if !FastPath::is_there(&folder)? {
            notices.extend(self.accelerated.vanished().map(Notice::Vanished));
            return Ok(());
        }
        for wanted in self.accelerated.observe(&folder, now)? {
            // A command is at work: the next look tells.
            let Some(locked) = self.state.lock_if_free()? else {
                return Ok(());
            };
            let changed = wanted.change(&locked, &self.netlink, interval).await;
            let Some(choice) = self.accelerated.choice(wanted.ifindex) else {
                continue;
            };
            match changed {
                Ok(Some(change)) => {
                    choice.changed(wanted.xdp, now);
                    notices.push(Notice::Changed(change));
                }
                Ok(None) => {}
                Err(error) => {
                    choice.failed(now);
                    notices.extend(self.failed(error, now));
                }
            }
        }
        Ok(())
    }

    /// The same failure can come with every look; once a minute is enough.
    fn failed(&mut self, error: Error, now: Duration) -> Option<Notice> {
        let minute = now.as_secs() / 60;
        if self.told.0 != minute {
            self.told = (minute, BTreeSet::new());
        }
        self.told
            .1
            .insert(error.to_string())
            .then_some(Notice::Failed(error))
    }

    /// Opens bridges that are new, and forgets those that have gone. Tells of those that no command has removed, and of
    /// what is new and can't be opened.
    fn find_bridges(&mut self, notices: &mut Vec<Notice>) -> Result<()> {
        let inodes = self.state.bridge_inodes()?;
        if inodes == self.seen {
            return Ok(());
        }
        let gone = self
            .bridges
            .extract_if(.., |name, kept| inodes.get(name) != Some(&kept.inode));
        notices.extend(gone.filter_map(|(name, kept)| kept.vanished(name)));
        // A new bridge is not whole before its command has ended.
        let Some(locked) = self.state.lock_if_free()? else {
            return Ok(());
        };
        let mut opened = Reading::open_all(&locked)?;
        opened
            .unreadable
            .retain(|entry| self.seen.get(&entry.bridge) != inodes.get(&entry.bridge));
        for bridge in opened.bridges {
            if let Some(&inode) = inodes.get(&bridge.name) {
                self.bridges
                    .entry(bridge.name.clone())
                    .or_insert_with(|| Kept::new(bridge, inode));
            }
        }
        self.seen = inodes;
        notices.extend(opened.unreadable.into_iter().map(Notice::LeftAlone));
        Ok(())
    }

    /// Makes a change, if the port is still what it was.
    async fn change(&self, name: &str, wanted: &Wanted, interval: Duration) -> Result<Option<Change>> {
        let Some(locked) = self.state.lock_if_free()? else {
            return Ok(None);
        };
        let mut bridge = match Bridge::open(&locked, name) {
            Err(Error::NoBridge { .. } | Error::Unfinished { .. }) => return Ok(None),
            bridge => bridge?,
        };
        let PortId { slot, generation } = wanted.port;
        let port = bridge.port(slot)?;
        let same = port.generation == generation && port.has(flag::ACTIVE | flag::AUTO);
        if !same || port.has(flag::XDP) == wanted.xdp || !bridge.has_device(slot)? {
            return Ok(None);
        }
        let Some(link) = &self.netlink.link_at(port.ifindex).await? else {
            return Ok(None);
        };
        if wanted.xdp {
            refuse_other_xdp(link)?;
        }
        let port = bridge.adapt_hooks(slot, link, wanted.xdp)?;
        Ok(Some(Change::new(
            link.name.clone(),
            name.to_owned(),
            hooks(port.flags),
            port.hook_changes,
            &wanted.growth,
            wanted.xdp,
            interval,
        )))
    }
}

impl Kept {
    fn new(bridge: Reading, inode: u64) -> Self {
        Self {
            bridge,
            inode,
            changes: None,
            ports: Vec::new(),
        }
    }

    /// The bridge's folder is gone. A command takes the ports out first; if it has not, the folder went by itself: its
    /// bpffs was unmounted, or somebody has removed it.
    fn vanished(&self, name: String) -> Option<Notice> {
        let ports: Vec<String> = self
            .bridge
            .occupied()
            .into_iter()
            .flatten()
            .filter(|(_, port)| port.has(flag::ACTIVE))
            .map(|(_, port)| recorded_name(&port.name))
            .collect();
        (!ports.is_empty()).then_some(Notice::Vanished(Vanished {
            event: "vanished",
            master: name,
            ports,
        }))
    }

    fn choice(&mut self, id: PortId) -> Option<&mut Choice> {
        let mut ports = self.ports.iter_mut();
        ports.find(|port| port.id == id).map(|port| &mut port.choice)
    }

    /// Reads the counters, and finds the ports whose hooks do not fit.
    fn observe(&mut self, now: Duration) -> Result<Vec<Wanted>> {
        let changes = self.bridge.config()?.changes;
        if self.changes != Some(changes) {
            self.find_ports()?;
            self.changes = Some(changes);
        }
        let mut wanted = Vec::new();
        for port in &mut self.ports {
            let counters = self.bridge.counters(port.id.slot)?;
            let growth = Growth::between(&std::mem::replace(&mut port.counters, counters), &counters);
            if let Some(xdp) = port.choice.observe(&growth, now) {
                wanted.push(Wanted {
                    port: port.id,
                    xdp,
                    growth,
                });
            }
        }
        Ok(wanted)
    }

    /// Commands have changed something: ports may have come, gone, or changed their hooks.
    fn find_ports(&mut self) -> Result<()> {
        let mut before = std::mem::take(&mut self.ports);
        for (slot, port) in self.bridge.occupied()? {
            if !port.has(flag::ACTIVE | flag::AUTO) {
                continue;
            }
            let xdp = port.has(flag::XDP);
            let id = PortId {
                slot,
                generation: port.generation,
            };
            let place = before.iter().position(|known| known.id == id);
            let kept = match place.map(|place| before.swap_remove(place)) {
                Some(kept) if kept.choice.xdp() == xdp => kept,
                _ => KeptPort {
                    id,
                    counters: self.bridge.counters(slot)?,
                    choice: Choice::new(xdp),
                },
            };
            self.ports.push(kept);
        }
        Ok(())
    }
}
