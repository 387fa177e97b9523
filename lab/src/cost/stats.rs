//! What tapbridge's counters say of a measurement.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::results::{LeftCount, PathCount, Stats};

/// As much of a bridge in `tapbridge stats -j` as is subtracted.
#[derive(Deserialize)]
struct Bridge {
    ports: Vec<Port>,
    paths: Vec<Path>,
}

#[derive(Deserialize)]
struct Port {
    ifname: String,
    left_by_reason: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Path {
    from: String,
    /// None of a device that is gone.
    to: Option<String>,
    via: String,
    frames: u64,
    bytes: u64,
}

/// The bridges in what [`Attachment::stats`](crate::testbed::datapath::Attachment::stats) has returned.
fn bridges(stats: &Value) -> &Value {
    &stats["tapbridge"]["bridges"]
}

impl Stats {
    /// Frames that a port's programs have received meanwhile.
    pub fn received(&self, port: &str) -> Result<u64> {
        let frames = |stats: &Value| {
            let bridges = bridges(stats).as_array().into_iter().flatten();
            let mut ports = bridges.flat_map(|bridge| bridge["ports"].as_array().into_iter().flatten());
            ports.find(|other| other["ifname"] == port)?["rx"]["frames"].as_u64()
        };
        self.growth(frames)
            .with_context(|| format!("no received frames of {port}"))
    }

    /// Frames that a port's device has sent meanwhile, by whatever way they came to it.
    pub fn sent(&self, port: &str) -> Result<u64> {
        self.growth(|stats| stats["sent"][port].as_u64())
            .with_context(|| format!("no sent frames of {port}"))
    }

    fn growth(&self, of: impl Fn(&Value) -> Option<u64>) -> Option<u64> {
        of(&self.after)?.checked_sub(of(&self.before)?)
    }

    /// What came between two looks.
    pub fn between(before: Value, after: Value) -> Result<Self> {
        let [earlier, later] = [&before, &after].map(|stats| Vec::<Bridge>::deserialize(bridges(stats)));
        let (earlier, later) = (earlier.context("before")?, later.context("after")?);
        let paths = paths(&earlier, &later);
        let left = left(&earlier, &later);
        Ok(Self {
            before,
            after,
            paths,
            left,
        })
    }
}

fn paths(earlier: &[Bridge], later: &[Bridge]) -> Vec<PathCount> {
    let count = |path: &Path| PathCount {
        from: path.from.clone(),
        to: path.to.clone().unwrap_or_else(|| "a device that is gone".into()),
        via: path.via.clone(),
        frames: path.frames,
        bytes: path.bytes,
    };
    let all = |bridges: &[Bridge]| -> Vec<PathCount> {
        let paths = bridges.iter().flat_map(|bridge| &bridge.paths);
        paths.map(count).collect()
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

fn left(earlier: &[Bridge], later: &[Bridge]) -> Vec<LeftCount> {
    let mut left = Vec::new();
    for port in later.iter().flat_map(|bridge| &bridge.ports) {
        let mut before = earlier.iter().flat_map(|bridge| &bridge.ports);
        let before = before.find(|other| other.ifname == port.ifname);
        for (reason, &frames) in &port.left_by_reason {
            let before = before.and_then(|port| port.left_by_reason.get(reason)).copied();
            let frames = frames.saturating_sub(before.unwrap_or(0));
            if frames > 0 {
                left.push(LeftCount {
                    port: port.ifname.clone(),
                    reason: reason.clone(),
                    frames,
                });
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stats(xdp: u64, tcx: u64, group: u64) -> Value {
        json!({ "sent": { "vm1": 7 * xdp }, "tapbridge": { "schema": 2, "bridges": [{
            "bridge": "br0",
            "ports": [{
                "ifname": "vm1",
                "left_by_reason": { "group": group, "host": 3 },
                "rx": { "frames": xdp + tcx },
            }],
            "paths": [
                { "from": "vm1", "to": "vm2", "via": "xdp", "frames": xdp, "bytes": 10 * xdp },
                { "from": "vm1", "to": "vm2", "via": "tcx", "frames": tcx, "bytes": 10 * tcx },
            ],
        }] } })
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
        assert_eq!(between.left.len(), 1);
        assert_eq!((&*between.left[0].reason, between.left[0].frames), ("group", 2));
    }

    #[test]
    fn the_frames_of_a_port_are_told() {
        let between = Stats::between(stats(5, 7, 1), stats(25, 7, 3)).unwrap();
        assert_eq!(between.received("vm1").unwrap(), 20);
        assert_eq!(between.sent("vm1").unwrap(), 140);
        assert!(between.received("vm2").is_err());
        assert!(between.sent("vm2").is_err());
    }

    #[test]
    fn a_path_that_was_not_there_before_is_told_whole() {
        let before = json!({ "tapbridge": { "bridges": [] } });
        let between = Stats::between(before, stats(5, 7, 0)).unwrap();
        assert_eq!(
            between.paths.iter().map(|path| path.frames).collect::<Vec<_>>(),
            [5, 7]
        );
        assert_eq!(between.left[0].frames, 3);
    }
}
