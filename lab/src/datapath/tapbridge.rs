//! This project's switch, by its command line.

mod watcher;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use lab::Namespace;
use serde_json::Value;

use super::{Attachment, Datapath};
use crate::{plan, process};

pub use watcher::{Change, Watcher};

/// Where the switch pins its bridges, one folder each, unless the environment says otherwise.
const DEFAULT_STATE: &str = "/sys/fs/bpf/tapbridge";

/// Where the switch's programs sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    /// In XDP and tcx; `tapbridge run` takes XDP off ports while they send bulk
    Auto,
    /// In XDP, with tcx for what XDP passes up
    Xdp,
    /// In tcx alone
    Tcx,
}

impl Hook {
    /// The name on the command lines of the lab and the switch.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
        }
    }
}

pub struct Tapbridge {
    pub program: PathBuf,
    pub hook: Hook,
}

impl Datapath for Tapbridge {
    fn attach<'host>(&self, host: &'host Namespace, taps: &[String]) -> Result<Box<dyn Attachment + 'host>> {
        let bridge = plan::bridge(std::process::id());
        let watch = || Watcher::start(host.command(&self.program)?);
        let watcher = (self.hook == Hook::Auto).then(watch).transpose()?;
        // Before the first step, which may leave half a bridge.
        let attached = Attached {
            watcher,
            program: self.program.clone(),
            hook: self.hook,
            bridge,
            host,
            taps: taps.into(),
            there: true,
        };
        attached.attach()?;
        Ok(Box::new(attached))
    }
}

struct Attached<'host> {
    /// Of ports that choose their hooks.
    watcher: Option<Watcher>,
    program: PathBuf,
    hook: Hook,
    bridge: String,
    host: &'host Namespace,
    taps: Vec<String>,
    there: bool,
}

impl Attached<'_> {
    fn command(&self, verb: &str) -> Result<Command> {
        let mut command = self.host.command(&self.program)?;
        command.args([verb, "--bridge", &self.bridge]);
        Ok(command)
    }

    fn attach(&self) -> Result<()> {
        let mut attach = self.command("attach")?;
        attach.args(["--hook", self.hook.name()]).args(&self.taps);
        process::call(attach).map(drop)
    }

    fn end(&mut self) -> Result<()> {
        self.there = false;
        let watched = self.watcher.take().map_or(Ok(()), Watcher::stop);
        detach_all(&self.program, self.host, &self.bridge)?;
        watched
    }
}

impl Attachment for Attached<'_> {
    fn stats(&self) -> Result<Option<Value>> {
        let mut stats = self.command("stats")?;
        stats.arg("-j");
        let json = process::call(stats)?;
        serde_json::from_str(&json).with_context(|| format!("tapbridge stats -j: {json}"))
    }

    fn stats_text(&self) -> Result<Option<String>> {
        process::call(self.command("stats")?).map(Some)
    }

    fn changes(&self) -> Result<Vec<Change>> {
        self.watcher.as_ref().map_or(Ok(Vec::new()), Watcher::changes)
    }

    /// What has been counted goes with the ports, and so does what `tapbridge run` has made of them.
    fn renew(&self) -> Result<()> {
        if self.watcher.is_none() {
            return Ok(());
        }
        detach_all(&self.program, self.host, &self.bridge)?;
        self.attach()
    }

    fn detach(mut self: Box<Self>) -> Result<()> {
        self.end()
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if self.there
            && let Err(error) = self.end()
        {
            eprintln!("taking the bridge {} apart: {error:#}", self.bridge);
        }
    }
}

/// Takes a bridge apart, whatever is left of it.
pub fn detach_all(program: &Path, host: &Namespace, bridge: &str) -> Result<()> {
    let mut detach = host.command(program)?;
    detach.args(["detach", "--all", "--bridge", bridge]);
    process::call(detach).map(drop)
}

/// Whether the kernel still has a bridge's state.
pub fn is_pinned(bridge: &str) -> bool {
    let state = env::var_os("TAPBRIDGE_STATE").map_or_else(|| DEFAULT_STATE.into(), PathBuf::from);
    state.join(bridge).exists()
}
