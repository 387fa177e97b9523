//! What frames cost by the bridge as it is, and what they would cost with the programs: reckoned from what single frames
//! cost, with nothing asked of the machine.

use std::time::Duration;

use bridge_common::{
    Hook,
    counters::Traffic,
    forwarding::Reason,
    hook_policy::{CounterDelta, HookPolicy, INTERVAL},
    observed::{Outcome, SizeClass},
};
use serde::Serialize;

/// Nanoseconds by bytes: straight from each point to the next, and beyond the last as before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line(Vec<(f64, f64)>);

impl Line {
    /// Through these points, of which there are two at least, by bytes.
    pub fn new<const N: usize>(points: [(usize, f64); N]) -> Self {
        const { assert!(N > 1) };
        #[expect(clippy::cast_precision_loss, reason = "frames are shorter than 2^52 bytes")]
        Self(
            points
                .into_iter()
                .map(|(bytes, cost)| (bytes as f64, cost))
                .collect(),
        )
    }

    /// At its first point.
    pub fn shortest(&self) -> f64 {
        self.0[0].1
    }

    fn at(&self, bytes: f64) -> f64 {
        let last = self.0.len() - 2;
        let next = self.0.iter().position(|&(point, _)| bytes < point);
        let begin = next.map_or(last, |next| next.saturating_sub(1)).min(last);
        let ((x0, y0), (x1, y1)) = (self.0[begin], self.0[begin + 1]);
        // A shorter frame than the shortest does not cost less.
        y0 + (y1 - y0) * (bytes.max(self.0[0].0) - x0) / (x1 - x0)
    }
}

/// What a frame costs from the call that writes it to the one that has read it, in nanoseconds of CPU time, as it was found
/// out in one round.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Costs {
    /// By the bridge alone.
    pub bridge: Line,
    /// By tcx, where there is no XDP.
    pub tcx: Line,
    /// By XDP as it is,
    pub xdp: Line,
    /// and where XDP completes its checksum.
    pub completed: Line,
    /// By tcx, after XDP has looked at all of it in vain.
    pub passed_up: Line,
    /// What native XDP can't take: by the bridge,
    pub bulk_bridge: Line,
    /// by tcx,
    pub bulk_tcx: Line,
    /// and by tcx where there is XDP.
    pub bulk_passed_up: Line,
    /// What a frame costs more that tcx leaves,
    pub left_by_tcx: f64,
    /// or both hooks.
    pub left_by_both: f64,
    /// What one for the host costs more than one for a port, which is read.
    pub host: f64,
    /// Each further copy of one for many.
    pub copy: f64,
    /// What the program that only looks takes of a short frame.
    pub observer: f64,
}

/// Frames that are alike: of one port, of one class, of which the same becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    /// Index of the device that they come in by.
    pub from: u32,
    /// That of the device that they would be redirected to; 0 if they are left.
    pub to: u32,
    pub class: SizeClass,
    pub xdp: Outcome,
    pub tcx: Outcome,
    /// The hook that has carried them, where they are counted and not only observed.
    pub by: Option<Hook>,
    pub traffic: Traffic,
}

/// Whether a frame that is left for this reason is copied to all ports.
pub(super) const fn is_flooded(reason: Reason) -> bool {
    matches!(reason, Reason::Group | Reason::DestinationUnknown)
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

impl Flow {
    pub fn frames(&self) -> f64 {
        number(self.traffic.frames)
    }

    fn length(&self) -> f64 {
        number(self.traffic.bytes) / self.frames().max(1.0)
    }

    /// Whether native XDP can't take them for what they are.
    pub fn is_bulk(&self) -> bool {
        match self.class {
            SizeClass::Gso => true,
            SizeClass::Longer => self.xdp.reason().is_some(),
            _ => false,
        }
    }

    /// The hook that carries them, at a port that has XDP or has not; none if they are left.
    pub fn carrier(&self, xdp: bool) -> Option<Hook> {
        if self.tcx.reason().is_some() {
            None
        } else if self.by.is_some() {
            self.by
        } else if xdp && self.xdp.reason().is_none() {
            Some(Hook::Xdp)
        } else {
            Some(Hook::Tcx)
        }
    }

    /// What all of them cost by the bridge alone, in nanoseconds; those for all ports go to so many.
    pub fn bare(&self, costs: &Costs, copies: u32) -> f64 {
        let line = if self.is_bulk() {
            &costs.bulk_bridge
        } else {
            &costs.bridge
        };
        let more = match self.tcx.reason() {
            Some(Reason::Host) => costs.host,
            Some(reason) if is_flooded(reason) => costs.copy * (f64::from(copies) - 1.0),
            _ => 0.0,
        };
        self.frames() * (line.at(self.length()) + more)
    }

    /// What they cost with the programs at a port that has XDP or has not.
    pub fn accelerated(&self, costs: &Costs, copies: u32, xdp: bool) -> f64 {
        let length = self.length();
        let (tcx, passed_up) = if self.is_bulk() {
            (&costs.bulk_tcx, &costs.bulk_passed_up)
        } else {
            (&costs.tcx, &costs.passed_up)
        };
        let each = match self.carrier(xdp) {
            Some(Hook::Xdp) if self.xdp == Outcome::COMPLETED => costs.completed.at(length),
            Some(Hook::Xdp) => costs.xdp.at(length),
            Some(Hook::Tcx) if xdp && self.xdp.reason().is_some() => passed_up.at(length),
            Some(Hook::Tcx) => tcx.at(length),
            None => {
                let more = match (xdp, self.is_bulk()) {
                    (false, _) => costs.left_by_tcx,
                    (true, false) => costs.left_by_both,
                    (true, true) => costs.left_by_tcx + passed_up.at(length) - tcx.at(length),
                };
                return self.bare(costs, copies) + self.frames() * more;
            }
        };
        self.frames() * each
    }
}

/// Frames of one port, of which its bridge sees one in each second once it is attached, to know that the station is there.
/// As long as nothing is attached the bridge sees them all, and so no frame is left for that reason.
pub(super) fn with_refreshes(mut flows: Vec<Flow>, watched: Duration) -> Vec<Flow> {
    let is_meant = |flow: &Flow| flow.tcx.reason().is_none() && flow.by.is_none();
    let carried: u64 = flows
        .iter()
        .filter(|flow| is_meant(flow))
        .map(|flow| flow.traffic.frames)
        .sum();
    let refreshes = watched.as_secs().max(1).min(carried);
    // Each flow has its part in them, and none is lost in the rounding.
    let until = |frames: u64| {
        let part = u128::from(refreshes) * u128::from(frames) / u128::from(carried.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    let (mut passed, mut moved) = (0, Vec::new());
    for flow in flows.iter_mut().filter(|flow| is_meant(flow)) {
        let frames = until(passed + flow.traffic.frames) - until(passed);
        passed += flow.traffic.frames;
        if frames == 0 {
            continue;
        }
        let part = Traffic {
            frames,
            bytes: flow.traffic.bytes / flow.traffic.frames * frames,
        };
        flow.traffic.frames -= part.frames;
        flow.traffic.bytes -= part.bytes;
        let left = Outcome::left(Reason::SourceRefresh);
        moved.push(Flow {
            to: 0,
            xdp: left,
            tcx: left,
            traffic: part,
            ..*flow
        });
    }
    flows.extend(moved);
    flows.retain(|flow| flow.traffic.frames > 0);
    flows
}

/// How long a policy is watched until it is seen which hooks it has chosen: XDP that does not pay comes back after a while,
/// and then stays off for longer each time.
const SETTLING: Duration = Duration::from_mins(2);

/// Whether a tap that goes on sending this for so long has XDP, most of the time, where the hooks follow its traffic.
pub(super) fn settles_on_xdp(flows: &[Flow], watched: Duration) -> bool {
    let intervals = number(u64::try_from(watched.as_millis()).unwrap_or(u64::MAX))
        / number(u64::try_from(INTERVAL.as_millis()).unwrap_or(1));
    let each = |count: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of what was counted"
        )]
        let count = (count / intervals.max(1.0)).round() as u64;
        count
    };
    let sum = |is_meant: &dyn Fn(&Flow) -> bool| -> f64 {
        flows.iter().filter(|flow| is_meant(flow)).map(Flow::frames).sum()
    };
    let bulk = flows.iter().filter(|flow| flow.is_bulk());
    let with_xdp = CounterDelta {
        frames: each(sum(&|_| true)),
        by_xdp: each(sum(&|flow| flow.carrier(true) == Some(Hook::Xdp))),
        passed_up: each(sum(&|flow| flow.carrier(true) != Some(Hook::Xdp))),
        vhost_net: each(sum(&|flow| flow.xdp.reason() == Some(Reason::VhostNet))),
        bulk: Traffic {
            frames: each(sum(&Flow::is_bulk)),
            bytes: each(bulk.map(|flow| number(flow.traffic.bytes)).sum()),
        },
    };
    // What tcx leaves tells nothing for XDP.
    let without = CounterDelta {
        frames: each(sum(&|flow| flow.carrier(false).is_some())),
        by_xdp: 0,
        passed_up: 0,
        vhost_net: 0,
        ..with_xdp
    };
    let mut policy = HookPolicy::new(true);
    let (mut now, mut on) = (Duration::ZERO, Duration::ZERO);
    while now < SETTLING {
        now += INTERVAL;
        let delta = if policy.xdp() { with_xdp } else { without };
        if let Some(xdp) = policy.observe(&delta, now) {
            policy.changed(xdp, now);
        }
        if policy.xdp() && now > SETTLING / 2 {
            on += INTERVAL;
        }
    }
    on > SETTLING / 4
}

/// What was reckoned from each round: the middle one, and how far they lie apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// The median.
    pub value: f64,
    /// A tenth of the rounds have less.
    pub low: f64,
    /// A tenth of the rounds have more.
    pub high: f64,
}

/// Less than a millionth of a CPU is nothing.
fn to_micros(cpus: f64) -> f64 {
    (cpus * 1e6).round() / 1e6
}

impl Estimate {
    /// Of the rounds.
    pub(super) fn of(rounds: impl IntoIterator<Item = f64>) -> Self {
        let mut rounds: Vec<f64> = rounds.into_iter().collect();
        rounds.sort_unstable_by(f64::total_cmp);
        let at = |tenths: usize| {
            let place = rounds.len().saturating_sub(1) * tenths;
            let (place, rest) = (place / 10, number((place % 10) as u64) / 10.0);
            let here = rounds.get(place).copied().unwrap_or(0.0);
            let next = rounds.get(place + 1).copied().unwrap_or(here);
            to_micros(here + (next - here) * rest)
        };
        Self {
            value: at(5),
            low: at(1),
            high: at(9),
        }
    }

    /// Known by so much less, either way.
    pub(super) fn widened(self, by: f64) -> Self {
        Self {
            low: to_micros(self.low - by),
            high: to_micros(self.high + by),
            ..self
        }
    }

    /// Whether the rounds lie so far apart that the value is not known to 15 %.
    pub(super) fn is_uncertain(&self) -> bool {
        let bound = 0.15 * self.value.abs();
        self.high - self.value > bound || self.value - self.low > bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Costs that are easy to reckon with.
    fn costs() -> Costs {
        let flat = |cost: f64| Line::new([(60, cost), (1514, cost)]);
        Costs {
            bridge: Line::new([(60, 4000.0), (1060, 5000.0)]),
            tcx: flat(3500.0),
            xdp: flat(2000.0),
            completed: flat(2500.0),
            passed_up: flat(3700.0),
            bulk_bridge: flat(11_000.0),
            bulk_tcx: flat(10_000.0),
            bulk_passed_up: flat(14_000.0),
            left_by_tcx: 100.0,
            left_by_both: 300.0,
            host: -1000.0,
            copy: 500.0,
            observer: 100.0,
        }
    }

    fn flow(class: SizeClass, bytes: u64, xdp: Outcome, tcx: Outcome) -> Flow {
        Flow {
            from: 1,
            to: 2,
            class,
            xdp,
            tcx,
            by: None,
            traffic: Traffic {
                frames: 10,
                bytes: 10 * bytes,
            },
        }
    }

    fn left(reason: Reason) -> Flow {
        let outcome = Outcome::left(reason);
        flow(SizeClass::To128, 60, outcome, outcome)
    }

    #[track_caller]
    fn assert_costs(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} and not {expected}");
    }

    #[test]
    fn a_line_goes_through_its_points_and_on() {
        let line = Line::new([(60, 10.0), (100, 20.0), (200, 40.0)]);
        for (bytes, cost) in [
            (60.0, 10.0),
            (80.0, 15.0),
            (100.0, 20.0),
            (150.0, 30.0),
            (300.0, 60.0),
            (14.0, 10.0),
        ] {
            assert_costs(line.at(bytes), cost);
        }
    }

    #[test]
    fn frames_cost_what_their_way_costs() {
        let costs = costs();
        let carried = flow(SizeClass::To1024, 560, Outcome::CARRIED, Outcome::CARRIED);
        assert_costs(carried.bare(&costs, 7), 45_000.0);
        assert_costs(carried.accelerated(&costs, 7, true), 20_000.0);
        assert_costs(carried.accelerated(&costs, 7, false), 35_000.0);
        let completed = Flow {
            xdp: Outcome::COMPLETED,
            ..carried
        };
        assert_costs(completed.accelerated(&costs, 7, true), 25_000.0);
        let passed_up = Flow {
            xdp: Outcome::left(Reason::Checksum),
            ..carried
        };
        assert_costs(passed_up.accelerated(&costs, 7, true), 37_000.0);
        let bulk = flow(
            SizeClass::Gso,
            64_000,
            Outcome::left(Reason::Generic),
            Outcome::CARRIED,
        );
        assert_costs(bulk.bare(&costs, 7), 110_000.0);
        assert_costs(bulk.accelerated(&costs, 7, false), 100_000.0);
        assert_costs(bulk.accelerated(&costs, 7, true), 140_000.0);
    }

    #[test]
    fn what_is_left_costs_more_than_without_the_programs() {
        let costs = costs();
        let host = left(Reason::Host);
        assert_costs(host.bare(&costs, 7), 30_000.0);
        assert_costs(host.accelerated(&costs, 7, false), 31_000.0);
        assert_costs(host.accelerated(&costs, 7, true), 33_000.0);
        for reason in [Reason::Group, Reason::DestinationUnknown] {
            assert_costs(left(reason).bare(&costs, 7), 70_000.0);
        }
        let bulk = Flow {
            class: SizeClass::Gso,
            ..left(Reason::BridgeFilter)
        };
        assert_costs(bulk.accelerated(&costs, 7, false), 111_000.0);
        assert_costs(bulk.accelerated(&costs, 7, true), 151_000.0);
    }

    #[test]
    fn a_frame_in_a_second_shows_the_bridge_that_a_station_is_there() {
        let carried = flow(SizeClass::To128, 60, Outcome::CARRIED, Outcome::CARRIED);
        let completed = Flow {
            xdp: Outcome::COMPLETED,
            ..carried
        };
        let refreshed = |seconds| {
            let flows = vec![carried, completed, left(Reason::Host)];
            let flows = with_refreshes(flows, Duration::from_secs(seconds));
            let of = |is_meant: &dyn Fn(&Flow) -> bool| -> (u64, u64) {
                let meant = flows.iter().filter(|flow| is_meant(flow));
                meant.fold((0, 0), |(frames, bytes), flow| {
                    (frames + flow.traffic.frames, bytes + flow.traffic.bytes)
                })
            };
            let refresh = of(&|flow| flow.tcx.reason() == Some(Reason::SourceRefresh));
            (
                of(&|_| true),
                refresh,
                of(&|flow| flow.carrier(true) == Some(Hook::Xdp)),
            )
        };
        assert_eq!(refreshed(5), ((30, 1800), (5, 300), (15, 900)));
        // As many as there are.
        assert_eq!(refreshed(90), ((30, 1800), (20, 1200), (0, 0)));
        let counted = Flow {
            by: Some(Hook::Xdp),
            ..carried
        };
        assert_eq!(with_refreshes(vec![counted], Duration::from_secs(5)), [counted]);
    }

    #[test]
    fn hooks_settle_as_the_policy_has_it() {
        let second = Duration::from_secs(1);
        let many = |flow: Flow| Flow {
            traffic: Traffic {
                frames: 10_000 * flow.traffic.frames,
                bytes: 10_000 * flow.traffic.bytes,
            },
            ..flow
        };
        let short = many(flow(SizeClass::To128, 60, Outcome::CARRIED, Outcome::CARRIED));
        let bulk = many(flow(
            SizeClass::Gso,
            64_000,
            Outcome::left(Reason::Generic),
            Outcome::CARRIED,
        ));
        let batched = Flow {
            xdp: Outcome::left(Reason::VhostNet),
            ..short
        };
        assert!(settles_on_xdp(&[short], second));
        assert!(!settles_on_xdp(&[bulk], second));
        assert!(!settles_on_xdp(&[batched], second));
        assert!(!settles_on_xdp(&[many(left(Reason::Host))], second));
        // To begin with a tap has XDP.
        assert!(settles_on_xdp(&[], second));
    }

    #[test]
    fn an_estimate_is_the_middle_of_its_rounds() {
        let estimate = Estimate::of((0..=10).map(f64::from));
        assert_eq!((estimate.value, estimate.low, estimate.high), (5.0, 1.0, 9.0));
        assert!(estimate.is_uncertain());
        let estimate = Estimate::of([1.0, 1.1, 0.95]);
        assert!(!estimate.is_uncertain(), "{estimate:?}");
        assert_eq!(Estimate::of([]), Estimate::default());
    }
}
