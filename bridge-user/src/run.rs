//! `run`: looks after the ports of `--hook auto` for as long as it runs.
//!
//! It holds no state of its own that would be missed: when it ends, in whatever way, every port keeps the hooks that it
//! has, and forwarding goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::{Duration, Instant},
};

use bridge_common::{
    Hook,
    adaptive::{Choice, Growth, INTERVAL},
    counters::PortCounters,
    port::flag,
};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use crate::{
    attach::refuse_other_xdp,
    bridge::Bridge,
    error::{Context as _, Error, Result},
    netlink::Netlink,
    port::hooks,
    state::State,
};

/// Something that `run` has to tell.
#[derive(Debug)]
pub enum Notice {
    /// It looks after ports from now on.
    Ready,
    /// It has changed a port's hooks.
    Changed(Change),
    /// It could not do so, or not read a bridge; it goes on.
    Failed(Error),
}

/// Hooks that have changed, and the traffic that they fit better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// "hook".
    pub event: &'static str,
    /// The port's device.
    pub ifname: String,
    /// The bridge.
    pub master: String,
    /// The hooks that frames from the port meet now, first to last.
    pub hooks: Vec<&'static str>,
    /// How many times they have changed since the port was attached.
    pub hook_changes: u32,
    /// The time that the counts below are of, in milliseconds.
    pub interval_ms: u64,
    /// Frames received from the port.
    pub frames: u64,
    /// Those that XDP left to tcx.
    pub passed_up: u64,
    /// Those that native XDP can't take, and their octets.
    pub bulk_frames: u64,
    /// See `bulk_frames`.
    pub bulk_bytes: u64,
    /// CPU time in nanoseconds that XDP saves on this traffic.
    pub xdp_saves_ns: u64,
    /// CPU time in nanoseconds that XDP costs on this traffic.
    pub xdp_costs_ns: u64,
}

/// Looks after all bridges of the calling thread's network namespace, those that come later included, until `end` is
/// done or `report` fails.
pub async fn run<E: From<Error>>(
    state: &State,
    end: impl Future<Output = ()>,
    mut report: impl FnMut(Notice) -> Result<(), E>,
) -> Result<(), E> {
    let _only = only_one(state)?;
    let netlink = Netlink::connect()?;
    // What a killed one has left. Without any bridge there is nothing.
    if let Some(locked) = state.lock_existing()? {
        for bridge in &mut Bridge::open_all(&locked)? {
            bridge.tidy(&netlink).await?;
        }
    }
    let mut end = std::pin::pin!(end);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keeper = Keeper::new(state, netlink);
    report(Notice::Ready)?;
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            _ = ticks.tick() => {}
        }
        for notice in keeper.look().await {
            report(notice)?;
        }
    }
}

/// Whether somebody looks after the ports of the calling thread's network namespace.
pub fn is_running(state: &State) -> bool {
    let connected = UnixDatagram::unbound().and_then(|socket| socket.connect_addr(&name(state)?));
    connected.is_ok()
}

/// A name in the network namespace, which goes with the process that has it.
fn name(state: &State) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("tapbridge-run:{}", state.root().display()))
}

/// There is one in a network namespace: two would take each other's changes for an administrator's.
fn only_one(state: &State) -> Result<UnixDatagram> {
    match name(state).and_then(|name| UnixDatagram::bind_addr(&name)) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Error::Running {
            path: state.root().to_owned(),
        }),
        bound => bound.at(state.root().display(), "make sure that no other 'run' is at work"),
    }
}

/// Who looks after the bridges.
struct Keeper<'state> {
    state: &'state State,
    netlink: Netlink,
    /// By name.
    bridges: BTreeMap<String, Kept>,
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
    bridge: Bridge,
    /// Tells the bridge from a later one of its name.
    inode: u64,
    /// [`bridge_common::layout::Config::changes`] when the ports were looked up.
    changes: Option<u64>,
    ports: Vec<KeptPort>,
}

struct KeptPort {
    slot: u32,
    generation: u32,
    /// When they were read last.
    counters: PortCounters,
    choice: Choice,
}

/// A change that is called for.
struct Wanted {
    slot: u32,
    generation: u32,
    xdp: bool,
    growth: Growth,
}

impl<'state> Keeper<'state> {
    fn new(state: &'state State, netlink: Netlink) -> Self {
        Self {
            state,
            netlink,
            bridges: BTreeMap::new(),
            seen: BTreeMap::new(),
            start: Instant::now(),
            last: Duration::ZERO,
            told: (0, BTreeSet::new()),
        }
    }

    /// Looks at all ports once, and changes what is to be changed.
    async fn look(&mut self) -> Vec<Notice> {
        let now = self.start.elapsed();
        let interval = now.saturating_sub(std::mem::replace(&mut self.last, now));
        let mut notices = Vec::new();
        if let Err(error) = self.find_bridges() {
            notices.extend(self.failed(error, now));
        }
        let mut wanted = Vec::new();
        let mut failures = Vec::new();
        for (name, kept) in &mut self.bridges {
            match kept.observe(interval, now) {
                Ok(changes) => wanted.extend(changes.into_iter().map(|change| (name.clone(), change))),
                Err(error) => failures.push(error),
            }
        }
        for (name, wanted) in wanted {
            let changed = self.change(&name, &wanted, interval).await;
            let choice = self.bridges.get_mut(&name).and_then(|kept| kept.choice(&wanted));
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
        for error in failures {
            notices.extend(self.failed(error, now));
        }
        notices
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

    /// Opens bridges that are new, and forgets those that have gone.
    fn find_bridges(&mut self) -> Result<()> {
        let inodes = self.state.bridge_inodes()?;
        if inodes == self.seen {
            return Ok(());
        }
        self.bridges
            .retain(|name, kept| inodes.get(name) == Some(&kept.inode));
        // A new bridge is not whole before its command has ended.
        let Some(locked) = self.state.lock_if_free()? else {
            return Ok(());
        };
        for bridge in Bridge::open_all(&locked)? {
            if let Some(&inode) = inodes.get(&bridge.name) {
                self.bridges
                    .entry(bridge.name.clone())
                    .or_insert_with(|| Kept::new(bridge, inode));
            }
        }
        self.seen = inodes;
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
        let port = bridge.port(wanted.slot)?;
        let same = port.generation == wanted.generation && port.has(flag::ACTIVE | flag::AUTO);
        if !same || port.has(flag::XDP) == wanted.xdp || !bridge.has_device(wanted.slot)? {
            return Ok(None);
        }
        let links = self.netlink.links().await?;
        let Some(link) = links.iter().find(|link| link.ifindex == port.ifindex) else {
            return Ok(None);
        };
        if wanted.xdp {
            refuse_other_xdp(link)?;
        }
        let port = bridge.adapt_hooks(wanted.slot, link, wanted.xdp)?;
        let Growth {
            frames,
            passed_up,
            bulk,
        } = wanted.growth;
        let balance = wanted.growth.balance(!wanted.xdp);
        Ok(Some(Change {
            event: "hook",
            ifname: link.name.clone(),
            master: name.to_owned(),
            hooks: hooks(&port).into_iter().map(Hook::name).collect(),
            hook_changes: port.hook_changes,
            interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
            frames,
            passed_up,
            bulk_frames: bulk.frames,
            bulk_bytes: bulk.bytes,
            xdp_saves_ns: balance.saved,
            xdp_costs_ns: balance.spent,
        }))
    }
}

impl Kept {
    fn new(bridge: Bridge, inode: u64) -> Self {
        Self {
            bridge,
            inode,
            changes: None,
            ports: Vec::new(),
        }
    }

    fn choice(&mut self, wanted: &Wanted) -> Option<&mut Choice> {
        let mut ports = self.ports.iter_mut();
        let same = |port: &&mut KeptPort| (port.slot, port.generation) == (wanted.slot, wanted.generation);
        ports.find(same).map(|port| &mut port.choice)
    }

    /// Reads the counters, and finds the ports whose hooks do not fit.
    fn observe(&mut self, interval: Duration, now: Duration) -> Result<Vec<Wanted>> {
        let changes = self.bridge.config()?.changes;
        if self.changes != Some(changes) {
            self.find_ports()?;
            self.changes = Some(changes);
        }
        let mut wanted = Vec::new();
        for port in &mut self.ports {
            let counters = self.bridge.counters(port.slot)?;
            let growth = Growth::between(&std::mem::replace(&mut port.counters, counters), &counters);
            if let Some(xdp) = port.choice.observe(&growth, interval, now) {
                wanted.push(Wanted {
                    slot: port.slot,
                    generation: port.generation,
                    xdp,
                    growth,
                });
            }
        }
        Ok(wanted)
    }

    /// Commands have changed something: ports may have come, gone, or changed their hooks.
    fn find_ports(&mut self) -> Result<()> {
        let mut known = std::mem::take(&mut self.ports);
        for (slot, port) in self.bridge.occupied()? {
            if !port.has(flag::ACTIVE | flag::AUTO) {
                continue;
            }
            let xdp = port.has(flag::XDP);
            let same = |other: &KeptPort| (other.slot, other.generation) == (slot, port.generation);
            let known = known.iter().position(same).map(|index| known.swap_remove(index));
            let kept = match known {
                Some(kept) if kept.choice.xdp() == xdp => kept,
                _ => KeptPort {
                    slot,
                    generation: port.generation,
                    counters: self.bridge.counters(slot)?,
                    choice: Choice::new(xdp),
                },
            };
            self.ports.push(kept);
        }
        Ok(())
    }
}
