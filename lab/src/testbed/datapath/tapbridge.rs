//! The Linux bridge with this project's programs at its ports, by the command line.

mod watcher;

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use clap::ValueEnum;
use lab::Namespace;
use serde::Deserialize;
use serde_json::{Value, json};
use tapbridge::{
    fastpath::FastPath,
    state::{DEFAULT_STATE, State},
};

use super::{
    Attachment, Datapath,
    link::{Link, ip_output},
    linux_bridge::{self, BRIDGE},
};
use crate::host::process;

pub use watcher::{Change, Watcher};

/// Which programs a port has.
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
    /// The name on the command lines of the lab and of tapbridge.
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
        linux_bridge::connect(host, taps)?;
        let bridge = Link::new(host, BRIDGE);
        let watch = || Watcher::start(host.command(&self.program)?);
        let watcher = (self.hook == Hook::Auto).then(watch).transpose()?;
        // Before the first step, which may be the only one.
        let attached = Attached {
            watcher,
            program: self.program.clone(),
            hook: self.hook,
            host,
            there: true,
            bridge: Some(bridge),
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
    host: &'host Namespace,
    there: bool,
    /// Goes when its ports have been detached.
    bridge: Option<Link<'host>>,
}

impl Attached<'_> {
    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.host.command(&self.program)?;
        command.args(words);
        Ok(command)
    }

    fn attach(&self) -> Result<()> {
        let attach = self.command(&["attach", "--master", BRIDGE, "--hook", self.hook.name()])?;
        process::call(attach).map(drop)
    }

    fn detach(&self) -> Result<()> {
        process::call(self.command(&["detach", "--master", BRIDGE])?).map(drop)
    }

    fn end(&mut self) -> Result<()> {
        self.there = false;
        let watched = self.watcher.take().map_or(Ok(()), Watcher::stop);
        self.detach()?;
        watched
    }
}

impl Attachment for Attached<'_> {
    /// What its programs have counted; and the devices, of which the programs see what they have carried alone.
    fn stats(&self) -> Result<Option<Value>> {
        let json = process::call(self.command(&["stats", "-j"])?)?;
        let stats: Value =
            serde_json::from_str(&json).with_context(|| format!("tapbridge stats -j: {json}"))?;
        let json = ip_output(self.host, &["-s", "-j", "link"])?;
        let links: Vec<LinkCounters> =
            serde_json::from_str(&json).with_context(|| format!("ip -s -j link: {json}"))?;
        let sent = links
            .into_iter()
            .map(|link| (link.ifname, json!(link.stats64.tx.packets)));
        Ok(Some(
            json!({ "tapbridge": stats, "sent": Value::Object(sent.collect()) }),
        ))
    }

    fn stats_text(&self) -> Result<Option<String>> {
        process::call(self.command(&["stats"])?).map(Some)
    }

    fn processes(&self) -> Vec<u32> {
        self.watcher.iter().map(Watcher::process).collect()
    }

    fn changes(&self) -> Result<Vec<Change>> {
        self.watcher.as_ref().map_or(Ok(Vec::new()), Watcher::changes)
    }

    /// What has been counted goes with the ports, and so does what `tapbridge run` has made of them.
    fn renew(&self) -> Result<()> {
        if self.watcher.is_none() {
            return Ok(());
        }
        self.detach()?;
        self.attach()
    }

    fn detach(mut self: Box<Self>) -> Result<()> {
        self.end()?;
        match self.bridge.take() {
            Some(bridge) => Box::new(bridge).detach(),
            None => Ok(()),
        }
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if self.there
            && let Err(error) = self.end()
        {
            eprintln!("detaching the ports of {BRIDGE}: {error:#}");
        }
    }
}

/// As much of `ip -s -j link` as is of interest here.
#[derive(Deserialize)]
struct LinkCounters {
    ifname: String,
    stats64: Directions,
}

#[derive(Deserialize)]
struct Directions {
    tx: Packets,
}

#[derive(Deserialize)]
struct Packets {
    packets: u64,
}

/// Detaches whatever ports of a host's namespace are attached, and says whether there were any.
pub fn clear(host: &Namespace) -> Result<bool> {
    let root = env::var_os("TAPBRIDGE_STATE").map_or_else(|| DEFAULT_STATE.into(), PathBuf::from);
    host.run(|| {
        let Some(state) = State::new(root).lock_existing()? else {
            return Ok(false);
        };
        // What can't be read is to be cleared away too.
        let there = !matches!(FastPath::open(&state), Ok(None));
        FastPath::clear(&state)?;
        Ok(there)
    })
}
