//! `run`: attaches what a configuration asks for, as it comes, and looks after the ports of `--hook auto`, for as long as it
//! runs.
//!
//! It holds no state of its own that would be missed: when it ends, in whatever way, every port keeps the hooks that it
//! has, and forwarding goes on.

mod attacher;
mod controller;
mod notice;
mod ports;

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use bridge_common::hook_policy::INTERVAL;
use tokio::time::MissedTickBehavior;

pub use self::attacher::{Followed, Plan, Step, plan};
pub use self::notice::{Change, Notice, Vanished};
use self::{attacher::Attacher, controller::HookController};
use crate::{
    error::{Context as _, Error, Result},
    fastpath::FastPath,
    kernel::netlink::{Changes, Netlink},
    state::State,
};

/// Looks after all ports of the calling thread's network namespace, those that come later included, until `end` is
/// done or `report` fails. A configuration that is followed is read anew each time that `reload` is done.
pub async fn run<E: From<Error>>(
    state: &State,
    followed: Option<Followed>,
    mut reload: impl AsyncFnMut(),
    end: impl Future<Output = ()>,
    mut report: impl FnMut(Notice) -> Result<(), E>,
) -> Result<(), E> {
    let _only = only_one(state)?;
    let netlink = Netlink::connect()?;
    // What a killed one has left. Without any port there is nothing; what can't be opened it will tell of.
    if let Some(locked) = state.lock_existing()?
        && let Ok(Some(mut fast)) = FastPath::open_current(&locked)
    {
        fast.reconcile(&netlink.links().await?)?;
    }
    let mut end = std::pin::pin!(end);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut controller = HookController::new(state, netlink);
    // Before the devices are listed: what comes later is told of.
    let mut changes = followed.is_some().then(Changes::listen).transpose()?;
    let attacher = followed.map(|followed| Ok(Attacher::new(state, Netlink::connect()?, followed)));
    let mut attacher = attacher.transpose()?;
    if let Some(attacher) = &mut attacher {
        report(attacher.following())?;
        for notice in attacher.follow().await {
            report(notice)?;
        }
    }
    report(Notice::Ready)?;
    loop {
        let woken = tokio::select! {
            () = &mut end => return Ok(()),
            _ = ticks.tick() => Woken::Tick,
            told = next(&mut changes) => told.map(|()| Woken::Change)?,
            () = reload() => Woken::Reload,
        };
        if let Some(attacher) = &mut attacher {
            if woken == Woken::Reload {
                report(attacher.reload())?;
            }
            if woken == Woken::Change || attacher.is_due() {
                for notice in attacher.follow().await {
                    report(notice)?;
                }
            }
        }
        if woken == Woken::Tick {
            for notice in controller.tick().await {
                report(notice)?;
            }
        }
    }
}

/// Why there is something to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// It is time to read the counters.
    Tick,
    /// Devices have changed.
    Change,
    /// The configuration is to be read anew.
    Reload,
}

async fn next(changes: &mut Option<Changes>) -> Result<()> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
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
