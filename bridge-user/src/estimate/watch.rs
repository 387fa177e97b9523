//! What goes through ports while somebody watches: seen by the program that only looks, or counted by those that are
//! attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
};

use bridge_common::{
    Hook,
    counters::{PathCounters, Traffic},
    fastpath::{Path, PortCounters},
    forwarding::Reason,
    observed::{Key, Outcome, SizeClass},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::model::Flow;
use crate::{
    error::{Context as _, Result},
    fastpath::{Counted, FastPath, Observer, Program},
    kernel::netlink::Link,
    state::State,
};

/// Ports that are watched, until this is dropped.
pub(super) struct Watch {
    observer: Observer,
    /// By the devices that the program is at.
    links: BTreeMap<u32, OwnedFd>,
    /// Those that others had attached.
    attached: BTreeSet<u32>,
    /// Those that have been attached or detached since.
    changed: BTreeSet<u32>,
    begin: Moment,
}

/// All that was counted until a moment.
#[derive(Default)]
struct Moment {
    observed: BTreeMap<Key, Traffic>,
    uncounted: u64,
    /// By attached ports.
    counted: Option<Counted>,
}

/// What went through ports.
pub(super) struct Seen {
    pub flows: Vec<Flow>,
    /// Frames for which there was no room.
    pub uncounted: u64,
    /// Devices that have been attached or detached meanwhile, or whose counters can't be read any more.
    pub changed: BTreeSet<u32>,
}

/// What is attached in the calling thread's network namespace, as it has counted until now; none if nothing is.
pub(super) fn counted(state: &State) -> Result<Option<Counted>> {
    let Some(folder) = state.read()? else {
        return Ok(None);
    };
    FastPath::open(&folder)?.map(|fast| fast.counted()).transpose()
}

/// Devices that are attached there.
fn attached(state: &State) -> Result<BTreeSet<u32>> {
    let folder = state.read()?;
    let devices = folder
        .map(|folder| FastPath::linked_devices(&folder))
        .transpose()?;
    Ok(devices.into_iter().flatten().collect())
}

/// Each port that is watched takes a descriptor, and there are more ports than descriptors that one has unasked.
fn raise_limit() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // If it is refused, attaching says which limit it is.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

impl Moment {
    fn now(observer: &Observer, state: &State) -> Result<Self> {
        let observations = observer.observations()?;
        Ok(Self {
            observed: observations.frames.into_iter().collect(),
            uncounted: observations.uncounted,
            counted: counted(state)?,
        })
    }
}

impl Watch {
    /// Begins: ports that are attached have their counters read, others get the program. A port that is gone gets none.
    pub fn begin(observer: Observer, state: &State, ports: &[&Link]) -> Result<Self> {
        raise_limit();
        let attached = attached(state)?;
        let mut links = BTreeMap::new();
        for port in ports.iter().filter(|port| !attached.contains(&port.ifindex)) {
            match observer.attach(Program::Observe, port.ifindex) {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                link => {
                    let link = link.at(&port.name, "attach a program that looks at its frames")?;
                    links.insert(port.ifindex, link);
                }
            }
        }
        // One after another takes its time. What came before the last is not of the time that is watched.
        let begin = Moment::now(&observer, state)?;
        Ok(Self {
            observer,
            links,
            attached,
            changed: BTreeSet::new(),
            begin,
        })
    }

    /// Looks which ports have been attached meanwhile, and goes out of the way there; and which have been detached.
    pub fn look(&mut self, state: &State) {
        // It looks again soon.
        let Ok(now) = attached(state) else { return };
        self.links.retain(|ifindex, _| !now.contains(ifindex));
        self.changed.extend(now.symmetric_difference(&self.attached));
    }

    /// What went through these ports since it has begun. What can't be read any more is not known; what else was seen is.
    pub fn seen(&mut self, state: &State, ports: &[u32]) -> Result<Seen> {
        let observations = self.observer.observations()?;
        self.look(state);
        let before = |key: &Key| self.begin.observed.get(key).copied().unwrap_or_default();
        let observed = observations.frames.iter().map(|(key, traffic)| Flow {
            from: key.from,
            to: key.to,
            class: key.class(),
            xdp: key.outcome(Hook::Xdp),
            tcx: key.outcome(Hook::Tcx),
            by: None,
            traffic: traffic.since(before(key)),
        });
        let mut flows: Vec<Flow> = observed.collect();
        if let Some(before) = &self.begin.counted {
            if let Ok(Some(now)) = counted(state) {
                flows.extend(carried(before, &now));
            } else {
                self.changed.extend(&self.attached);
            }
        }
        flows.retain(|flow| ports.contains(&flow.from) && flow.traffic.frames > 0);
        Ok(Seen {
            flows,
            uncounted: observations.uncounted.saturating_sub(self.begin.uncounted),
            changed: self.changed.clone(),
        })
    }
}

/// The part of something that so many of all of them are.
fn share(traffic: Traffic, part: u64, all: u64) -> Traffic {
    let of = |count: u64| {
        let share = u128::from(count) * u128::from(part.min(all)) / u128::from(all.max(1));
        u64::try_from(share).unwrap_or(count)
    };
    Traffic {
        frames: of(traffic.frames),
        bytes: of(traffic.bytes),
    }
}

/// What attached ports have counted in between. They don't tell every frame from every other: of frames that took one
/// path, or were left, the mean length counts, and why XDP left frames is shared out among all that tcx has carried.
fn carried(before: &Counted, now: &Counted) -> Vec<Flow> {
    let counted: BTreeMap<u32, &PortCounters> = ports(before).collect();
    let paths: BTreeMap<Path, PathCounters> = before.paths.iter().copied().collect();
    let mut flows = Vec::new();
    for (from, counters) in ports(now) {
        let Some(earlier) = counted.get(&from) else {
            continue;
        };
        let of_port = now.paths.iter().filter(|(path, _)| path.from == from);
        let via = |hook: Hook| -> Vec<(u32, Traffic)> {
            let difference = |(path, counters): &(Path, PathCounters)| {
                let before = paths.get(path).copied().unwrap_or_default();
                (
                    path.to,
                    counters.via[hook as usize].since(before.via[hook as usize]),
                )
            };
            of_port.clone().map(difference).collect()
        };
        let frames = |via: &[(u32, Traffic)]| -> u64 { via.iter().map(|(_, traffic)| traffic.frames).sum() };
        let mut add = |to: u32, xdp: Outcome, tcx: Outcome, gso: bool, by: Option<Hook>, traffic: Traffic| {
            let mean = traffic.bytes / traffic.frames.max(1);
            flows.push(Flow {
                from,
                to,
                class: SizeClass::of(u32::try_from(mean).unwrap_or(u32::MAX), gso),
                xdp,
                tcx,
                by,
                traffic,
            });
        };
        let by_xdp = via(Hook::Xdp);
        let completed = counters
            .checksums_completed
            .saturating_sub(earlier.checksums_completed);
        let all = frames(&by_xdp);
        for &(to, traffic) in &by_xdp {
            let part = share(traffic, completed, all);
            let (whole, by) = (traffic.since(part), Some(Hook::Xdp));
            add(to, Outcome::COMPLETED, Outcome::CARRIED, false, by, part);
            add(to, Outcome::CARRIED, Outcome::CARRIED, false, by, whole);
        }
        let by_tcx = via(Hook::Tcx);
        let bulk = counters.bulk.since(earlier.bulk);
        let left_by = |hook: Hook, reason: Reason| {
            let [now, before] =
                [counters, earlier].map(|counters| counters.left[hook as usize][reason as usize]);
            now.saturating_sub(before)
        };
        // What both leave is not here. Bulk is, and told apart already.
        let passed_up = |reason: Reason| {
            let frames = left_by(Hook::Xdp, reason).saturating_sub(left_by(Hook::Tcx, reason));
            let is_bulk = reason == Reason::Generic;
            frames.saturating_sub(if is_bulk { bulk.frames } else { 0 })
        };
        let (all, by) = (frames(&by_tcx), Some(Hook::Tcx));
        for &(to, traffic) in &by_tcx {
            let part = Traffic {
                bytes: share(bulk, traffic.frames, all).bytes.min(traffic.bytes),
                ..share(traffic, bulk.frames, all)
            };
            add(
                to,
                Outcome::left(Reason::Generic),
                Outcome::CARRIED,
                true,
                by,
                part,
            );
            let others = traffic.since(part);
            let mut rest = others;
            for reason in Reason::ALL {
                let part = share(others, passed_up(reason), all.saturating_sub(bulk.frames));
                let part = Traffic {
                    frames: part.frames.min(rest.frames),
                    bytes: part.bytes.min(rest.bytes),
                };
                rest = rest.since(part);
                add(to, Outcome::left(reason), Outcome::CARRIED, false, by, part);
            }
            // There was no XDP when they came.
            add(to, Outcome::CARRIED, Outcome::CARRIED, false, by, rest);
        }
        let left = counters.left_traffic.since(earlier.left_traffic);
        for reason in Reason::ALL {
            let outcome = Outcome::left(reason);
            let part = share(left, left_by(Hook::Tcx, reason), left.frames);
            add(0, outcome, outcome, false, None, part);
        }
    }
    flows
}

fn ports(counted: &Counted) -> impl Iterator<Item = (u32, &PortCounters)> {
    counted
        .ports
        .iter()
        .map(|(ifindex, _, counters)| (*ifindex, counters))
}

#[cfg(test)]
mod tests {
    use bridge_common::fastpath::Port;

    use super::*;

    fn traffic(frames: u64, bytes: u64) -> Traffic {
        Traffic { frames, bytes }
    }

    #[test]
    fn what_attached_ports_count_is_as_much_as_they_have_received() {
        let mut counters = PortCounters {
            left_traffic: traffic(30, 3000),
            bulk: traffic(5, 300_000),
            checksums_completed: 25,
            ..PortCounters::default()
        };
        counters.left[Hook::Tcx as usize][Reason::Group as usize] = 10;
        counters.left[Hook::Tcx as usize][Reason::Host as usize] = 20;
        counters.left[Hook::Xdp as usize][Reason::Host as usize] = 20;
        counters.left[Hook::Xdp as usize][Reason::Generic as usize] = 5;
        counters.left[Hook::Xdp as usize][Reason::Queueing as usize] = 36;
        let path = PathCounters {
            via: [traffic(100, 10_000), traffic(50, 305_000)],
        };
        let before = Counted {
            ports: vec![(1, Port::default(), PortCounters::default())],
            paths: Vec::new(),
            steady: true,
        };
        let now = Counted {
            ports: vec![(1, Port::default(), counters)],
            paths: vec![(Path { from: 1, to: 2 }, path)],
            steady: true,
        };
        let mut flows = carried(&before, &now);
        flows.retain(|flow| flow.traffic.frames > 0);
        let found: Vec<_> = flows
            .iter()
            .map(|flow| (flow.to, flow.xdp, flow.is_bulk(), flow.traffic))
            .collect();
        let carriers: Vec<_> = flows.iter().map(|flow| flow.carrier(true)).collect();
        let (xdp, tcx) = (Some(Hook::Xdp), Some(Hook::Tcx));
        assert_eq!(carriers, [xdp, xdp, tcx, tcx, tcx, None, None]);
        let generic = Outcome::left(Reason::Generic);
        let expected = [
            (2, Outcome::COMPLETED, false, traffic(25, 2500)),
            (2, Outcome::CARRIED, false, traffic(75, 7500)),
            (2, generic, true, traffic(5, 300_000)),
            (2, Outcome::left(Reason::Queueing), false, traffic(36, 4000)),
            (2, Outcome::CARRIED, false, traffic(9, 1000)),
            (0, Outcome::left(Reason::Group), false, traffic(10, 1000)),
            (0, Outcome::left(Reason::Host), false, traffic(20, 2000)),
        ];
        assert_eq!(found, expected);
    }
}
