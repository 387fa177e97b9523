//! What the switch's counters say of a measurement.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::results::{DropCount, PathCount, Stats};

/// As much of `tapbridge stats -j` as is subtracted.
#[derive(Deserialize)]
struct Counters {
    bridges: Vec<Bridge>,
}

#[derive(Deserialize)]
struct Bridge {
    ports: Vec<Port>,
    paths: Vec<PathCount>,
}

#[derive(Deserialize)]
struct Port {
    ifname: String,
    dropped: BTreeMap<String, u64>,
}

impl Stats {
    /// Frames of a port that came between, by the name of their counter, "rx" or "tx".
    pub fn since(&self, port: &str, counter: &str) -> Result<u64> {
        let frames = |stats: &Value| {
            let bridges = stats["bridges"].as_array().into_iter().flatten();
            let mut ports = bridges.flat_map(|bridge| bridge["ports"].as_array().into_iter().flatten());
            ports.find(|other| other["ifname"] == port)?[counter]["frames"].as_u64()
        };
        let [before, after] = [&self.before, &self.after].map(frames);
        let before = before.with_context(|| format!("no {counter} frames of {port}"))?;
        Ok(after.with_context(|| format!("{port} is gone"))? - before)
    }

    /// What came between two calls of `tapbridge stats -j`.
    pub fn between(before: Value, after: Value) -> Result<Self> {
        let [earlier, later] = [&before, &after].map(Counters::deserialize);
        let (earlier, later) = (earlier.context("before")?, later.context("after")?);
        let paths = paths(&earlier, &later);
        let drops = drops(&earlier, &later);
        Ok(Self {
            before,
            after,
            paths,
            drops,
        })
    }
}

fn paths(earlier: &Counters, later: &Counters) -> Vec<PathCount> {
    let all = |counters: &Counters| {
        counters
            .bridges
            .iter()
            .flat_map(|bridge| bridge.paths.clone())
            .collect::<Vec<_>>()
    };
    let earlier = all(earlier);
    let mut paths = all(later);
    for path in &mut paths {
        let way =
            |other: &&PathCount| (&other.from, &other.to, &other.via) == (&path.from, &path.to, &path.via);
        if let Some(before) = earlier.iter().find(way) {
            path.frames = path.frames.saturating_sub(before.frames);
            path.bytes = path.bytes.saturating_sub(before.bytes);
        }
    }
    paths.retain(|path| path.frames > 0);
    paths
}

fn drops(earlier: &Counters, later: &Counters) -> Vec<DropCount> {
    let mut drops = Vec::new();
    for port in later.bridges.iter().flat_map(|bridge| &bridge.ports) {
        let mut before = earlier.bridges.iter().flat_map(|bridge| &bridge.ports);
        let before = before.find(|other| other.ifname == port.ifname);
        for (reason, &frames) in &port.dropped {
            let before = before.and_then(|port| port.dropped.get(reason)).copied();
            let frames = frames.saturating_sub(before.unwrap_or(0));
            if frames > 0 {
                drops.push(DropCount {
                    port: port.ifname.clone(),
                    reason: reason.clone(),
                    frames,
                });
            }
        }
    }
    drops
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stats(xdp: u64, tcx: u64, full: u64) -> Value {
        json!({ "schema": 1, "bridges": [{
            "bridge": "lab1",
            "ports": [{ "ifname": "vm1", "dropped": { "egress_ring_full": full, "no_port": 3 }, "rx": { "frames": xdp + tcx } }],
            "paths": [
                { "from": "vm1", "to": "vm2", "via": "xdp", "frames": xdp, "bytes": 10 * xdp },
                { "from": "vm1", "to": "vm2", "via": "tcx", "frames": tcx, "bytes": 10 * tcx },
            ],
        }] })
    }

    #[test]
    fn only_what_came_between_is_told() {
        let between = Stats::between(stats(5, 7, 1), stats(25, 7, 3)).unwrap();
        assert_eq!(between.paths.len(), 1);
        assert_eq!(
            (
                &*between.paths[0].via,
                between.paths[0].frames,
                between.paths[0].bytes
            ),
            ("xdp", 20, 200)
        );
        assert_eq!(between.drops.len(), 1);
        assert_eq!(
            (&*between.drops[0].reason, between.drops[0].frames),
            ("egress_ring_full", 2)
        );
    }

    #[test]
    fn the_frames_of_a_port_are_told() {
        let between = Stats::between(stats(5, 7, 1), stats(25, 7, 3)).unwrap();
        assert_eq!(between.since("vm1", "rx").unwrap(), 20);
        assert!(between.since("vm1", "tx").is_err());
        assert!(between.since("vm2", "rx").is_err());
    }

    #[test]
    fn a_path_that_was_not_there_before_is_told_whole() {
        let before = json!({ "bridges": [] });
        let between = Stats::between(before, stats(5, 7, 0)).unwrap();
        assert_eq!(
            between.paths.iter().map(|path| path.frames).collect::<Vec<_>>(),
            [5, 7]
        );
        assert_eq!(between.drops[0].frames, 3);
    }
}
