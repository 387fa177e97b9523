//! What `run` tells of.

use std::{
    fmt::{self, Display, Formatter},
    path::PathBuf,
    time::Duration,
};

use bridge_common::{
    fastpath::{Cause, Port},
    forwarding::Reason,
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
    /// It is at work, as five times a second: who wants to know that it has not stopped.
    Alive(Load),
    /// It was asked to read the configuration again, and begins to.
    Reloading,
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

/// What `run` has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Ports of this network namespace that are attached, by whomever.
    pub ports: usize,
    /// Devices that the configuration asks for and that could not be attached when it was tried last.
    pub failing: usize,
}

impl Notice {
    /// What this is called where things that happened are listed.
    pub fn event(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Alive(_) => "alive",
            Self::Reloading => "reloading",
            Self::Following { .. } => "following",
            Self::Rejected(_) => "rejected",
            Self::Attached(_) => "attached",
            Self::Changed(change) => change.event,
            Self::Failed(_) => "failed",
            Self::Vanished(vanished) => vanished.event,
        }
    }
}

impl Display for Notice {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => write!(to, "watching the ports of '--hook auto'; Ctrl-C ends"),
            Self::Alive(Load { ports, failing: 0 }) => write!(to, "ports attached: {ports}"),
            Self::Alive(Load { ports, failing }) => {
                write!(to, "ports attached: {ports}, could not be: {failing}")
            }
            Self::Reloading => write!(to, "reading the configuration again"),
            Self::Following { path, rules } => {
                let rules = match rules {
                    1 => "1 rule is followed".to_owned(),
                    rules => format!("{rules} rules are followed"),
                };
                write!(to, "{}: {rules}", path.display())
            }
            Self::Rejected(cause) => write!(to, "{cause}; the rules stay as they were"),
            Self::Attached(attached) => write!(
                to,
                "{}: {} is attached by {}",
                attached.master,
                attached.ifname,
                attached.hooks.join(" + ")
            ),
            Self::Changed(change) => write!(to, "{change}"),
            Self::Failed(failure) => write!(to, "{failure}; trying again"),
            Self::Vanished(Vanished { ports, .. }) => write!(
                to,
                "the programs on {0} are gone though no command has detached them: their bpffs was unmounted, or their \
                 folder removed; their bridges go on without them, and 'tapbridge attach {0}' attaches them again",
                ports.join(" ")
            ),
        }
    }
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

impl Display for Change {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            ifname,
            master,
            interval_ms,
            frames,
            bulk_frames,
            ..
        } = self;
        let milliseconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3;
        let hooks = self.hooks.join(" + ");
        if self.reason == Reason::VhostNet.name() {
            return write!(
                to,
                "{master}: {ifname} has {hooks} now: vhost-net sends its frames, in batches that XDP would reorder",
            );
        }
        let noun = if *frames == 1 { "frame" } else { "frames" };
        write!(
            to,
            "{master}: {ifname} has {hooks} now: in {interval_ms} ms, of {frames} {noun} {bulk_frames} in bulk, XDP saves \
             {:.1} ms and costs {:.1} ms",
            milliseconds(self.xdp_saves_ns),
            milliseconds(self.xdp_costs_ns)
        )
    }
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
