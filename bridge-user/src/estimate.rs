//! `estimate`: what attaching would save on a host as it runs, with nothing changed of what any frame does.
//!
//! A program that only looks runs the decision on every frame of the ports, and counts what would become of it; what a
//! frame costs each way is tried out on taps of its own. What attached ports save already is reckoned from what they count.

mod calibrate;
mod cpus;
mod frames;
mod model;
mod pace;
mod report;
mod vmms;
mod watch;

use std::{
    collections::BTreeSet,
    rc::Rc,
    time::{Duration, Instant},
};

use bridge_common::port::flag;
use tokio::time::{interval, sleep};

use self::{
    calibrate::{Calibrated, Configuration},
    pace::Counted,
    report::Watched,
    vmms::{Clocks, Holders},
    watch::Watch,
};
pub use self::{
    model::Estimate,
    report::{BridgeReport, Confidence, FrameCosts, LeftReport, PathReport, PortReport, Report},
    vmms::{VmmReport, VmmsReport},
};
use crate::{
    error::{Error, Result},
    fastpath::{Observer, refuse_strangers},
    kernel::{
        netlink::{Kind, Link, Netlink, bridge_of},
        sysfs::Sysfs,
    },
    state::State,
};

/// Less is not reckoned with.
pub const SHORTEST: Duration = Duration::from_secs(1);

/// How long VMMs are measured before anybody looks at their frames: this part of the time for which frames are watched then,
/// but not less than [`SHORTEST`].
const MEASURED: u32 = 4;

/// How often one looks whether ports are attached meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// What was found out, by programs that are taken off when this is dropped: which takes a while for each port.
pub struct Estimated {
    /// What attaching would save.
    pub report: Report,
    _watch: Watch,
}

/// Which ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Ports, by any of their names.
    pub interfaces: Vec<String>,
    /// All ports of these bridges. If nothing is wanted, all ports of all bridges are.
    pub masters: Vec<String>,
}

/// Watches ports of bridges for some time, or until `end` is done, and says what attaching them would save. `started` is
/// called when that begins: before, it is found out what frames cost.
///
/// Needs a tokio runtime that runs on the calling thread, which waits meanwhile.
pub async fn estimate<End: Future<Output = ()>>(
    state: &State,
    wanted: &Wanted,
    time: Duration,
    started: impl FnOnce() -> End,
) -> Result<Estimated> {
    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    let ports = choose(&links, wanted)?;
    let sysfs = Sysfs::open().map_err(|error| Error::System {
        object: "sysfs".into(),
        action: "open",
        cause: error.to_string(),
    })?;
    let attached: BTreeSet<u32> = watch::counted(state)?
        .iter()
        .flat_map(|counted| counted.ports.iter().map(|(ifindex, ..)| *ifindex))
        .collect();
    for port in ports.iter().filter(|port| !attached.contains(&port.ifindex)) {
        refuse_strangers(port)?;
    }
    let mut observer = Observer::load()?;
    let bridges = find_out(&ports, &links, &sysfs, &mut observer)?;

    // Finding out takes seconds, in which ports come and go.
    let links = netlink.links().await?;
    let ports: Vec<&Link> = ports.iter().filter_map(|port| still(&links, port)).collect();
    if ports.is_empty() {
        return Err(nothing_to_watch(wanted));
    }
    let taps = ports.iter().filter(|port| port.kind == Kind::Tap);
    let taps: BTreeSet<&str> = taps.map(|tap| &*tap.name).collect();
    let counted = || Counted::now(taps.iter().copied(), &sysfs);
    let (first, clocks) = (counted(), Clocks::begin(Holders::find(&taps)));
    sleep((time / MEASURED).max(SHORTEST)).await;
    let (clocks, second) = (clocks.stop(), counted());
    let mut watch = Watch::begin(observer, state, &ports)?;
    let (begin, third) = (Instant::now(), counted());
    watch_for(&mut watch, state, time, started()).await;
    let (watched, fourth) = (begin.elapsed(), counted());
    let indices: Vec<u32> = ports.iter().map(|port| port.ifindex).collect();
    let seen = watch.seen(state, &indices)?;
    if watched < SHORTEST {
        return Err(Error::WatchedTooShort);
    }
    let vmms = clocks.with(&Holders::find(&taps));
    let pace = pace::ratios(&second.since(&first), &fourth.since(&third));
    // What can't be asked any more is as it was.
    let now = netlink.links().await.unwrap_or_else(|_| links.clone());
    let attached = watch::counted(state).ok().flatten();
    let has_xdp = |port: &Link| -> Option<bool> {
        let ports = &attached.as_ref()?.ports;
        let (_, port, _) = ports.iter().find(|(ifindex, ..)| *ifindex == port.ifindex)?;
        Some(port.has(flag::XDP))
    };
    let note = |port: &Link| -> Option<&'static str> {
        if still(&now, port).is_none() {
            Some("is gone, or another bridge's, since frames were watched: some of its frames may be missing")
        } else if seen.changed.contains(&port.ifindex) {
            Some("was attached or detached while frames were watched: some of its frames are missing")
        } else {
            None
        }
    };
    let reports = bridges.iter().map(|(bridge, calibrated)| {
        Watched {
            bridge,
            ports: ports
                .iter()
                .filter(|port| port.master == Some(bridge.ifindex))
                .map(|port| (*port, has_xdp(port), note(port)))
                .collect(),
            links: &links,
            copies: copies(&now, bridge),
            flows: &seen.flows,
            uncounted: seen.uncounted,
            calibrated,
            vmms: &vmms,
            pace: &pace,
            time: watched,
            sysfs: &sysfs,
        }
        .report()
    });
    Ok(Estimated {
        report: Report::new(watched, seen.uncounted, reports.collect()),
        _watch: watch,
    })
}

/// The bridges of these ports, by name, and what frames cost there.
fn find_out(
    ports: &[&Link],
    links: &[Link],
    sysfs: &Sysfs,
    observer: &mut Observer,
) -> Result<Vec<(Link, Rc<Calibrated>)>> {
    let mut known: Vec<(Configuration, Rc<Calibrated>)> = Vec::new();
    let mut bridges: Vec<(Link, Rc<Calibrated>)> = Vec::new();
    for port in ports {
        let Some(bridge) = bridge_of(links, port) else {
            continue;
        };
        if bridges.iter().any(|(known, _)| known.ifindex == bridge.ifindex) {
            continue;
        }
        let configuration = Configuration::of(&bridge.name, sysfs);
        // What is set up in the same way costs the same.
        let calibrated = known.iter().find(|(known, _)| *known == configuration);
        let calibrated = if let Some((_, calibrated)) = calibrated {
            Rc::clone(calibrated)
        } else {
            let found = Rc::new(calibrate::calibrate(&configuration, observer)?);
            known.push((configuration, Rc::clone(&found)));
            found
        };
        bridges.push((bridge.clone(), calibrated));
    }
    bridges.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    Ok(bridges)
}

/// Until the time is over, or this is done.
async fn watch_for(watch: &mut Watch, state: &State, time: Duration, end: impl Future<Output = ()>) {
    let over = sleep(time);
    tokio::pin!(end, over);
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            biased;
            () = &mut end => return,
            () = &mut over => return,
            _ = looks.tick() => watch.look(state),
        }
    }
}

/// The port as it is now; none if it is gone, or has another bridge.
fn still<'links>(links: &'links [Link], port: &Link) -> Option<&'links Link> {
    let is_same = |link: &&Link| link.ifindex == port.ifindex && link.master == port.master;
    links.iter().find(is_same)
}

fn nothing_to_watch(wanted: &Wanted) -> Error {
    let everywhere = || "this network namespace".into();
    Error::NothingToWatch {
        what: wanted.masters.first().cloned().unwrap_or_else(everywhere),
    }
}

/// How many ports get a copy of a frame for all of them: those that have a carrier, but for the one that it came in by. Of
/// other groups, of VLANs and of ports that nothing is flooded to it is too many.
fn copies(links: &[Link], bridge: &Link) -> u32 {
    let ports = links
        .iter()
        .filter(|link| link.master == Some(bridge.ifindex) && link.up && link.carrier);
    u32::try_from(ports.count()).unwrap_or(u32::MAX).saturating_sub(1)
}

/// The ports that are wanted, each once.
fn choose<'links>(links: &'links [Link], wanted: &Wanted) -> Result<Vec<&'links Link>> {
    let mut chosen: Vec<&Link> = Vec::new();
    for name in &wanted.interfaces {
        let link = find(links, name)?;
        if link.bridge {
            return Err(Error::NotAPort {
                name: link.name.clone(),
                reason: "it is a bridge".into(),
                next: format!("name its ports, or all of them with '--master {}'", link.name),
            });
        }
        if bridge_of(links, link).is_none() {
            return Err(Error::NotAPort {
                name: link.name.clone(),
                reason: "it has no Linux bridge, and what one would do with its frames can't be seen".into(),
                next: format!(
                    "make it a port first, with 'ip link set dev {} master BRIDGE'",
                    link.name
                ),
            });
        }
        chosen.push(link);
    }
    let is_everything = wanted.interfaces.is_empty() && wanted.masters.is_empty();
    let mut masters: Vec<&Link> = Vec::new();
    for name in &wanted.masters {
        let master = find(links, name)?;
        if !master.bridge {
            return Err(Error::NotABridge {
                name: master.name.clone(),
                next: "'ip link show type bridge' lists those there are".into(),
            });
        }
        masters.push(master);
    }
    for link in links {
        let master = bridge_of(links, link);
        if master.is_some_and(|master| {
            is_everything || masters.iter().any(|wanted| wanted.ifindex == master.ifindex)
        }) {
            chosen.push(link);
        }
    }
    let mut seen = BTreeSet::new();
    chosen.retain(|link| seen.insert(link.ifindex));
    if chosen.is_empty() {
        return Err(nothing_to_watch(wanted));
    }
    Ok(chosen)
}

fn find<'links>(links: &'links [Link], name: &str) -> Result<&'links Link> {
    let found = links.iter().find(|link| link.is_called(name));
    found.ok_or_else(|| Error::NoDevice {
        name: name.to_owned(),
    })
}
