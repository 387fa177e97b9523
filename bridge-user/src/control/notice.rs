//! What `run` tells of.

use std::{path::PathBuf, time::Duration};

use bridge_common::{
    fastpath::{Cause, Port},
    hook_policy::CounterDelta,
    port::flag,
};
use serde::Serialize;

use crate::{error::Error, operations::attach::Attached, port::hooks};

/// Something that `run` has to tell.
#[derive(Debug)]
pub enum Notice {
    /// It looks after ports from now on.
    Ready,
    /// It follows this configuration from now on.
    Following {
        /// The file.
        path: PathBuf,
        /// How many rules it has.
        rules: usize,
    },
    /// The configuration was to be read again and can't be used: what it said before stays.
    Rejected(Error),
    /// It has attached a port, or changed how, as the configuration asks for.
    Attached(Attached),
    /// It has changed a port's hooks.
    Changed(Change),
    /// It could not do so, or not read what is pinned; it goes on.
    Failed(Error),
    /// What was pinned is gone, though no command has removed it; it goes on with what comes.
    Vanished(Vanished),
}

/// Pins have been removed, with which the programs have left the ports; their bridges go on without them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vanished {
    /// "vanished".
    pub event: &'static str,
    /// The ports, by the names they had when they were attached.
    pub ports: Vec<String>,
}

/// Hooks that have changed, and the traffic that they fit better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// "hook".
    pub event: &'static str,
    /// The port's device.
    pub ifname: String,
    /// The bridge.
    pub master: String,
    /// The hooks that frames from the port meet now, first to last.
    pub hooks: Vec<&'static str>,
    /// How many times they have changed since the port was attached.
    pub hook_changes: u32,
    /// Why: the name of [`Cause::Cost`] or of [`Cause::VhostNet`].
    pub reason: &'static str,
    /// The time that the counts below are of, in milliseconds.
    pub interval_ms: u64,
    /// Frames received from the port.
    pub frames: u64,
    /// Those that XDP left to tcx.
    pub passed_up: u64,
    /// Those that native XDP can't take, and their bytes.
    pub bulk_frames: u64,
    /// See `bulk_frames`.
    pub bulk_bytes: u64,
    /// CPU time in nanoseconds that XDP saves on this traffic.
    pub xdp_saves_ns: u64,
    /// CPU time in nanoseconds that XDP costs on this traffic.
    pub xdp_costs_ns: u64,
}

impl Change {
    /// Of a port that has had this delta, as it is from now on.
    pub(super) fn new(
        ifname: String,
        master: String,
        port: &Port,
        cause: Cause,
        delta: &CounterDelta,
        interval: Duration,
    ) -> Self {
        let CounterDelta {
            frames,
            passed_up,
            bulk,
            ..
        } = *delta;
        let balance = delta.balance(!port.has(flag::XDP));
        Self {
            event: "hook",
            ifname,
            master,
            hooks: hooks(port.flags),
            hook_changes: port.hook_changes,
            reason: cause.name(),
            interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
            frames,
            passed_up,
            bulk_frames: bulk.frames,
            bulk_bytes: bulk.bytes,
            xdp_saves_ns: balance.saved,
            xdp_costs_ns: balance.spent,
        }
    }
}
