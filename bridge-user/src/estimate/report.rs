//! What was watched, in numbers and words.

use std::{cmp::Reverse, collections::BTreeMap, fs, time::Duration};

use bridge_common::{Hook, forwarding::Reason};
use serde::Serialize;

use super::{
    calibrate::Calibrated,
    model::{Costs, Estimate, Flow, settles_on_xdp, with_refreshes},
    vmms::{TapRounds, Vmms, VmmsReport},
};
use crate::{
    SCHEMA,
    kernel::{
        netlink::{Kind, Link},
        sysfs::Sysfs,
    },
    snapshot::obstacles::{self, Obstacle},
};

/// Of fewer frames nothing is said for sure.
const FEW: u64 = 1000;
/// A reason that less than one in so many frames of a port meets stands in nobody's way.
const WORTH_TELLING: u64 = 100;

/// What attaching would save.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// For how long frames were watched.
    pub seconds: f64,
    /// Frames that were different from so many others that there was no room to count them.
    pub uncounted: u64,
    /// Bridges, sorted by name.
    pub bridges: Vec<BridgeReport>,
}

/// How well it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// What is taken with the programs, to 15 % of it, as far as the trial differs from itself: by the VMMs, or where those are
    /// not known, by the path.
    Good,
    /// The machine is too busy, or too unsteady, to know it to 15 %.
    Noisy,
    /// There were too few frames.
    FewFrames,
    /// More than one in a hundred was too different from others to be counted.
    Incomplete,
}

/// Of a bridge.
#[derive(Clone, Debug, Serialize)]
pub struct BridgeReport {
    /// Its name.
    pub bridge: String,
    /// How well what follows is known.
    pub confidence: Confidence,
    /// Frames that its ports have received.
    pub frames: u64,
    /// Those of them that would go past it by XDP, or do,
    pub by_xdp: u64,
    /// and by tcx,
    pub by_tcx: u64,
    /// and those that stay with it.
    pub left: u64,
    /// CPUs that the frames would take by the bridge alone, from a VMM's call that writes one to that which has read it,
    /// if the VMM that reads it is awake.
    pub cpus: Estimate,
    /// CPUs that they would take with all of these ports attached.
    pub accelerated: Estimate,
    /// How many fewer that is.
    pub saves: Estimate,
    /// What part `accelerated` is of `cpus`: of the path alone, as between VMMs that are awake. Of all that VMMs take it is a
    /// part that lies nearer to 1, which `vmms` has.
    pub ratio: Estimate,
    /// What the processes that hold its taps take; none if that is not known.
    pub vmms: Option<VmmsReport>,
    /// Why that is not known, or not of all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vmms_note: Option<String>,
    /// What a short frame costs here.
    pub frame_ns: FrameCosts,
    /// Hooks by which no frame went where it was tried out what they cost: something that is everybody's was in the way.
    /// They are reckoned to cost what it takes whoever carries the frames instead.
    pub idle_hooks: Vec<&'static str>,
    /// Why frames stay with the bridge, most frequent first.
    pub left_by_reason: Vec<LeftReport>,
    /// Its ports, those first that save most.
    pub ports: Vec<PortReport>,
    /// From where to where frames would go past it, most frequent first.
    pub paths: Vec<PathReport>,
}

/// CPU time of a frame of 60 bytes, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct FrameCosts {
    /// By the bridge.
    pub bridge: f64,
    /// By tcx.
    pub tcx: f64,
    /// By XDP.
    pub xdp: f64,
    /// How much of it the program that looks at frames takes: only while they are watched, and in none of the others.
    pub observer: f64,
}

/// Frames that stay with the bridge.
#[derive(Clone, Debug, Serialize)]
pub struct LeftReport {
    /// The name of the [`Reason`].
    pub reason: &'static str,
    /// How many.
    pub frames: u64,
    /// The ports that they come in by, most frames first.
    pub ports: Vec<String>,
    /// The reason in words.
    pub text: &'static str,
}

/// Of a port: of frames that come in by it.
#[derive(Clone, Debug, Serialize)]
pub struct PortReport {
    /// The device.
    pub ifname: String,
    /// The device's index.
    pub ifindex: u32,
    /// "tap" or "other".
    pub kind: &'static str,
    /// Whether it is attached already: then all is what it does now.
    pub attached: bool,
    /// The hooks that it has, or that `--hook auto` would settle on for what it sends.
    pub hooks: Vec<&'static str>,
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames of them that would go past the bridge by XDP,
    pub by_xdp: u64,
    /// and by tcx,
    pub by_tcx: u64,
    /// and that stay with it.
    pub left: u64,
    /// Frames of each class of sizes ([`SizeClass`](bridge_common::observed::SizeClass)); classes without any are
    /// left out.
    pub sizes: BTreeMap<&'static str, u64>,
    /// As the bridge's.
    pub cpus: Estimate,
    /// As the bridge's.
    pub accelerated: Estimate,
    /// As the bridge's.
    pub saves: Estimate,
    /// As the bridge's.
    pub ratio: Estimate,
    /// Why not all of its frames are known, if so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// What keeps frames from going past the bridge, or by XDP; `other_xdp` is somebody else's XDP program.
    pub obstacles: Vec<Obstacle>,
}

/// Frames from one port to another.
#[derive(Clone, Debug, Serialize)]
pub struct PathReport {
    /// The port that they come in by.
    pub from: String,
    /// The port that they leave by; none if it is out of sight.
    pub to: Option<String>,
    /// How many would go by XDP.
    pub by_xdp: u64,
    /// How many would go by tcx.
    pub by_tcx: u64,
}

impl Report {
    pub(super) fn new(time: Duration, uncounted: u64, bridges: Vec<BridgeReport>) -> Self {
        Self {
            schema: SCHEMA,
            seconds: rounded(time.as_secs_f64()),
            uncounted,
            bridges,
        }
    }
}

/// To a thousandth.
fn rounded(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

/// A bridge whose ports were watched.
pub(super) struct Watched<'all> {
    pub bridge: &'all Link,
    /// The ports, of those that are attached whether they have XDP, and why not all is known, if so.
    pub ports: Vec<(&'all Link, Option<bool>, Option<&'static str>)>,
    pub links: &'all [Link],
    /// Ports that get a copy of a frame for all.
    pub copies: u32,
    /// Of these ports and others.
    pub flows: &'all [Flow],
    /// Frames of all bridges for which there was no room.
    pub uncounted: u64,
    pub calibrated: &'all Calibrated,
    pub vmms: &'all Vmms,
    /// How many times as many frames each tap received while VMMs were measured as while frames were watched.
    pub pace: &'all BTreeMap<String, f64>,
    pub time: Duration,
    pub sysfs: &'all Sysfs,
}

/// A port, its frames, and whether it has XDP.
struct WatchedPort<'all> {
    link: &'all Link,
    flows: Vec<Flow>,
    xdp: bool,
    attached: bool,
    note: Option<&'static str>,
}

impl WatchedPort<'_> {
    fn frames(&self, is_meant: impl Fn(&Flow) -> bool) -> u64 {
        let meant = self.flows.iter().filter(|flow| is_meant(flow));
        meant.map(|flow| flow.traffic.frames).sum()
    }
}

impl Watched<'_> {
    pub fn report(&self) -> BridgeReport {
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|(link, xdp, note)| self.port(link, *xdp, *note))
            .collect();
        let all: Vec<&WatchedPort<'_>> = ports.iter().collect();
        let [cpus, accelerated, saves, ratio] = self.estimates(&all);
        let by = |carrier: Option<Hook>| -> u64 {
            let of_port = |port: &WatchedPort<'_>| port.frames(|flow| flow.carrier(port.xdp) == carrier);
            ports.iter().map(of_port).sum()
        };
        let frames: u64 = ports.iter().map(|port| port.frames(|_| true)).sum();
        let mut reports: Vec<_> = ports.iter().map(|port| self.port_report(port)).collect();
        reports.sort_by(|one, other| {
            let most = other.saves.value.total_cmp(&one.saves.value);
            most.then_with(|| one.ifname.cmp(&other.ifname))
        });
        let taps: Vec<_> = ports.iter().filter_map(|port| self.tap_rounds(port)).collect();
        let (vmms, vmms_note) = self.vmms.report(&taps);
        let with_programs = vmms.as_ref().map_or(&accelerated, |vmms| &vmms.accelerated);
        let nanoseconds =
            |of: fn(&Costs) -> f64| Estimate::of(self.calibrated.costs.iter().map(of)).value.round();
        BridgeReport {
            bridge: self.bridge.name.clone(),
            confidence: self.confidence(frames, with_programs),
            frames,
            by_xdp: by(Some(Hook::Xdp)),
            by_tcx: by(Some(Hook::Tcx)),
            left: by(None),
            cpus,
            accelerated,
            saves,
            ratio,
            vmms,
            vmms_note,
            frame_ns: FrameCosts {
                bridge: nanoseconds(|costs| costs.bridge.shortest()),
                tcx: nanoseconds(|costs| costs.tcx.shortest()),
                xdp: nanoseconds(|costs| costs.xdp.shortest()),
                observer: nanoseconds(|costs| costs.observer.max(0.0)),
            },
            idle_hooks: self.calibrated.idle.iter().map(|hook| hook.name()).collect(),
            left_by_reason: left(&ports),
            ports: reports,
            paths: self.paths(&ports),
        }
    }

    fn port<'port>(
        &'port self,
        link: &'port Link,
        attached: Option<bool>,
        note: Option<&'static str>,
    ) -> WatchedPort<'port> {
        let mut flows: Vec<Flow> = self
            .flows
            .iter()
            .filter(|flow| flow.from == link.ifindex)
            .copied()
            .collect();
        if self.learns(link) {
            flows = with_refreshes(flows, self.time);
        }
        // Other devices have tcx alone, and so have taps with somebody else's XDP program.
        let can_have_xdp = link.kind == Kind::Tap && link.xdp_program.is_none();
        let xdp = attached.unwrap_or_else(|| can_have_xdp && settles_on_xdp(&flows, self.time));
        WatchedPort {
            link,
            flows,
            xdp,
            attached: attached.is_some(),
            note,
        }
    }

    /// Whether its bridge learns which stations are behind it.
    fn learns(&self, port: &Link) -> bool {
        let path = self
            .sysfs
            .path(&format!("class/net/{}/brport/learning", port.name));
        fs::read_to_string(path).map_or(true, |text| text.trim() != "0")
    }

    /// Of so many frames of its ports.
    fn confidence(&self, frames: u64, with_programs: &Estimate) -> Confidence {
        if frames < FEW {
            Confidence::FewFrames
        } else if self.uncounted > frames / WORTH_TELLING {
            Confidence::Incomplete
        } else if with_programs.is_uncertain() {
            Confidence::Noisy
        } else {
            Confidence::Good
        }
    }

    /// CPUs by the bridge alone and with the programs, the difference, and what part the latter is of the former, round by
    /// round. Of no frames it is all.
    fn estimates(&self, ports: &[&WatchedPort<'_>]) -> [Estimate; 4] {
        let nanoseconds = self.time.as_secs_f64() * 1e9;
        let sums = self.calibrated.costs.iter().map(|costs| {
            let (mut bare, mut accelerated) = (0.0, 0.0);
            for port in ports {
                for flow in &port.flows {
                    bare += flow.bare(costs, self.copies);
                    accelerated += flow.accelerated(costs, self.copies, port.xdp);
                }
            }
            (bare / nanoseconds, accelerated / nanoseconds)
        });
        let sums: Vec<(f64, f64)> = sums.collect();
        [
            Estimate::of(sums.iter().map(|(bare, _)| *bare)),
            Estimate::of(sums.iter().map(|(_, accelerated)| *accelerated)),
            Estimate::of(sums.iter().map(|(bare, accelerated)| bare - accelerated)),
            Estimate::of(
                sums.iter()
                    .map(|(bare, accelerated)| if *bare > 0.0 { accelerated / bare } else { 1.0 }),
            ),
        ]
    }

    /// What the process that holds a tap has to do with its frames; none of what is no tap.
    fn tap_rounds<'port>(&self, port: &'port WatchedPort<'_>) -> Option<TapRounds<'port>> {
        if port.link.kind != Kind::Tap {
            return None;
        }
        // None came then, or none since.
        let pace = self.pace.get(&port.link.name).copied().unwrap_or(0.0);
        let nanoseconds = self.time.as_secs_f64() * 1e9;
        let saves = |costs: &Costs| -> f64 {
            let saves = port
                .flows
                .iter()
                .map(|flow| flow.bare(costs, self.copies) - flow.accelerated(costs, self.copies, port.xdp));
            saves.sum::<f64>() * pace / nanoseconds
        };
        Some(TapRounds {
            name: &port.link.name,
            held: port.link.carrier,
            attached: port.attached,
            saves: self.calibrated.costs.iter().map(saves).collect(),
        })
    }

    fn port_report(&self, port: &WatchedPort<'_>) -> PortReport {
        let [cpus, accelerated, saves, ratio] = self.estimates(&[port]);
        let by = |carrier: Option<Hook>| port.frames(|flow| flow.carrier(port.xdp) == carrier);
        let mut sizes = BTreeMap::<_, u64>::new();
        for flow in &port.flows {
            *sizes.entry(flow.class.name()).or_default() += flow.traffic.frames;
        }
        let hooks = Hook::ALL
            .into_iter()
            .filter(|hook| *hook == Hook::Tcx || port.xdp);
        PortReport {
            ifname: port.link.name.clone(),
            ifindex: port.link.ifindex,
            kind: if port.link.kind == Kind::Tap {
                "tap"
            } else {
                "other"
            },
            attached: port.attached,
            hooks: hooks.map(Hook::name).collect(),
            frames: port.frames(|_| true),
            bytes: port.flows.iter().map(|flow| flow.traffic.bytes).sum(),
            by_xdp: by(Some(Hook::Xdp)),
            by_tcx: by(Some(Hook::Tcx)),
            left: by(None),
            sizes,
            cpus,
            accelerated,
            saves,
            ratio,
            note: port.note,
            obstacles: self.obstacles(port),
        }
    }

    fn name(&self, ifindex: u32) -> Option<String> {
        let link = self.links.iter().find(|link| link.ifindex == ifindex)?;
        Some(link.name.clone())
    }

    fn paths(&self, ports: &[WatchedPort<'_>]) -> Vec<PathReport> {
        let mut paths = BTreeMap::<(u32, u32), [u64; 2]>::new();
        for port in ports {
            for flow in &port.flows {
                if let Some(hook) = flow.carrier(port.xdp) {
                    paths.entry((flow.from, flow.to)).or_default()[hook as usize] += flow.traffic.frames;
                }
            }
        }
        let mut paths: Vec<_> = paths
            .into_iter()
            .map(|((from, to), by)| PathReport {
                from: self.name(from).unwrap_or_default(),
                to: self.name(to),
                by_xdp: by[Hook::Xdp as usize],
                by_tcx: by[Hook::Tcx as usize],
            })
            .collect();
        paths.sort_by_key(|path| Reverse(path.by_xdp + path.by_tcx));
        paths
    }

    /// What keeps frames of a port from going past the bridge, and those of a tap from going by XDP, most frequent first.
    fn obstacles(&self, port: &WatchedPort<'_>) -> Vec<Obstacle> {
        let all = port.frames(|_| true);
        let is_tap = port.link.kind == Kind::Tap;
        let met = |flow: &Flow| flow.tcx.reason().or(flow.xdp.reason().filter(|_| is_tap));
        let mut found: Vec<(u64, Reason, u32)> = Vec::new();
        for reason in Reason::ALL {
            let of_it = port.flows.iter().filter(|flow| met(flow) == Some(reason));
            let most = of_it.max_by_key(|flow| flow.traffic.frames);
            let frames = port.frames(|flow| met(flow) == Some(reason));
            if frames > all / WORTH_TELLING {
                found.push((frames, reason, most.map_or(0, |flow| flow.to)));
            }
        }
        found.sort_by_key(|&(frames, ..)| Reverse(frames));
        let text = |frames: u64, reason: Reason, to: u32| {
            let name = &port.link.name;
            let of_tap = obstacles::from_port(name, frames, self.sysfs).into_iter();
            let told = of_tap.filter(|obstacle| obstacle.reason == reason.name());
            let told = told.map(|obstacle| obstacle.text).next();
            told.or_else(|| {
                let to = match self.name(to) {
                    None if !is_told_without_target(reason) => return None,
                    to => to.unwrap_or_default(),
                };
                let (of_port, text) = obstacles::obstacle(reason, self.bridge, name, &to, self.sysfs)?;
                // What is another port's says so.
                Some(match of_port {
                    Some(other) if other != *name => format!("{other}: {text}"),
                    _ => text,
                })
            })
            .unwrap_or_else(|| obstacles::in_words(reason).to_owned())
        };
        let other_xdp = port.link.xdp_program.filter(|_| is_tap && !port.attached);
        let other_xdp = other_xdp.map(|id| Obstacle {
            reason: "other_xdp",
            text: format!(
                "has XDP program {id} of somebody else's: 'tapbridge attach {} --hook tcx' leaves it there",
                port.link.name
            ),
        });
        let met = found.into_iter().map(|(frames, reason, to)| Obstacle {
            reason: reason.name(),
            text: text(frames, reason, to),
        });
        other_xdp.into_iter().chain(met).collect()
    }
}

/// Whether an obstacle is in words without the port that frames would have gone to: nobody knows it of frames that are left.
const fn is_told_without_target(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BridgeFilter
            | Reason::Promiscuous
            | Reason::VlanFiltering
            | Reason::IngressHook
            | Reason::IngressFilter
    )
}

/// Why frames of ports stay with their bridge.
fn left(ports: &[WatchedPort<'_>]) -> Vec<LeftReport> {
    let mut left = Vec::new();
    for reason in Reason::ALL {
        let mut by_port: Vec<(u64, &str)> = ports
            .iter()
            .map(|port| {
                let frames = port.frames(|flow| flow.tcx.reason() == Some(reason));
                (frames, &*port.link.name)
            })
            .filter(|(frames, _)| *frames > 0)
            .collect();
        by_port.sort_by_key(|&(frames, _)| Reverse(frames));
        if !by_port.is_empty() {
            left.push(LeftReport {
                reason: reason.name(),
                frames: by_port.iter().map(|(frames, _)| frames).sum(),
                ports: by_port.into_iter().map(|(_, name)| name.to_owned()).collect(),
                text: obstacles::in_words(reason),
            });
        }
    }
    left.sort_by_key(|left| Reverse(left.frames));
    left
}
