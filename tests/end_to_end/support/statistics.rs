//! What `stats -j` says: every key of it, so that a change of the JSON is a change here.

use std::{collections::BTreeMap, ops::Add};

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    pub schema: u32,
    pub time: String,
    pub boot: String,
    pub uptime_ms: u64,
    pub since: Option<Since>,
    pub bridges: Vec<Bridge>,
    pub unreadable: Vec<Value>,
}

/// From when they count.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Since {
    pub time: String,
    pub interval_ms: u64,
    pub baseline: bool,
    pub attached_later: Vec<String>,
}

/// A bridge with ports that are attached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "as in the JSON")]
pub struct Bridge {
    pub bridge: Option<String>,
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
    pub ifindex: u32,
    pub attachment: u32,
    pub rx: Count,
    pub forwarded: Count,
    pub left: Count,
    pub left_by_reason: BTreeMap<String, u64>,
    pub passed_up: u64,
    pub passed_up_by_reason: BTreeMap<String, u64>,
    pub tx: Count,
    pub tx_by_bridge: u64,
    pub tx_dropped: u64,
    pub checksums_completed: u64,
    pub bulk: Count,
    pub gso_frames: u64,
}

/// A path past a bridge; without an end where that is no more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Path {
    pub from: String,
    pub to: Option<String>,
    pub via: String,
    pub frames: u64,
    pub bytes: u64,
}

impl Bridge {
    #[track_caller]
    pub fn port(&self, name: &str) -> &Port {
        let port = self.ports.iter().find(|port| port.ifname == name);
        port.unwrap_or_else(|| panic!("no port {name} in {self:#?}"))
    }

    /// Frames that went from one port past the bridge: by XDP, by tcx.
    pub fn frames(&self, from: &str, to: &str) -> (u64, u64) {
        (
            self.path(from, to, "xdp").frames,
            self.path(from, to, "tcx").frames,
        )
    }

    /// Frames that went from one port to devices that are no more: by XDP, by tcx.
    pub fn frames_to_gone(&self, from: &str) -> (u64, u64) {
        let by = |via: &str| self.count(from, None, via).frames;
        (by("xdp"), by("tcx"))
    }

    /// What went from one port to another by a hook.
    pub fn path(&self, from: &str, to: &str, via: &str) -> Count {
        self.count(from, Some(to), via)
    }

    fn count(&self, from: &str, to: Option<&str>, via: &str) -> Count {
        let mut paths = self.paths.iter();
        let path = paths.find(|path| (&*path.from, path.to.as_deref(), &*path.via) == (from, to, via));
        path.map_or_else(Count::default, |path| Count {
            frames: path.frames,
            bytes: path.bytes,
        })
    }

    /// Every frame is in exactly one place.
    #[track_caller]
    pub fn assert_conservation(&self) {
        let mut sent_to = BTreeMap::<&str, u64>::new();
        for path in &self.paths {
            *sent_to.entry(path.to.as_deref().unwrap_or_default()).or_default() += path.frames;
        }
        for port in &self.ports {
            let sent = sent_to.get(&*port.ifname).copied().unwrap_or(0);
            // Ports that have been detached have sent too.
            assert!(port.tx.frames >= sent, "{}: {self:#?}", port.ifname);
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

impl Port {
    /// Frames that were left to the bridge for a reason.
    pub fn left(&self, reason: &str) -> u64 {
        self.left_by_reason.get(reason).copied().unwrap_or(0)
    }
}

impl Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            frames: self.frames + other.frames,
            bytes: self.bytes + other.bytes,
        }
    }
}
