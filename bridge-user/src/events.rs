//! `monitor`: tells of what happens to ports, as it happens.

use std::{
    future,
    pin::pin,
    time::{Duration, SystemTime},
};

use bridge_common::fastpath::{Event, EventKind};
use humantime::format_rfc3339_micros;
use serde::Serialize;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    error::{Context as _, Error, Result},
    fastpath::{Events, FastPath, FrameLog, are_frames_logged},
    kernel::{
        netlink::{Link, Netlink},
        ring::Begin,
        sysfs::Sysfs,
    },
    port::{hooks, recorded_name, since_boot},
    snapshot::obstacles::obstacle,
    state::{Folder, State},
};

/// How often it is looked whether anything is attached, or something else than before.
const LOOK: Duration = Duration::from_millis(200);

/// Stands for the port that a frame was for.
const RECEIVER: &str = "another port";

/// What there is to tell.
#[derive(Clone, Debug)]
pub enum News {
    /// All that happens from now on is told of.
    Ready,
    /// Something has happened.
    Happened(Happened),
    /// Events that nobody can tell of any more.
    Lost(Lost),
}

/// Something that has happened to a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// When, by the machine's clock, in UTC (RFC 3339).
    pub time: String,
    /// "attached", "detached", "hook": its hooks have changed; "left": a hook has left a frame of it for this reason, the first
    /// one since it was attached; or "stopped": for this reason none of its frames goes past the bridge, which is told once
    /// as long as no ten seconds go by without such a frame.
    pub event: &'static str,
    /// What `event` names, to be matched.
    #[serde(skip)]
    pub kind: EventKind,
    /// Its device.
    pub ifname: String,
    /// The device's index.
    pub ifindex: u32,
    /// Its bridge; none if it is no port of one, or was detached.
    pub master: Option<String>,
    /// The hooks that frames from it meet now, first to last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Vec<&'static str>>,
    /// Which hook has left the frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<&'static str>,
    /// Why: of a frame that was left the name of a [`Reason`](bridge_common::forwarding::Reason), of a change the name of
    /// a [`Cause`](bridge_common::fastpath::Cause).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// `reason` in words, with the way out, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Events that were lost: they came faster than they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// When that was found out, as [`Happened::time`].
    pub time: String,
    /// "lost".
    pub event: &'static str,
    /// How many.
    pub events: u64,
}

/// What is pinned, and its events.
struct Source {
    inode: u64,
    events: AsyncFd<Events>,
    /// What the programs say of each frame is printed as long as this is there, where that is wanted.
    _log: Option<FrameLog>,
}

/// Tells of what happens in the calling thread's network namespace until `end` is done or `report` fails. What is attached
/// later is waited for. Any number of processes may do so.
pub async fn watch<E: From<Error>>(
    state: &State,
    end: impl Future<Output = ()>,
    mut report: impl FnMut(News) -> Result<(), E>,
) -> Result<(), E> {
    let netlink = Netlink::connect()?;
    let mut end = pin!(end);
    let mut source = None;
    look(state, &mut source, Begin::Now)?;
    let mut looks = tokio::time::interval(LOOK);
    report(News::Ready)?;
    loop {
        let has_changed = tokio::select! {
            () = &mut end => return Ok(()),
            _ = looks.tick() => has_changed(state, source.as_ref())?,
            ready = readable(source.as_ref()) => ready.map(|()| false)?,
        };
        if let Some(source) = &mut source {
            for news in read(source, &netlink).await? {
                report(news)?;
            }
        }
        if has_changed {
            // What was told of before it was found counts too.
            look(state, &mut source, Begin::First)?;
        }
    }
}

fn has_changed(state: &State, source: Option<&Source>) -> Result<bool> {
    let inode = state
        .read()?
        .map_or(Ok(None), |folder| FastPath::inode(&folder))?;
    Ok(inode != source.map(|source| source.inode))
}

/// Finds what is pinned now; nothing is half made too.
fn look(state: &State, source: &mut Option<Source>, begin: Begin) -> Result<()> {
    *source = None;
    let Some(folder) = state.read()? else {
        return Ok(());
    };
    if let Some((inode, events)) = FastPath::events(&folder, begin)? {
        // SAFETY: the descriptor is the ring's own, which keeps it open and the same as long as it lives.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
        let events = events.at("events", "wait for them")?;
        let log = if are_frames_logged() {
            log_of(&folder)?
        } else {
            None
        };
        *source = Some(Source {
            inode,
            events,
            _log: log,
        });
    }
    Ok(())
}

/// Has printed what the programs say of each frame.
fn log_of(folder: &Folder) -> Result<Option<FrameLog>> {
    let log = FastPath::log(folder)?;
    if log.is_none() {
        log::warn!(
            "the programs say nothing of frames; 'tapbridge upgrade --log-level trace' replaces them by some that do"
        );
    }
    Ok(log)
}

/// Done when something may have been written since the last time.
async fn readable(source: Option<&Source>) -> Result<()> {
    let Some(source) = source else {
        return future::pending().await;
    };
    // The kernel takes the buffer for readable as long as its own place lags behind: what counts is that it says so anew.
    let mut ready = source.events.readable().await.at("events", "wait for them")?;
    ready.clear_ready();
    Ok(())
}

async fn read(source: &mut Source, netlink: &Netlink) -> Result<Vec<News>> {
    let events = source.events.get_mut();
    let mut happened = Vec::new();
    while let Some(event) = events.ring.next() {
        happened.push(event);
    }
    let lost = events.take_lost()?;
    let mut news = Vec::new();
    if lost > 0 {
        news.push(News::Lost(Lost {
            time: format_rfc3339_micros(SystemTime::now()).to_string(),
            event: "lost",
            events: lost,
        }));
    }
    if !happened.is_empty() {
        let links = netlink.links().await?;
        let told = happened.iter().filter_map(|event| describe(event, &links));
        news.extend(told.map(News::Happened));
    }
    Ok(news)
}

/// None if it is of a kind that this version does not know.
fn describe(event: &Event, links: &[Link]) -> Option<Happened> {
    let kind = event.kind()?;
    let find = |ifindex: u32| links.iter().find(|link| link.ifindex == ifindex);
    let device = find(event.ifindex);
    let bridge = match event.bridge {
        0 => device.and_then(|device| device.master),
        bridge => Some(bridge),
    };
    let bridge = bridge.and_then(find);
    let name = device.map_or_else(|| recorded_name(&event.name), |device| device.name.clone());
    let mut told = Happened {
        time: time(event.time),
        event: kind.name(),
        kind,
        ifindex: event.ifindex,
        master: bridge.map(|bridge| bridge.name.clone()),
        hooks: None,
        hook: None,
        reason: None,
        text: None,
        ifname: name,
    };
    match kind {
        EventKind::Attached => told.hooks = Some(hooks(event.detail)),
        EventKind::Hooks => {
            told.hooks = Some(hooks(event.detail));
            told.reason = Some(event.cause()?.name());
        }
        EventKind::Detached => told.reason = Some(event.cause()?.name()),
        EventKind::Left | EventKind::Stopped => {
            let reason = event.reason()?;
            told.hook = Some(event.hook()?.name());
            told.reason = Some(reason.name());
            told.text = bridge.and_then(|bridge| {
                let sysfs = Sysfs::open().ok()?;
                let (port, text) = obstacle(reason, bridge, &told.ifname, RECEIVER, &sysfs)?;
                // Which port the frame was for is not known.
                (port.as_deref() != Some(RECEIVER)).then_some(text)
            });
        }
    }
    Some(told)
}

/// A moment since the machine was started, by its clock.
fn time(then: u64) -> String {
    let ago = since_boot().unwrap_or(then).saturating_sub(then);
    format_rfc3339_micros(SystemTime::now() - Duration::from_nanos(ago)).to_string()
}
