//! What goes through ports while somebody watches: seen by the program that only looks, or counted by those that are
//! attached.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use bridge_common::{
    Hook,
    counters::{PathCounters, Traffic},
    fastpath::{Path, PortCounters},
    forwarding::Reason,
    observed::{Outcome, SizeClass},
};

use super::model::Flow;
use crate::{
    error::{Context as _, Result},
    fastpath::{Counted, FastPath, Observer, Program},
    kernel::netlink::Link,
    state::State,
};

/// Ports that are watched.
pub(super) struct Watch {
    observer: Observer,
    _links: Vec<OwnedFd>,
    /// What attached ports had counted before.
    before: Option<Counted>,
}

/// What went through them.
pub(super) struct Seen {
    pub flows: Vec<Flow>,
    /// Frames for which there was no room.
    pub uncounted: u64,
}

/// What is attached in the calling thread's network namespace, as it has counted until now; none if nothing is.
pub(super) fn counted(state: &State) -> Result<Option<Counted>> {
    let Some(folder) = state.read()? else {
        return Ok(None);
    };
    FastPath::open(&folder)?.map(|fast| fast.counted()).transpose()
}

impl Watch {
    /// Begins: ports that are attached have their counters read, others get the program.
    pub fn begin(observer: Observer, state: &State, ports: &[&Link]) -> Result<Self> {
        let before = counted(state)?;
        let mut links = Vec::new();
        for port in ports {
            let is_attached =
                |counted: &Counted| counted.ports.iter().any(|(index, ..)| *index == port.ifindex);
            if !before.as_ref().is_some_and(is_attached) {
                let link = observer.attach(Program::Observe, port.ifindex);
                links.push(link.at(&port.name, "attach a program that looks at its frames")?);
            }
        }
        Ok(Self {
            observer,
            _links: links,
            before,
        })
    }

    /// Ends it, for these ports.
    pub fn end(self, state: &State, ports: &[u32]) -> Result<Seen> {
        let observations = self.observer.observations()?;
        let observed = observations.frames.into_iter().map(|(key, traffic)| Flow {
            from: key.from,
            to: key.to,
            class: key.class(),
            xdp: key.outcome(Hook::Xdp),
            tcx: key.outcome(Hook::Tcx),
            traffic,
        });
        let mut flows: Vec<Flow> = observed.collect();
        if let (Some(before), Some(now)) = (self.before, counted(state)?) {
            flows.extend(carried(&before, &now));
        }
        flows.retain(|flow| ports.contains(&flow.from) && flow.traffic.frames > 0);
        Ok(Seen {
            flows,
            uncounted: observations.uncounted,
        })
    }
}

fn since(now: Traffic, before: Traffic) -> Traffic {
    Traffic {
        frames: now.frames.saturating_sub(before.frames),
        bytes: now.bytes.saturating_sub(before.bytes),
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
/// path, or were left, the mean length counts, and what native XDP can't take is taken for carried by tcx.
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
                    since(counters.via[hook as usize], before.via[hook as usize]),
                )
            };
            of_port.clone().map(difference).collect()
        };
        let frames = |via: &[(u32, Traffic)]| -> u64 { via.iter().map(|(_, traffic)| traffic.frames).sum() };
        let mut add = |to: u32, xdp: Outcome, tcx: Outcome, gso: bool, traffic: Traffic| {
            let mean = traffic.bytes / traffic.frames.max(1);
            flows.push(Flow {
                from,
                to,
                class: SizeClass::of(u32::try_from(mean).unwrap_or(u32::MAX), gso),
                xdp,
                tcx,
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
            add(to, Outcome::COMPLETED, Outcome::CARRIED, false, part);
            add(
                to,
                Outcome::CARRIED,
                Outcome::CARRIED,
                false,
                since(traffic, part),
            );
        }
        let by_tcx = via(Hook::Tcx);
        let bulk = since(counters.bulk, earlier.bulk);
        let (all, generic) = (frames(&by_tcx), Outcome::left(Reason::Generic));
        for &(to, traffic) in &by_tcx {
            let part = Traffic {
                bytes: share(bulk, traffic.frames, all).bytes.min(traffic.bytes),
                ..share(traffic, bulk.frames, all)
            };
            add(to, generic, Outcome::CARRIED, true, part);
            add(to, generic, Outcome::CARRIED, false, since(traffic, part));
        }
        let left = since(counters.left_traffic, earlier.left_traffic);
        for reason in Reason::ALL {
            let [now, before] =
                [counters, earlier].map(|counters| counters.left[Hook::Tcx as usize][reason as usize]);
            let outcome = Outcome::left(reason);
            let part = share(left, now.saturating_sub(before), left.frames);
            add(0, outcome, outcome, false, part);
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
        let generic = Outcome::left(Reason::Generic);
        let expected = [
            (2, Outcome::COMPLETED, false, traffic(25, 2500)),
            (2, Outcome::CARRIED, false, traffic(75, 7500)),
            (2, generic, true, traffic(5, 300_000)),
            (2, generic, false, traffic(45, 5000)),
            (0, Outcome::left(Reason::Group), false, traffic(10, 1000)),
            (0, Outcome::left(Reason::Host), false, traffic(20, 2000)),
        ];
        assert_eq!(found, expected);
    }
}
