//! What was counted beside the measurements: frames by their paths or left to the bridge, system calls.

use std::collections::BTreeMap;

use super::{
    compare::{Spread, median_of, runs},
    metrics::{number, units},
};
use crate::{
    results::{LeftCount, PathCount, Results, Role, Run, Stats},
    workload::kind::Workload,
};

/// The paths that frames took in all rounds, each with its share of them; `None` of a datapath that does not count.
pub fn paths(results: &Results, workload: Workload, datapath: &str) -> Option<Vec<(PathCount, f64)>> {
    let stats: Vec<_> = stats(results, workload, datapath).collect();
    let mut paths: Vec<PathCount> = Vec::new();
    for path in stats.iter().flat_map(|stats| &stats.paths) {
        let same = |other: &&mut PathCount| {
            (&other.from, &other.to, &other.via) == (&path.from, &path.to, &path.via)
        };
        match paths.iter_mut().find(same) {
            Some(sum) => {
                sum.frames += path.frames;
                sum.bytes += path.bytes;
            }
            None => paths.push(path.clone()),
        }
    }
    // Both hooks of a way side by side, though the first round may have seen but one.
    paths.sort_by(|one, other| (&one.from, &one.to).cmp(&(&other.from, &other.to)));
    let all = number(paths.iter().map(|path| path.frames).sum());
    let shared = paths.into_iter().map(|path| {
        let share = number(path.frames) / all;
        (path, share)
    });
    (!stats.is_empty()).then(|| shared.collect())
}

/// What was left to the bridge in all rounds.
pub fn left(results: &Results, workload: Workload, datapath: &str) -> Vec<LeftCount> {
    let mut left: Vec<LeftCount> = Vec::new();
    for count in stats(results, workload, datapath).flat_map(|stats| &stats.left) {
        let same = |other: &&mut LeftCount| (&other.port, &other.reason) == (&count.port, &count.reason);
        match left.iter_mut().find(same) {
            Some(sum) => sum.frames += count.frames,
            None => left.push(count.clone()),
        }
    }
    left
}

/// How a port changed by itself in all rounds.
#[derive(Debug, Clone, PartialEq)]
pub struct HookChanges {
    pub port: String,
    /// Those that it had from then on.
    pub hooks: Vec<String>,
    pub count: u64,
    /// When it did so first, in seconds.
    pub first_s: Option<Spread>,
}

/// Those of every port and of every set of hooks together.
pub fn hook_changes(results: &Results, workload: Workload, datapath: &str) -> Vec<HookChanges> {
    // By port and hooks, how often, and round by round when first.
    let mut all: BTreeMap<_, (u64, BTreeMap<u32, f64>)> = BTreeMap::new();
    for (round, run) in runs(results, workload, datapath) {
        for change in &run.hook_changes {
            let (count, first) = all.entry((&change.ifname, &change.hooks)).or_default();
            *count += 1;
            first.entry(round).or_insert(change.seconds);
        }
    }
    let changes = all
        .into_iter()
        .map(|((port, hooks), (count, first))| HookChanges {
            port: port.clone(),
            hooks: hooks.clone(),
            count,
            first_s: Spread::of(first.into_values()),
        });
    changes.collect()
}

fn stats<'results>(
    results: &'results Results,
    workload: Workload,
    datapath: &str,
) -> impl Iterator<Item = &'results Stats> {
    runs(results, workload, datapath).filter_map(|(_, run)| run.stats.as_ref())
}

type RoleOf = fn(&Run) -> &Role;

/// The system calls of the client's VMM and of the server's, by the workload's unit: of each those of the round in which
/// their sum was the median. Empty where they were not counted.
pub fn calls(
    results: &Results,
    workload: Workload,
    datapath: &str,
) -> Vec<(&'static str, Vec<(String, f64)>)> {
    let counted = |(name, role): (_, RoleOf)| {
        let rounds = runs(results, workload, datapath).filter_map(|(_, run)| {
            let (role, units) = (role(run), units(run)?);
            Some((number(role.calls()?) / units, role.syscalls.as_ref()?, units))
        });
        let (_, calls, units) = median_of(rounds.collect(), |(sum, ..)| *sum)?;
        let by_unit = calls
            .iter()
            .map(|(call, &count)| (call.clone(), number(count) / units));
        Some((name, by_unit.collect()))
    };
    let roles: [(_, RoleOf); 2] = [("client", |run| &run.client), ("server", |run| &run.server)];
    roles.into_iter().filter_map(counted).collect()
}

/// Names with the largest sums, the largest first; at most so many.
pub fn most<'names>(counts: impl Iterator<Item = (&'names str, f64)>, limit: usize) -> Vec<String> {
    let mut sums = BTreeMap::new();
    for (name, count) in counts {
        *sums.entry(name).or_insert(0.0) += count;
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|(_, one): &(_, f64), (_, other)| other.total_cmp(one));
    sums.truncate(limit);
    sums.into_iter().map(|(name, _)| name.to_owned()).collect()
}

/// Frames that the guests' frame pumps could not hand on, because the other end had no room.
pub fn pump_drops(results: &Results, datapath: &str) -> u64 {
    let samples = results
        .samples
        .iter()
        .filter(|sample| sample.datapath == datapath);
    let pumps = samples.flat_map(|sample| sample.pumps.iter().flatten());
    pumps
        .map(|pump| pump.to_host.dropped + pump.to_guest.dropped)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn calls_are_those_of_the_round_with_the_median_sum() {
        let samples = [1.6, 0.8, 3.2].map(|rate| fixture::sample("ovs", 1, rate, 1.0));
        let calls = calls(&fixture::results(samples.into()), Workload::Throughput, "ovs");
        let client = vec![("read".into(), 100.0), ("writev".into(), 200.0)];
        assert_eq!(
            calls,
            [("client", client), ("server", vec![("read".into(), 300.0)])]
        );
    }

    #[test]
    fn changes_of_hooks_are_counted_and_the_first_of_each_round_is_timed() {
        let sample = |round, seconds: &[f64]| {
            let mut sample = fixture::sample("tapbridge", round, 1.0, 1.0);
            let change = |&seconds| fixture::hook_change("vm1", &["tcx"], seconds);
            sample.runs[0].hook_changes = seconds.iter().map(change).collect();
            sample
        };
        let results = fixture::results(vec![sample(1, &[0.4, 3.0]), sample(2, &[0.6]), sample(3, &[])]);
        let changes = hook_changes(&results, Workload::Throughput, "tapbridge");
        let [change] = &changes[..] else {
            panic!("{changes:?}")
        };
        assert_eq!((&*change.port, change.count), ("vm1", 3));
        assert_eq!(change.first_s, Spread::of([0.4, 0.6]));
        assert_eq!(hook_changes(&results, Workload::Latency, "tapbridge"), []);
    }

    #[test]
    fn the_most_frequent_names_come_first() {
        let counts = [("a", 1.0), ("b", 5.0), ("a", 2.0), ("c", 0.5)];
        assert_eq!(most(counts.into_iter(), 2), ["b", "a"]);
    }

    #[test]
    fn a_paths_share_is_of_all_frames_of_the_workload() {
        let samples = [1, 2].map(|round| fixture::sample("tapbridge", round, 1.0, 1.0));
        let results = fixture::results(samples.into());
        let paths = paths(&results, Workload::Throughput, "tapbridge").unwrap();
        assert_eq!((&*paths[0].0.via, paths[0].0.frames), ("xdp", 600));
        assert!((paths[0].1 - 0.75).abs() < 1e-9 && (paths[1].1 - 0.25).abs() < 1e-9);
        assert!(super::paths(&results, Workload::Latency, "tapbridge").is_none());
    }

    #[test]
    fn what_was_left_in_all_rounds_is_added() {
        let samples = [1, 2, 3].map(|round| fixture::sample("tapbridge", round, 1.0, 1.0));
        let results = fixture::results(samples.into());
        let left = left(&results, Workload::Throughput, "tapbridge");
        assert_eq!(left.len(), 1);
        assert_eq!((&*left[0].reason, left[0].frames), ("source_refresh", 9));
    }
}
