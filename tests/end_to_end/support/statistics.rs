//! What `stats -j` says: every key of it, so that a change of the JSON is a change here.

use std::{collections::BTreeMap, ops::Add};

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    pub schema: u32,
    pub bridges: Vec<Bridge>,
    pub accelerated: Vec<Accelerated>,
    pub unreadable: Vec<Value>,
}

/// A Linux bridge with ports that are attached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accelerated {
    pub bridge: Option<String>,
    pub ports: Vec<AcceleratedPort>,
    pub paths: Vec<PathPast>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceleratedPort {
    pub ifname: String,
    pub rx: Count,
    pub forwarded: Count,
    pub left: Count,
    pub left_by_reason: BTreeMap<String, u64>,
    pub passed_up: u64,
    pub passed_up_by_reason: BTreeMap<String, u64>,
    pub tx: Count,
    pub checksums_completed: u64,
    pub bulk: Count,
    pub gso_frames: u64,
}

/// A path past a Linux bridge; without an end where that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathPast {
    pub from: String,
    pub to: Option<String>,
    pub via: String,
    pub frames: u64,
    pub bytes: u64,
}

impl Accelerated {
    #[track_caller]
    pub fn port(&self, name: &str) -> &AcceleratedPort {
        let port = self.ports.iter().find(|port| port.ifname == name);
        port.unwrap_or_else(|| panic!("no port {name} in {self:#?}"))
    }

    /// Frames that went from one port past the bridge: by XDP, by tcx.
    pub fn frames(&self, from: &str, to: Option<&str>) -> (u64, u64) {
        let by = |via: &str| {
            let mut paths = self.paths.iter();
            let path = paths.find(|path| (&*path.from, path.to.as_deref(), &*path.via) == (from, to, via));
            path.map_or(0, |path| path.frames)
        };
        (by("xdp"), by("tcx"))
    }

    /// Every frame is in exactly one place.
    #[track_caller]
    pub fn assert_conservation(&self) {
        for port in &self.ports {
            assert_eq!(port.rx, port.forwarded + port.left, "{}: {self:#?}", port.ifname);
            let from = self.paths.iter().filter(|path| path.from == port.ifname);
            let forwarded = from.fold(Count::default(), |sum, path| {
                sum + Count {
                    frames: path.frames,
                    bytes: path.bytes,
                }
            });
            assert_eq!(port.forwarded, forwarded, "{}: {self:#?}", port.ifname);
            let reasons: u64 = port.left_by_reason.values().sum();
            assert_eq!(port.left.frames, reasons, "{}: {self:#?}", port.ifname);
            let passed_up: u64 = port.passed_up_by_reason.values().sum();
            assert_eq!(port.passed_up, passed_up, "{}: {self:#?}", port.ifname);
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "as in the JSON")]
pub struct Bridge {
    pub bridge: String,
    pub ports: Vec<Port>,
    pub paths: Vec<Path>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    pub frames: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    pub ifname: String,
    pub rx: Count,
    pub tx: Count,
    pub forwarded: Count,
    pub detached: Detached,
    pub flooded: Count,
    pub passed_up: u64,
    pub passed_up_by_reason: BTreeMap<String, u64>,
    pub checksums_completed: u64,
    pub bulk: Count,
    pub gso_frames: u64,
    pub learned: u64,
    pub moved: u64,
    pub flood_errors: u64,
    pub dropped: BTreeMap<String, u64>,
}

/// What a port has exchanged with ports that are no more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detached {
    pub forwarded: Count,
    pub tx: Count,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    pub from: String,
    pub to: String,
    pub via: String,
    pub frames: u64,
    pub bytes: u64,
}

/// The reason for frames that were lost after they had left the switch.
pub const RING_FULL: &str = "egress_ring_full";

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Port {
    /// Frames dropped for a reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.dropped.get(reason).copied().unwrap_or(0)
    }

    /// Received frames that went nowhere.
    fn dropped_on_arrival(&self) -> u64 {
        self.dropped.values().sum::<u64>() - self.dropped(RING_FULL)
    }
}

impl Bridge {
    #[track_caller]
    pub fn port(&self, name: &str) -> &Port {
        let port = self.ports.iter().find(|port| port.ifname == name);
        port.unwrap_or_else(|| panic!("no port {name} in {self:#?}"))
    }

    /// What went from one port to another by a hook.
    pub fn path(&self, from: &str, to: &str, via: &str) -> Count {
        let path = self
            .paths
            .iter()
            .find(|path| (&*path.from, &*path.to, &*path.via) == (from, to, via));
        path.map_or_else(Count::default, |path| Count {
            frames: path.frames,
            bytes: path.bytes,
        })
    }

    /// Frames that went from one port to another: by XDP, by tcx.
    pub fn frames(&self, from: &str, to: &str) -> (u64, u64) {
        (
            self.path(from, to, "xdp").frames,
            self.path(from, to, "tcx").frames,
        )
    }

    /// Every frame is in exactly one place.
    #[track_caller]
    pub fn assert_conservation(&self) {
        for port in &self.ports {
            let places = port.forwarded.frames + port.flooded.frames + port.dropped_on_arrival();
            assert_eq!(port.rx.frames, places, "{}: {self:#?}", port.ifname);
            assert!(
                (port.gso_frames..=port.rx.frames).contains(&port.bulk.frames),
                "{}: {self:#?}",
                port.ifname
            );
            let from = self.sum(|path| path.from == port.ifname) + port.detached.forwarded;
            assert_eq!(
                port.forwarded, from,
                "{}: forwarded and paths: {self:#?}",
                port.ifname
            );
            let to = self.sum(|path| path.to == port.ifname) + port.detached.tx;
            assert!(
                port.tx.frames >= to.frames && port.tx.bytes >= to.bytes,
                "{}: tx and paths: {self:#?}",
                port.ifname
            );
        }
    }

    fn sum(&self, wanted: impl Fn(&Path) -> bool) -> Count {
        let paths = self.paths.iter().filter(|path| wanted(path));
        paths.fold(Count::default(), |sum, path| {
            sum + Count {
                frames: path.frames,
                bytes: path.bytes,
            }
        })
    }
}
