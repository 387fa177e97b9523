//! What a run has found out, whole: the document that `run` writes and `report` reads.
//!
//! Units are in the names: `_s` seconds, `_us` microseconds, `gbit_per_s` 10⁹ bits a second.

mod conditions;
mod profile;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use lab::pump;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    host::machine::Machine,
    testbed::{device::NicCounters, guest::Facts},
    workload::Outcome,
};

pub use self::{
    conditions::Conditions,
    profile::{FunctionTime, Part, Profile},
};

/// Raised when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 4;

/// Everything that a run has found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub schema: u32,
    /// When the run began, such as "2026-11-23T10:00:00Z".
    pub started: String,
    /// The revision of this project that was measured, if it is known.
    pub revision: Option<String>,
    pub machine: Machine,
    pub guests: Facts,
    pub conditions: Conditions,
    /// In the order that they were taken.
    pub samples: Vec<Sample>,
}

/// What was measured over one datapath in one round, with guests of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Such as "tapbridge", or "tapbridge-tcx" when the run named the hook.
    pub datapath: String,
    /// What the datapath is made of, where that is not clear from its name.
    pub datapath_facts: Option<String>,
    /// From 1.
    pub round: u32,
    /// How often the guests were booted: 2 if they did not reach each other at first.
    pub boots: u32,
    /// How long each guest's last boot took.
    pub boot_s: Vec<f64>,
    /// One measurement after the other.
    pub runs: Vec<Run>,
    /// What the guests' frame pumps did, from boot to end; null for guests without.
    pub pumps: Option<Vec<pump::Report>>,
}

/// One measurement, or, with the outcome `()`, only what was counted meanwhile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run<O = Outcome> {
    pub outcome: O,
    /// From before the client started to after it ended: what the counts below are of. Longer than the measurement
    /// itself, by the warm-up and the programs' start.
    pub seconds: f64,
    /// The guest that opens the connections.
    pub client: Role,
    pub server: Role,
    /// The guests beside these two, if the workload has more.
    #[serde(default)]
    pub others: Vec<Role>,
    /// CPU time of the whole host, the guests' and everybody else's included; null where CPUs were kept awake, which
    /// takes all that is left of it.
    pub host: Option<HostCpu>,
    /// CPU time of softirqs that is in no process's; null in results of before it was taken.
    #[serde(default)]
    pub softirqs_s: Option<f64>,
    /// The datapath's own processes, such as `tapbridge run` or a switch in user space.
    #[serde(default)]
    pub datapath: Vec<Helper>,
    /// The datapath's own counters; null when it has none.
    pub stats: Option<Stats>,
    /// How ports changed by themselves, from the start of this measurement to that of the next one.
    #[serde(default)]
    pub hook_changes: Vec<HookChange>,
    /// Where the kernel's time went; null where it was not sampled.
    #[serde(default)]
    pub profile: Option<Profile>,
}

/// A port that got other hooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookChange {
    pub ifname: String,
    /// Those that it had from then on.
    pub hooks: Vec<String>,
    /// Since the measurement started.
    pub seconds: f64,
}

/// A guest's side of a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    pub guest: String,
    /// The process that copies the guest's frames.
    pub vmm: u32,
    /// What that process is called.
    pub comm: String,
    /// How often it made which system call; null when they were not counted.
    pub syscalls: Option<BTreeMap<String, u64>>,
    /// CPU time of that process, all threads.
    pub cpu: Cpu,
    /// What the guest's network card has sent and received.
    pub card: NicCounters,
}

/// A process that the datapath has on the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Helper {
    pub process: u32,
    /// What that process is called.
    pub comm: String,
    /// CPU time of that process, all threads.
    pub cpu: Cpu,
}

/// CPU time of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// In user space; a virtual machine's own code included.
    pub user_s: f64,
    /// In the kernel, on its behalf.
    pub system_s: f64,
}

/// CPU time of a host, all CPUs together, as /proc/stat tells it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the unit")]
pub struct HostCpu {
    /// Niced processes and virtual machines included.
    pub user_s: f64,
    pub system_s: f64,
    pub irq_s: f64,
    pub softirq_s: f64,
    /// What a hypervisor below gave to others.
    pub steal_s: f64,
    pub idle_s: f64,
}

/// `tapbridge stats -j` and the frames that each device has sent, before and after, and what came between.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    pub before: Value,
    pub after: Value,
    pub paths: Vec<PathCount>,
    pub left: Vec<LeftCount>,
}

/// Frames that took one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathCount {
    pub from: String,
    pub to: String,
    /// The hook that forwarded them.
    pub via: String,
    pub frames: u64,
    pub bytes: u64,
}

/// Frames of one port that were left to the bridge for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftCount {
    pub port: String,
    pub reason: String,
    pub frames: u64,
}

impl Results {
    /// Reads what an earlier run has written.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{name} is not JSON"))?;
        match value.get("schema").and_then(Value::as_u64) {
            Some(schema) if schema == u64::from(SCHEMA) => {}
            Some(schema) => {
                bail!("{name} has the schema {schema}; this program reads {SCHEMA}: measure anew")
            }
            None => bail!("{name} is no result of the lab: it names no schema"),
        }
        let results: Self = serde_json::from_value(value).with_context(|| format!("{name} is damaged"))?;
        ensure!(!results.samples.is_empty(), "{name} has no samples");
        Ok(results)
    }

    /// The datapaths, in the order of the first round.
    pub fn datapaths(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for sample in &self.samples {
            if !names.contains(&&*sample.datapath) {
                names.push(&*sample.datapath);
            }
        }
        names
    }
}

impl HostCpu {
    /// All that was not idle or somebody else's.
    pub fn busy_s(&self) -> f64 {
        self.user_s + self.system_s + self.irq_s + self.softirq_s
    }
}

impl<O> Run<O> {
    /// Of all guests.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        [&self.client, &self.server].into_iter().chain(&self.others)
    }

    /// What the host spent on carrying frames: the VMMs' time in the kernel, all of the datapath's own processes, and
    /// softirqs that are in no process's time.
    pub fn switching_s(&self) -> f64 {
        let vmms: f64 = self.roles().map(|role| role.cpu.system_s).sum();
        let helpers = self.datapath.iter();
        let helpers: f64 = helpers
            .map(|helper| helper.cpu.user_s + helper.cpu.system_s)
            .sum();
        vmms + helpers + self.softirqs_s.unwrap_or(0.0)
    }

    /// Frames that the guests' cards received; what offloads joined is one frame.
    pub fn card_frames(&self) -> u64 {
        self.roles().map(|role| role.card.rx_frames).sum()
    }
}

impl Role {
    /// All system calls together.
    pub fn calls(&self) -> Option<u64> {
        self.syscalls.as_ref().map(|calls| calls.values().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn results_from_before_ports_changed_by_themselves_can_be_read() {
        let sample = fixture::sample("tapbridge", 1, 1.0, 1.0);
        let mut json = serde_json::to_value(&sample.runs[0]).unwrap();
        assert_eq!(
            serde_json::from_value::<Run>(json.clone()).unwrap(),
            sample.runs[0]
        );
        json.as_object_mut().unwrap().remove("hook_changes").unwrap();
        assert_eq!(serde_json::from_value::<Run>(json).unwrap().hook_changes, []);
    }

    #[test]
    fn results_from_before_there_were_profiles_can_be_read() {
        let sample = fixture::sample("tapbridge", 1, 1.0, 1.0);
        let mut json = serde_json::to_value(&sample.runs[0]).unwrap();
        json.as_object_mut().unwrap().remove("profile").unwrap();
        assert_eq!(serde_json::from_value::<Run>(json).unwrap().profile, None);
        let mut json = serde_json::to_value(fixture::results(Vec::new()).conditions).unwrap();
        json.as_object_mut().unwrap().remove("no_profile").unwrap();
        assert!(
            !serde_json::from_value::<Conditions>(json)
                .unwrap()
                .measuring
                .no_profile
        );
    }
}
