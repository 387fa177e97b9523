//! `run`: looks after the ports of `--hook auto` for as long as it runs.
//!
//! It holds no state of its own that would be missed: when it ends, in whatever way, every port keeps the hooks that it
//! has, and forwarding goes on.

mod controller;
mod ports;

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use bridge_common::{
    forwarding::Reason,
    hook_policy::{CounterDelta, INTERVAL},
};
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use self::controller::HookController;
use crate::{
    error::{Context as _, Error, Result},
    fastpath::FastPath,
    netlink::Netlink,
    state::State,
};

/// Something that `run` has to tell.
#[derive(Debug)]
pub enum Notice {
    /// It looks after ports from now on.
    Ready,
    /// It has changed a port's hooks.
    Changed(Change),
    /// It could not do so, or not read what is pinned; it goes on.
    Failed(Error),
    /// What was pinned is gone, though no command has removed it; it goes on with what comes.
    Vanished(Vanished),
}

/// Pins have been removed, with which the programs have left the ports; their bridges go on without them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vanished {
    /// "vanished".
    pub event: &'static str,
    /// The ports, by the names they had when they were attached.
    pub ports: Vec<String>,
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
    /// Why: "cost", or [`Reason::VhostNet`]'s name.
    pub reason: &'static str,
    /// The time that the counts below are of, in milliseconds.
    pub interval_ms: u64,
    /// Frames received from the port.
    pub frames: u64,
    /// Those that XDP left to tcx.
    pub passed_up: u64,
    /// Those that native XDP can't take, and their bytes.
    pub bulk_frames: u64,
    /// See `bulk_frames`.
    pub bulk_bytes: u64,
    /// CPU time in nanoseconds that XDP saves on this traffic.
    pub xdp_saves_ns: u64,
    /// CPU time in nanoseconds that XDP costs on this traffic.
    pub xdp_costs_ns: u64,
}

impl Change {
    /// Of a port that has this delta, and has XDP from now on or has it no more.
    fn new(
        ifname: String,
        master: String,
        hooks: Vec<&'static str>,
        hook_changes: u32,
        delta: &CounterDelta,
        xdp: bool,
        interval: Duration,
    ) -> Self {
        let CounterDelta {
            frames,
            passed_up,
            vhost_net,
            bulk,
        } = *delta;
        let balance = delta.balance(!xdp);
        Self {
            event: "hook",
            ifname,
            master,
            hooks,
            hook_changes,
            reason: if vhost_net > 0 {
                Reason::VhostNet.name()
            } else {
                "cost"
            },
            interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
            frames,
            passed_up,
            bulk_frames: bulk.frames,
            bulk_bytes: bulk.bytes,
            xdp_saves_ns: balance.saved,
            xdp_costs_ns: balance.spent,
        }
    }
}

/// Looks after all ports of the calling thread's network namespace, those that come later included, until `end` is
/// done or `report` fails.
pub async fn run<E: From<Error>>(
    state: &State,
    end: impl Future<Output = ()>,
    mut report: impl FnMut(Notice) -> Result<(), E>,
) -> Result<(), E> {
    let _only = only_one(state)?;
    let netlink = Netlink::connect()?;
    // What a killed one has left. Without any port there is nothing; what can't be opened it will tell of.
    if let Some(locked) = state.lock_existing()?
        && let Ok(Some(mut fast)) = FastPath::open(&locked)
    {
        fast.reconcile(&netlink.links().await?)?;
    }
    let mut end = std::pin::pin!(end);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut controller = HookController::new(state, netlink);
    report(Notice::Ready)?;
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            _ = ticks.tick() => {}
        }
        for notice in controller.tick().await {
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
