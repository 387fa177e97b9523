//! Which metrics there are: names and labels by the conventions of Prometheus, in base units. Name, unit and what it means
//! stand beside each other, and beside what is told.

use std::collections::BTreeMap;

use bridge_common::{
    Hook,
    fastpath::{MAX_PATHS, MAX_PORTS},
};
use prometheus_client::registry::Unit;

use super::{
    Paths,
    families::{Family, Kind, Labels, Value},
    paths::Chosen,
};
use crate::snapshot::{
    overview::{BridgeOverview, PortOverview},
    statistics::{BridgeStatistics, PortStatistics},
    whole::Whole,
};

/// All metrics of a snapshot.
pub(super) fn of(whole: &Whole, paths: Paths) -> Vec<Family> {
    let mut made = Maker(Vec::new());
    made.scrape(whole);
    made.bridges(&whole.overview.bridges);
    made.ports(&whole.overview.bridges);
    made.counters(&whole.statistics.bridges);
    made.reasons(&whole.statistics.bridges);
    made.paths(&whole.statistics.bridges, paths);
    made.0
}

struct Maker(Vec<Family>);

/// Samples of one family, which the function is called with each of.
type Tell<'tell> = &'tell mut dyn FnMut(Labels, u64);

impl Maker {
    fn add(
        &mut self,
        kind: Kind,
        (base, unit): (&'static str, Option<Unit>),
        help: &'static str,
        samples: impl FnOnce(Tell<'_>),
    ) {
        let mut told = Vec::<(Labels, u64)>::new();
        samples(&mut |labels, number| told.push((labels, number)));
        told.sort();
        told.dedup_by(|(labels, number), (before, sum)| {
            // Two ports that are gone may have had one name: there is one sample of both.
            let same = labels == before;
            if same && kind == Kind::Counter {
                *sum += *number;
            } else if same {
                *sum = (*number).max(*sum);
            }
            same
        });
        self.0.push(Family {
            base,
            unit,
            help,
            kind,
            samples: told
                .into_iter()
                .map(|(labels, number)| (labels, Value::Number(number)))
                .collect(),
        });
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, samples: impl FnOnce(Tell<'_>)) {
        self.add(Kind::Gauge, (name, None), help, samples);
    }

    fn number(&mut self, name: &'static str, help: &'static str, number: impl TryInto<u64>) {
        self.gauge(name, help, |tell| {
            tell(Vec::new(), number.try_into().unwrap_or(u64::MAX));
        });
    }

    /// The scrape itself, and what is the same for all bridges.
    fn scrape(&mut self, whole: &Whole) {
        let build = ("tapbridge_build", None);
        self.add(Kind::Info, build, "Version of tapbridge that told this", |tell| {
            tell(vec![("version", env!("CARGO_PKG_VERSION").into())], 1);
        });
        self.number(
            "tapbridge_scrape_complete",
            "Whether this is all: 0 if what is attached could not be read, or was being changed by a stopped command",
            whole.complete,
        );
        self.0.push(Family {
            base: "tapbridge_scrape_duration",
            unit: Some(Unit::Seconds),
            help: "How long it took to read this",
            kind: Kind::Gauge,
            samples: vec![(Vec::new(), Value::Seconds(whole.duration.as_secs_f64()))],
        });
        self.number(
            "tapbridge_run_active",
            "Whether a tapbridge run looks after the ports of this network namespace",
            whole.overview.running,
        );
        self.number(
            "tapbridge_unreadable_entries",
            "Entries of the state folder that are damaged, of another version, or nothing of tapbridge's",
            whole.overview.unreadable.len() as u64,
        );
        let ports = whole.statistics.bridges.iter().map(|bridge| bridge.ports.len());
        self.number("tapbridge_ports", "Attached ports", ports.sum::<usize>() as u64);
        self.number(
            "tapbridge_ports_limit",
            "Ports that can be attached in a network namespace",
            MAX_PORTS,
        );
        self.number(
            "tapbridge_paths",
            "Paths that are counted in this network namespace: from an attached port to a device",
            whole.paths as u64,
        );
        self.number(
            "tapbridge_paths_limit",
            "Paths that can be counted; frames of further ones are carried and counted nowhere",
            MAX_PATHS,
        );
    }

    fn bridges(&mut self, bridges: &[BridgeOverview]) {
        let linux = || bridges.iter().filter(|bridge| bridge.bridge.is_some());
        let count = |bridge: &BridgeOverview, attached: bool| {
            let ports = bridge.ports.iter();
            ports.filter(|port| port.attached == attached).count() as u64
        };
        for (name, help, attached) in [
            (
                "tapbridge_bridge_attached_ports",
                "Ports of a bridge that are attached",
                true,
            ),
            (
                "tapbridge_bridge_other_ports",
                "Ports of a bridge that are not attached, though others of it are",
                false,
            ),
        ] {
            self.gauge(name, help, |tell| {
                for bridge in linux() {
                    tell(of_bridge(bridge.bridge.as_deref()), count(bridge, attached));
                }
            });
        }
        self.gauge(
            "tapbridge_bridge_obstacle",
            "What keeps frames of all ports of a bridge from going past it, by reason; tapbridge show has the way out",
            |tell| {
                for bridge in bridges {
                    for obstacle in &bridge.obstacles {
                        let mut labels = of_bridge(bridge.bridge.as_deref());
                        labels.push(("reason", obstacle.reason.into()));
                        tell(labels, 1);
                    }
                }
            },
        );
    }

    /// What attached ports, and others of their bridges, are like now.
    fn ports(&mut self, bridges: &[BridgeOverview]) {
        let all = || {
            let of = |bridge: &'_ BridgeOverview| bridge.bridge.clone();
            bridges
                .iter()
                .flat_map(move |bridge| bridge.ports.iter().map(move |port| (of(bridge), port)))
        };
        let attached = || all().filter(|(_, port)| port.attached);
        let labels =
            |bridge: &Option<String>, port: &PortOverview| of_device(bridge.as_deref(), &port.ifname);
        let info = ("tapbridge_port", None);
        let help = "What an attached port is: tap or other, and who chooses its hooks";
        self.add(Kind::Info, info, help, |tell| {
            for (bridge, port) in attached() {
                let mut labels = labels(&bridge, port);
                labels.push(("kind", port.kind.unwrap_or_default().into()));
                labels.push(("mode", port.hook.unwrap_or_default().into()));
                tell(labels, 1);
            }
        });
        self.gauge(
            "tapbridge_port_up",
            "Whether an attached port is up and has a carrier",
            |tell| {
                for (bridge, port) in attached() {
                    tell(labels(&bridge, port), (port.state == "up").into());
                }
            },
        );
        self.gauge(
            "tapbridge_port_hook",
            "Whether frames from an attached port meet this hook now",
            |tell| {
                for (bridge, port) in attached() {
                    for hook in Hook::ALL.map(Hook::name) {
                        let mut labels = labels(&bridge, port);
                        labels.push(("hook", hook.into()));
                        tell(labels, port.hooks.contains(&hook).into());
                    }
                }
            },
        );
        self.gauge(
            "tapbridge_port_problem",
            "What has happened to an attached port that no command of tapbridge has done; tapbridge show has the way out",
            |tell| {
                for (bridge, port) in attached() {
                    for problem in problems(port) {
                        let mut labels = labels(&bridge, port);
                        labels.push(("problem", problem.into()));
                        tell(labels, 1);
                    }
                }
            },
        );
        self.gauge(
            "tapbridge_port_obstacle",
            "What keeps frames from or to a port from going past its bridge, or by XDP, by reason; tapbridge show has the way out",
            |tell| {
                for (bridge, port) in all() {
                    for obstacle in &port.obstacles {
                        let mut labels = labels(&bridge, port);
                        labels.push(("reason", obstacle.reason.into()));
                        tell(labels, 1);
                    }
                }
            },
        );
        let changes = ("tapbridge_port_hook_changes", None);
        let help = "How often tapbridge run has changed the hooks of a port since it was attached";
        self.add(Kind::Counter, changes, help, |tell| {
            attached().for_each(|(bridge, port)| tell(labels(&bridge, port), port.hook_changes.into()));
        });
    }

    /// What attached ports have counted since they were attached.
    fn counters(&mut self, bridges: &[BridgeStatistics]) {
        type Of = fn(&PortStatistics) -> Option<u64>;
        let frames: [(&str, &str, Of); 8] = [
            (
                "tapbridge_port_forwarded_frames",
                "Frames that came in by a port and went past its bridge",
                |port| Some(port.forwarded.frames),
            ),
            (
                "tapbridge_port_transmit_frames",
                "Frames that came to a port past its bridge",
                |port| Some(port.tx.frames),
            ),
            (
                "tapbridge_port_device_transmit_frames",
                "Frames that a port's device has transmitted and dropped, whether they came to it past its bridge or by it",
                |port| port.tx_of_device,
            ),
            (
                "tapbridge_port_transmit_dropped",
                "Frames that a port's device has dropped on transmission, for a tap since its ring was full",
                |port| port.tx_of_device.map(|_| port.tx_dropped),
            ),
            (
                "tapbridge_port_bulk_frames",
                "Frames from a port that tcx met and native XDP can't take: GSO, or longer than a page has room for",
                |port| Some(port.bulk.frames),
            ),
            (
                "tapbridge_port_gso_frames",
                "Frames of several segments that came in by a port",
                |port| Some(port.gso_frames),
            ),
            (
                "tapbridge_port_checksums_completed",
                "Partial checksums of frames from a port that XDP completed",
                |port| Some(port.checksums_completed),
            ),
            (
                "tapbridge_port_receive_frames",
                "Frames that the programs received from a port; those of several segments count as one",
                |port| Some(port.rx.frames),
            ),
        ];
        let bytes: [(&str, &str, Of); 5] = [
            (
                "tapbridge_port_receive",
                "Bytes of the frames that the programs received from a port",
                |port| Some(port.rx.bytes),
            ),
            (
                "tapbridge_port_forwarded",
                "Bytes of the frames that came in by a port and went past its bridge",
                |port| Some(port.forwarded.bytes),
            ),
            (
                "tapbridge_port_left",
                "Bytes of the frames from a port that were left to its bridge",
                |port| Some(port.left.bytes),
            ),
            (
                "tapbridge_port_transmit",
                "Bytes of the frames that came to a port past its bridge",
                |port| Some(port.tx.bytes),
            ),
            (
                "tapbridge_port_bulk",
                "Bytes of the frames from a port that tcx met and native XDP can't take",
                |port| Some(port.bulk.bytes),
            ),
        ];
        let bytes = bytes.map(|(name, help, of)| (name, Some(Unit::Bytes), help, of));
        let frames = frames.map(|(name, help, of)| (name, None, help, of));
        for (name, unit, help, of) in frames.into_iter().chain(bytes) {
            self.add(Kind::Counter, (name, unit), help, |tell| {
                for (bridge, port) in ports_of(bridges) {
                    if let Some(number) = of(port) {
                        tell(of_device(bridge, &port.ifname), number);
                    }
                }
            });
        }
    }

    fn reasons(&mut self, bridges: &[BridgeStatistics]) {
        type Of = fn(&PortStatistics) -> &BTreeMap<&'static str, u64>;
        let families: [(&str, &str, Of); 2] = [
            (
                "tapbridge_left_frames",
                "Frames from a port that were left to its bridge, by reason",
                |port| &port.left_by_reason,
            ),
            (
                "tapbridge_passed_up_frames",
                "Times that XDP left a frame from a port to tcx, which carried it or left it in turn, by reason",
                |port| &port.passed_up_by_reason,
            ),
        ];
        for (name, help, of) in families {
            self.add(Kind::Counter, (name, None), help, |tell| {
                for (bridge, port) in ports_of(bridges) {
                    for (reason, frames) in of(port) {
                        let mut labels = of_device(bridge, &port.ifname);
                        labels.push(("reason", (*reason).into()));
                        tell(labels, *frames);
                    }
                }
            });
        }
    }

    fn paths(&mut self, bridges: &[BridgeStatistics], wanted: Paths) {
        let paths = Chosen::of(bridges, wanted);
        for (name, unit, help) in [
            (
                "tapbridge_path_frames",
                None,
                "Frames that went past a bridge, by the ports that they came in and left by, and by hook",
            ),
            (
                "tapbridge_path",
                Some(Unit::Bytes),
                "Bytes of the frames that went past a bridge, by the ports that they came in and left by, and by hook",
            ),
        ] {
            let is_frames = unit.is_none();
            self.add(Kind::Counter, (name, unit), help, |tell| {
                for (bridge, path) in &paths.told {
                    let mut labels = of_bridge(*bridge);
                    labels.push(("from", path.from.clone()));
                    labels.push(("to", path.to.clone().unwrap_or_default()));
                    labels.push(("via", path.via.into()));
                    tell(labels, if is_frames { path.frames } else { path.bytes });
                }
            });
        }
        self.number(
            "tapbridge_paths_omitted",
            "Paths that there are no samples of, since others are busier",
            paths.omitted as u64,
        );
        self.number(
            "tapbridge_paths_omitted_frames",
            "Frames that have gone by the paths that there are no samples of",
            paths.sum.frames,
        );
        self.add(
            Kind::Gauge,
            ("tapbridge_paths_omitted", Some(Unit::Bytes)),
            "Bytes of the frames that have gone by the paths that there are no samples of",
            |tell| tell(Vec::new(), paths.sum.bytes),
        );
    }
}

fn ports_of(bridges: &[BridgeStatistics]) -> impl Iterator<Item = (Option<&str>, &PortStatistics)> {
    bridges.iter().flat_map(|bridge| {
        let ports = bridge.ports.iter();
        ports.map(|port| (bridge.bridge.as_deref(), port))
    })
}

/// What `show` calls problems, and a state that is one.
fn problems(port: &PortOverview) -> Vec<&'static str> {
    let mut problems: Vec<_> = port.problems.iter().map(|problem| problem.problem).collect();
    if problems.is_empty() && matches!(port.state, "gone" | "unfinished") {
        problems.push(port.state);
    }
    problems
}

/// A label without a value is none, to Prometheus.
fn of_bridge(bridge: Option<&str>) -> Labels {
    vec![("bridge", bridge.unwrap_or_default().into())]
}

fn of_device(bridge: Option<&str>, device: &str) -> Labels {
    let mut labels = of_bridge(bridge);
    labels.push(("device", device.into()));
    labels
}
