//! Open vSwitch: daemons of the lab's own, which those of the system know nothing of.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lab::Namespace;
use tempfile::TempDir;

use super::{Attachment, Datapath};
use crate::host::{
    process::{self, Process},
    scratch,
};

const BRIDGE: &str = "br0";
/// Seconds until the daemons must have done what they were told.
const LIMIT: &str = "--timeout=20";
/// Without it the userspace datapath spoils the checksums that a guest leaves to its card, and drops segments. It is
/// read when the switch starts, and does nothing to the kernel's datapath.
const OFFLOADS: &str = "other_config:userspace-tso-enable=true";
/// On standard error, to explain a failure, and not in the machine's own log.
const LOG: [&str; 2] = ["-vsyslog:off", "-vconsole:warn"];

/// What Open vSwitch says it is, such as "Open vSwitch 3.1.0"; an error says how to get it.
pub fn version() -> Result<String> {
    let line = process::first_line("ovs-vswitchd", "--version")
        .context("the datapath ovs needs Open vSwitch: 'apt-get install openvswitch-switch'")?;
    Ok(format!("Open vSwitch {}", number(&line)))
}

/// From "ovs-vswitchd (Open vSwitch) 3.1.0".
fn number(line: &str) -> &str {
    line.rsplit(' ').next().unwrap_or(line)
}

pub struct OpenVswitch {
    /// See [`version`].
    pub version: String,
}

impl Datapath for OpenVswitch {
    fn attach<'host>(&self, host: &'host Namespace, taps: &[String]) -> Result<Box<dyn Attachment + 'host>> {
        let daemons = Daemons::start(host)?;
        let place = daemons.add_bridge()?;
        for tap in taps {
            daemons.add_port(tap)?;
        }
        Ok(Box::new(Attached {
            daemons,
            facts: format!("{}, {}", self.version, place.name()),
        }))
    }
}

/// Where the switch's fast path runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Kernel,
    Userspace,
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel datapath",
            Self::Userspace => "userspace datapath with TSO",
        }
    }

    /// The value of `datapath_type`.
    fn kind(self) -> &'static str {
        match self {
            Self::Kernel => "system",
            Self::Userspace => "netdev",
        }
    }
}

struct Attached<'host> {
    daemons: Daemons<'host>,
    facts: String,
}

impl Attachment for Attached<'_> {
    fn facts(&self) -> Option<String> {
        Some(self.facts.clone())
    }

    fn processes(&self) -> Vec<u32> {
        let daemons = [self.daemons.switch.as_ref(), Some(&self.daemons.database)];
        daemons.into_iter().flatten().map(Process::id).collect()
    }

    /// Without the bridge there is no datapath in the kernel either. (When this is merely dropped it goes with the
    /// host's namespace.)
    fn detach(self: Box<Self>) -> Result<()> {
        self.daemons.tell(&["del-br", BRIDGE]).map(drop)
    }
}

/// The switch, the database that it takes its settings from, and their files.
struct Daemons<'host> {
    host: &'host Namespace,
    /// In the order in which they are to go.
    switch: Option<Process>,
    database: Process,
    folder: TempDir,
}

impl<'host> Daemons<'host> {
    fn start(host: &'host Namespace) -> Result<Self> {
        let folder = scratch::folder("ovs")?;
        let file = folder.path().join("conf.db");
        let mut create = program(host, &folder, "ovsdb-tool")?;
        create.arg("create").arg(&file);
        process::call(create)?;

        let mut database = program(host, &folder, "ovsdb-server")?;
        database
            .args(LOG)
            .arg(&file)
            .arg(format!("--remote=p{}", socket(&folder)));
        let mut daemons = Self {
            host,
            switch: None,
            database: Process::start("ovsdb-server", database)?,
            folder,
        };
        daemons.tell(&["--retry", "--no-wait", "init"])?;
        daemons.tell(&["--no-wait", "set", "Open_vSwitch", ".", OFFLOADS])?;

        let mut switch = program(host, &daemons.folder, "ovs-vswitchd")?;
        switch.args(LOG).arg(socket(&daemons.folder));
        daemons.switch = Some(Process::start("ovs-vswitchd", switch)?);
        Ok(daemons)
    }

    /// In the kernel where that has a datapath.
    fn add_bridge(&self) -> Result<Place> {
        self.tell(&["add-br", BRIDGE])?;
        for place in [Place::Kernel, Place::Userspace] {
            let kind = format!("datapath_type={}", place.kind());
            self.tell(&["set", "bridge", BRIDGE, &kind])?;
            // Open vSwitch takes every setting; what came of it has to be asked for.
            if self.tell(&["get", "bridge", BRIDGE, "datapath_id"])?.trim() != "[]" {
                return Ok(place);
            }
        }
        bail!("Open vSwitch makes no bridge, neither in the kernel nor in userspace")
    }

    fn add_port(&self, tap: &str) -> Result<()> {
        self.tell(&["add-port", BRIDGE, tap])?;
        let error = self.tell(&["get", "interface", tap, "error"])?;
        ensure!(error.trim() == "[]", "{tap}: Open vSwitch: {}", error.trim());
        Ok(())
    }

    /// Has the daemons do something and waits until they have; returns what they answer.
    fn tell(&self, words: &[&str]) -> Result<String> {
        let mut vsctl = program(self.host, &self.folder, "ovs-vsctl")?;
        let database = format!("--db={}", socket(&self.folder));
        vsctl.args(["-vsyslog:off", LIMIT, &database]).args(words);
        process::call(vsctl)
    }
}

/// A program of Open vSwitch that has all its files in the folder.
fn program(host: &Namespace, folder: &TempDir, name: &str) -> Result<Command> {
    let mut command = host.command(name)?;
    for files in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
        command.env(files, folder.path());
    }
    Ok(command)
}

fn socket(folder: &TempDir) -> String {
    format!("unix:{}/db.sock", folder.path().display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_last_word() {
        assert_eq!(number("ovs-vswitchd (Open vSwitch) 3.1.0"), "3.1.0");
    }
}
