//! What the figures were measured on, and whether the machine has what the lab needs.

use std::{fs, path::Path, thread};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::process::first_line;

/// Facts that a figure means nothing without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    pub architecture: String,
    pub cpu_model: Option<String>,
    /// What guards indirect branches (`vulnerabilities/spectre_v2`), which a packet's way through the kernel is full of:
    /// retpolines cost more than what processors do by themselves. Null if it is not known.
    #[serde(default)]
    pub spectre_v2: Option<String>,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Whether the machine is itself a virtual one.
    pub virtualised: bool,
    /// Runnable tasks, averaged over the minute before the first measurement.
    pub load: Option<f64>,
    /// "None" when the datapath is not measured.
    pub tapbridge: Option<String>,
}

impl Machine {
    /// A line for people.
    pub fn text(&self) -> String {
        let load = self
            .load
            .map_or_else(String::new, |load| format!("; load before: {load}"));
        format!("{}{load}", self.hardware())
    }

    /// The machine in words, without what changes from minute to minute.
    pub fn hardware(&self) -> String {
        self.described(self.spectre_v2.as_deref())
    }

    /// As [`Self::hardware`], but for what guards indirect branches, which older results do not tell.
    pub fn without_guards(&self) -> String {
        self.described(None)
    }

    fn described(&self, guards: Option<&str>) -> String {
        let cpu = self.cpu_model.as_deref().unwrap_or("unknown CPU");
        let virtualised = if self.virtualised { ", itself virtual" } else { "" };
        // Without what else is done, which costs less.
        let guarded = guards.and_then(|all| all.split(';').next());
        let guarded = guarded.map_or_else(String::new, |how| format!(" ({})", how.trim()));
        format!(
            "{cpu}{guarded}, {} CPUs, {}, Linux {}{virtualised}",
            self.cpus, self.architecture, self.kernel
        )
    }
}

/// Looks at the machine; an error says what it lacks for tapbridge and the kernel's own datapaths, and how to mend that.
pub fn inspect(tapbridge: Option<&Path>) -> Result<Machine> {
    if !geteuid().is_root() {
        bail!("the lab makes network namespaces and taps: run it as root");
    }
    if !Path::new("/dev/net/tun").exists() {
        bail!("/dev/net/tun is missing: 'modprobe tun' loads the driver");
    }
    first_line("ip", "-V").context("needs iproute2: 'apt-get install iproute2'")?;
    let version = |path| first_line(path, "--version").context("needs tapbridge");
    let tapbridge = tapbridge.map(version).transpose()?;
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Ok(Machine {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().into(),
        architecture: std::env::consts::ARCH.into(),
        cpu_model: cpu_field(&cpu, "model name").map(Into::into),
        spectre_v2: spectre_v2(),
        cpus: thread::available_parallelism()?.get(),
        virtualised: cpu_field(&cpu, "flags")
            .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        load: load(),
        tapbridge,
    })
}

fn cpu_field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

/// None where the kernel does not say.
fn spectre_v2() -> Option<String> {
    let text = fs::read_to_string("/sys/devices/system/cpu/vulnerabilities/spectre_v2").ok()?;
    Some(text.trim().trim_start_matches("Mitigation: ").to_owned())
}

fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_cpuinfo_is_found_by_its_whole_name() {
        let cpuinfo = "model\t\t: 1\nmodel name\t: AMD EPYC\nflags\t\t: fpu hypervisor\n";
        assert_eq!(cpu_field(cpuinfo, "model name"), Some("AMD EPYC"));
        assert_eq!(cpu_field(cpuinfo, "bogomips"), None);
    }
}
