//! What was counted since a moment: statistics less earlier ones.
//!
//! The counters in the kernel only grow. Earlier statistics are a document that `stats -j` has printed, or the baseline, which is
//! such a document too, pinned beside the counters.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Selection,
    statistics::{self, Count, PathStatistics, PortStatistics, Statistics},
};
use crate::{
    SCHEMA,
    error::{Context as _, Error, Result},
    fastpath::FastPath,
    state::{State, StateLock},
};

/// From when statistics count.
#[derive(Clone, Debug, Default)]
pub enum Start {
    /// Since each port was attached.
    Attach,
    /// Since the baseline, if there is one.
    #[default]
    Baseline,
    /// Since these were printed.
    Earlier(Earlier),
}

/// From when statistics count, as they say themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// When the earlier ones were read, as [`Statistics::time`].
    pub time: String,
    /// How many milliseconds lie between.
    pub interval_ms: u64,
    /// Whether that is the baseline.
    pub baseline: bool,
    /// Ports that were attached later, or anew: they count since then. Sorted.
    pub attached_later: Vec<String>,
}

/// Statistics that were printed as JSON.
#[derive(Clone, Debug, Deserialize)]
pub struct Earlier {
    #[serde(skip)]
    place: PathBuf,
    schema: u32,
    time: String,
    boot: String,
    uptime_ms: u64,
    since: Option<Since>,
    bridges: Vec<EarlierBridge>,
}

#[derive(Clone, Debug, Deserialize)]
struct EarlierBridge {
    ports: Vec<EarlierPort>,
    paths: Vec<EarlierPath>,
}

/// As [`PortStatistics`]; what an earlier version did not count was none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct EarlierPort {
    ifname: String,
    ifindex: u32,
    attachment: u32,
    rx: Count,
    forwarded: Count,
    left: Count,
    left_by_reason: BTreeMap<String, u64>,
    passed_up: u64,
    passed_up_by_reason: BTreeMap<String, u64>,
    tx: Count,
    tx_by_bridge: u64,
    tx_dropped: u64,
    checksums_completed: u64,
    bulk: Count,
    gso_frames: u64,
}

/// As [`PathStatistics`].
#[derive(Clone, Debug, Deserialize)]
struct EarlierPath {
    from: String,
    to: Option<String>,
    via: String,
    frames: u64,
    bytes: u64,
}

/// Reads what was counted, of all bridges of the calling thread's network namespace or of what is asked for.
pub async fn read(state: &State, only: impl Into<Selection>, start: &Start) -> Result<Statistics> {
    let only = only.into();
    // Before the counters: of two baselines the earlier one fits them.
    let baseline = match start {
        Start::Baseline => baseline(state)?,
        Start::Earlier(earlier) if earlier.since.is_some() => baseline(state)?,
        // What counts since each port was attached asks for none, whatever has become of it.
        Start::Attach | Start::Earlier(_) => None,
    };
    let (mut statistics, links) = statistics::read_all(state).await?;
    match (start, baseline) {
        (Start::Baseline, Some(baseline)) => statistics.subtract(&baseline, true),
        (Start::Earlier(earlier), baseline) => subtract_earlier(&mut statistics, earlier, baseline.as_ref())?,
        (Start::Attach, _) | (_, None) => {}
    }
    only.apply(&mut statistics.bridges, &links)?;
    if let Some(since) = &mut statistics.since {
        let ports = statistics.bridges.iter().flat_map(|bridge| &bridge.ports);
        let kept: BTreeSet<&str> = ports.map(|port| &*port.ifname).collect();
        since.attached_later.retain(|name| kept.contains(&**name));
    }
    Ok(statistics)
}

/// Subtracts what counts from the same moment only.
fn subtract_earlier(now: &mut Statistics, earlier: &Earlier, baseline: Option<&Earlier>) -> Result<()> {
    if let Some(since) = &earlier.since {
        let Some(same) = baseline.filter(|baseline| since.baseline && baseline.time == since.time) else {
            return Err(Error::OtherBaseline {
                path: earlier.place.clone(),
                time: since.time.clone(),
            });
        };
        now.subtract(same, true);
    }
    now.subtract(earlier, false);
    Ok(())
}

/// Makes what has been counted until now the baseline, and answers with what was counted since the one before. Without any port
/// there is none.
pub async fn reset(state: &State) -> Result<Statistics> {
    let Some(locked) = state.lock_existing()? else {
        return read(state, None, &Start::Baseline).await;
    };
    let before = baseline(state)?;
    let (mut statistics, _) = statistics::read_all(state).await?;
    if let Some(fast) = FastPath::open(&locked)? {
        let document = serde_json::to_vec(&statistics).at("statistics", "write as JSON")?;
        fast.set_baseline(&locked, Some(&document))?;
    }
    if let Some(before) = before {
        statistics.subtract(&before, true);
    }
    Ok(statistics)
}

/// Removes the baseline.
pub fn forget(state: &StateLock) -> Result<()> {
    FastPath::open(state)?.map_or(Ok(()), |fast| fast.set_baseline(state, None))
}

/// The baseline of the calling thread's network namespace.
fn baseline(state: &State) -> Result<Option<Earlier>> {
    let open = match state.read()? {
        Some(folder) => FastPath::open_or_list(&folder)?.0,
        None => None,
    };
    let Some(bytes) = open.map_or(Ok(None), |fast| fast.baseline())? else {
        return Ok(None);
    };
    let parsed = Earlier::parse(&bytes, Path::new(FastPath::BASELINE));
    parsed.map(Some).map_err(|cause| Error::BadBaseline { cause })
}

impl Earlier {
    /// Reads a document that `stats -j` has printed.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let text = fs::read(&path).at(path.display(), "read")?;
        Self::parse(&text, &path).map_err(|cause| Error::NotStatistics { path, cause })
    }

    /// Fails with what is wrong.
    fn parse(text: &[u8], place: &Path) -> Result<Self, String> {
        let mut earlier: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if earlier.schema != SCHEMA {
            return Err(format!(
                "its schema is {}, and this tapbridge has {SCHEMA}",
                earlier.schema
            ));
        }
        place.clone_into(&mut earlier.place);
        Ok(earlier)
    }

    fn ports(&self) -> impl Iterator<Item = &EarlierPort> {
        self.bridges.iter().flat_map(|bridge| &bridge.ports)
    }

    /// What has come in by a port.
    fn paths_from(&self, name: &str) -> impl Iterator<Item = &EarlierPath> {
        let paths = self.bridges.iter().flat_map(|bridge| &bridge.paths);
        paths.filter(move |path| path.from == name)
    }

    /// The index of the port of this name.
    fn index(&self, name: &str) -> Option<u32> {
        self.ports()
            .find(|port| port.ifname == name)
            .map(|port| port.ifindex)
    }
}

impl Statistics {
    /// Leaves what was counted since these were read.
    fn subtract(&mut self, earlier: &Earlier, baseline: bool) {
        let interval_ms = if earlier.boot == self.boot {
            self.uptime_ms.saturating_sub(earlier.uptime_ms)
        } else {
            // Before this start nothing of it was counted.
            self.uptime_ms
        };
        let indices: BTreeMap<String, u32> = self
            .bridges
            .iter()
            .flat_map(|bridge| &bridge.ports)
            .map(|port| (port.ifname.clone(), port.ifindex))
            .collect();
        let mut attached_later = Vec::new();
        for bridge in &mut self.bridges {
            for port in &mut bridge.ports {
                let same = |before: &&EarlierPort| self.boot == earlier.boot && before.is_begin_of(port);
                let Some(before) = earlier.ports().find(same) else {
                    attached_later.push(port.ifname.clone());
                    continue;
                };
                port.subtract(before);
                // They are sorted.
                let begin = bridge.paths.partition_point(|path| path.from < port.ifname);
                let end = bridge.paths.partition_point(|path| path.from <= port.ifname);
                subtract_paths(&mut bridge.paths[begin..end], &indices, &before.ifname, earlier);
            }
            bridge.paths.retain(|path| path.frames != 0);
        }
        attached_later.sort();
        self.since = Some(Since {
            time: earlier.time.clone(),
            interval_ms,
            baseline,
            attached_later,
        });
    }
}

/// Leaves of the paths from a port what was counted since. Of a path to a device that is gone the kernel's count has moved to
/// the one that leads to no device.
fn subtract_paths(
    now: &mut [PathStatistics],
    indices: &BTreeMap<String, u32>,
    then: &str,
    earlier: &Earlier,
) {
    let mut moved = BTreeMap::<&str, Count>::new();
    for before in earlier.paths_from(then) {
        let count = Count {
            frames: before.frames,
            bytes: before.bytes,
        };
        let index_then = before.to.as_deref().and_then(|to| earlier.index(to));
        let same = now.iter_mut().find(|path| {
            let Some(to) = &path.to else { return false };
            let is_same = match (indices.get(to).copied(), index_then) {
                (Some(index), Some(then)) => index == then,
                _ => Some(to) == before.to.as_ref(),
            };
            is_same && path.via == before.via && path.frames >= before.frames
        });
        match same {
            Some(path) => {
                path.frames -= count.frames;
                path.bytes = path.bytes.saturating_sub(count.bytes);
            }
            None => *moved.entry(&before.via).or_default() += count,
        }
    }
    for path in now.iter_mut().filter(|path| path.to.is_none()) {
        let before = moved.get(path.via).copied().unwrap_or_default();
        path.frames = path.frames.saturating_sub(before.frames);
        path.bytes = path.bytes.saturating_sub(before.bytes);
    }
}

impl EarlierPort {
    /// Whether a port has gone on from here: it is attached as it was then, and no counter has gone back.
    fn is_begin_of(&self, port: &PortStatistics) -> bool {
        (self.ifindex, self.attachment) == (port.ifindex, port.attachment)
            && self.rx.frames <= port.rx.frames
            && self.forwarded.frames <= port.forwarded.frames
            && self.left.frames <= port.left.frames
    }
}

impl Count {
    fn subtract(&mut self, before: Self) {
        self.frames = self.frames.saturating_sub(before.frames);
        self.bytes = self.bytes.saturating_sub(before.bytes);
    }
}

impl PortStatistics {
    fn subtract(&mut self, before: &EarlierPort) {
        // Each counter, so that a new one is not forgotten here.
        let Self {
            ifname: _,
            ifindex: _,
            attachment: _,
            rx,
            forwarded,
            left,
            left_by_reason,
            passed_up,
            passed_up_by_reason,
            tx,
            tx_by_bridge,
            tx_of_device,
            tx_dropped,
            checksums_completed,
            bulk,
            gso_frames,
        } = self;
        // Not in the documents, so that nobody knows what it was.
        *tx_of_device = None;
        for (count, before) in [
            (rx, before.rx),
            (forwarded, before.forwarded),
            (left, before.left),
            (tx, before.tx),
            (bulk, before.bulk),
        ] {
            count.subtract(before);
        }
        for (count, before) in [
            (passed_up, before.passed_up),
            (tx_by_bridge, before.tx_by_bridge),
            (tx_dropped, before.tx_dropped),
            (checksums_completed, before.checksums_completed),
            (gso_frames, before.gso_frames),
        ] {
            *count = count.saturating_sub(before);
        }
        for (counts, before) in [
            (left_by_reason, &before.left_by_reason),
            (passed_up_by_reason, &before.passed_up_by_reason),
        ] {
            for (reason, count) in &mut *counts {
                *count = count.saturating_sub(before.get(*reason).copied().unwrap_or(0));
            }
            counts.retain(|_, count| *count != 0);
        }
    }
}
