//! `run`: attaches what a configuration asks for, as it comes, and looks after the ports of `--hook auto`, for as long as it
//! runs.
//!
//! It holds no state of its own that would be missed, and tells whoever asks what it does: when it ends, in whatever way,
//! every port keeps the hooks that it has, and forwarding goes on.

mod attacher;
mod controller;
mod notice;
mod ports;
mod presence;
mod status;

use bridge_common::hook_policy::INTERVAL;
use tokio::{net::UnixStream, time::MissedTickBehavior};

use self::{attacher::Attacher, controller::HookController, presence::answer, status::Journal};
pub use self::{
    attacher::{Followed, Plan, Step, plan},
    notice::{Change, Load, Notice, Vanished},
    presence::{Presence, is_running, status},
    status::{Configured, Event, Failing, Status},
};
use crate::{
    error::{Error, Result},
    fastpath::FastPath,
    kernel::netlink::{Changes, Netlink},
    operations::attach::Gone,
    state::State,
};

/// Looks after all ports of the calling thread's network namespace, those that come later included, until `end` is
/// done or `report` fails. A configuration that is followed is read anew each time that `reload` is done.
pub async fn run<E: From<Error>>(
    state: &State,
    presence: Presence,
    followed: Option<Followed>,
    mut reload: impl AsyncFnMut(),
    end: impl Future<Output = ()>,
    report: impl FnMut(Notice) -> Result<(), E>,
) -> Result<(), E> {
    let mut teller = Teller {
        journal: Journal::new(),
        report,
    };
    let netlink = Netlink::connect()?;
    // What a killed one has left. Without any port there is nothing; what can't be opened it will tell of.
    let mut gone = Gone::default();
    if let Some(locked) = state.lock_existing()?
        && let Ok(Some(mut fast)) = FastPath::open_current(&locked)
    {
        gone.add(fast.reconcile(&netlink.links().await?)?);
    }
    let mut end = std::pin::pin!(end);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut controller = HookController::new(state, netlink);
    // Before the devices are listed: what comes later is told of.
    let mut changes = followed.is_some().then(Changes::listen).transpose()?;
    let attacher = followed.map(|followed| Ok(Attacher::new(state, Netlink::connect()?, followed, gone)));
    let mut attacher = attacher.transpose()?;
    if let Some(attacher) = &mut attacher {
        teller.tell(attacher.following())?;
        teller.tell_all(attacher.follow().await)?;
    }
    teller.tell(Notice::Ready)?;
    loop {
        let woken = tokio::select! {
            () = &mut end => return Ok(()),
            _ = ticks.tick() => Woken::Tick,
            told = next(&mut changes) => told.map(|()| Woken::Change)?,
            () = reload() => Woken::Reload,
            stream = presence.asked() => Woken::Asked(stream),
        };
        if matches!(woken, Woken::Reload) {
            teller.tell(Notice::Reloading)?;
            let reload = attacher.as_mut().map(Attacher::reload);
            teller.tell(reload.unwrap_or(Notice::Rejected(Error::NotFollowing)))?;
        }
        if let Some(attacher) = &mut attacher
            && (matches!(woken, Woken::Change) || attacher.is_due())
        {
            teller.tell_all(attacher.follow().await)?;
        }
        match woken {
            Woken::Tick => {
                teller.tell_all(controller.tick().await)?;
                teller.tell(Notice::Alive(Load {
                    ports: controller.attached(),
                    failing: attacher.as_ref().map_or(0, Attacher::failures),
                }))?;
            }
            Woken::Asked(stream) => {
                let failing = attacher.as_ref().map_or_else(Vec::new, Attacher::failing);
                answer(stream, &teller.journal.status(failing));
            }
            Woken::Change | Woken::Reload => {}
        }
    }
}

/// Why there is something to do.
enum Woken {
    /// It is time to read the counters.
    Tick,
    /// Devices have changed.
    Change,
    /// The configuration is to be read anew.
    Reload,
    /// Somebody wants to know how it goes.
    Asked(UnixStream),
}

/// Tells of what happens, and remembers it.
struct Teller<R> {
    journal: Journal,
    report: R,
}

impl<R> Teller<R> {
    fn tell<E>(&mut self, notice: Notice) -> Result<(), E>
    where
        R: FnMut(Notice) -> Result<(), E>,
    {
        self.journal.note(&notice);
        (self.report)(notice)
    }

    fn tell_all<E>(&mut self, notices: Vec<Notice>) -> Result<(), E>
    where
        R: FnMut(Notice) -> Result<(), E>,
    {
        notices.into_iter().try_for_each(|notice| self.tell(notice))
    }
}

async fn next(changes: &mut Option<Changes>) -> Result<()> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}
