//! How much went by in a second.

use std::{collections::HashMap, time::Duration};

use tapbridge::snapshot::statistics::{Count, PathStatistics, PortStatistics, Statistics};

/// From, to, via.
type PathKey<'names> = (&'names str, Option<&'names str>, &'static str);

/// What went by since a moment, against which statistics are held.
pub struct Rates<'before> {
    /// By index and attachment: a port that was attached anew counts from zero.
    ports: HashMap<(u32, u32), &'before PortStatistics>,
    paths: HashMap<PathKey<'before>, Count>,
    time: Duration,
}

/// Of a port, in a second.
#[derive(Clone, Copy)]
pub struct PortRates {
    pub rx_frames: f64,
    pub rx_bytes: f64,
    pub left: f64,
    pub tx_frames: f64,
    pub dropped: f64,
}

impl<'before> Rates<'before> {
    /// Since these were read, or, with none, since what the statistics themselves count from; so long ago.
    pub fn new(before: Option<&'before Statistics>, time: Duration) -> Self {
        let bridges = || before.iter().flat_map(|before| &before.bridges);
        let ports = bridges().flat_map(|bridge| &bridge.ports);
        let paths = bridges().flat_map(|bridge| &bridge.paths);
        Self {
            ports: ports.map(|port| (port_key(port), port)).collect(),
            paths: paths.map(|path| (path_key(path), count(path))).collect(),
            time,
        }
    }

    pub fn of_port(&self, port: &PortStatistics) -> PortRates {
        let before = self.ports.get(&port_key(port));
        let rate = |count: fn(&PortStatistics) -> u64| {
            self.rate(count(port), before.map_or(0, |before| count(before)))
        };
        PortRates {
            rx_frames: rate(|port| port.rx.frames),
            rx_bytes: rate(|port| port.rx.bytes),
            left: rate(|port| port.left.frames),
            tx_frames: rate(|port| port.tx.frames + port.tx_by_bridge),
            dropped: rate(|port| port.tx_dropped),
        }
    }

    /// Frames and bytes.
    pub fn of_path(&self, path: &PathStatistics) -> [f64; 2] {
        let before = self.paths.get(&path_key(path)).copied().unwrap_or_default();
        [
            self.rate(path.frames, before.frames),
            self.rate(path.bytes, before.bytes),
        ]
    }

    /// Exact up to 2^53; none in no time.
    #[expect(clippy::cast_precision_loss)]
    fn rate(&self, now: u64, before: u64) -> f64 {
        if self.time.is_zero() {
            return 0.0;
        }
        now.saturating_sub(before) as f64 / self.time.as_secs_f64()
    }
}

fn port_key(port: &PortStatistics) -> (u32, u32) {
    (port.ifindex, port.attachment)
}

fn path_key(path: &PathStatistics) -> PathKey<'_> {
    (&path.from, path.to.as_deref(), path.via)
}

fn count(path: &PathStatistics) -> Count {
    Count {
        frames: path.frames,
        bytes: path.bytes,
    }
}
