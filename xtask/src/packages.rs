//! The programs the tests and the lab run, which come from the system's packages.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use xtask::{command, toolchain::find_program};

use crate::root;

/// For a handful of small packages over a slow line, and a minute of waiting for another apt-get.
const LIMIT: Duration = Duration::from_mins(15);

/// A program, and the Debian package that has it.
#[derive(Debug)]
pub struct Program {
    /// The program's name.
    pub name: &'static str,
    package: &'static str,
    /// The service that the package would start.
    service: Option<&'static str>,
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program {
        name,
        package,
        service: None,
    }
}

const BUSYBOX: Program = program("busybox", "busybox-static");
/// Which the package ebtables has not: its own keeps no tables in nftables.
const EBTABLES: Program = program("ebtables-nft", "iptables");
const IP: Program = program("ip", "iproute2");
const IPERF3: Program = program("iperf3", "iperf3");
const JQ: Program = program("jq", "jq");
const NFT: Program = program("nft", "nftables");
/// What checks metrics and rules; the tests run their own `prometheus`, from the same package.
const PROMTOOL: Program = Program {
    service: Some("prometheus.service"),
    ..program("promtool", "prometheus")
};
/// With which a Debian package is made, and read where it is installed.
const DPKG_SHLIBDEPS: Program = program("dpkg-shlibdeps", "dpkg-dev");
const MAN: Program = program("man", "man-db");
const SOCKPERF: Program = program("sockperf", "sockperf");
/// By which commands fail, or are killed, at each of their steps.
const STRACE: Program = program("strace", "strace");
/// The shell of FRR's daemons, of which the tests run their own.
const VTYSH: Program = Program {
    service: Some("frr.service"),
    ..program("vtysh", "frr")
};
const WEBORF: Program = program("weborf", "weborf");
const WRK: Program = program("wrk", "wrk");

/// What the bench runs: `ip`, `tc` from the same package, and `nft`.
pub const BENCH: &[Program] = &[IP, NFT];
/// What it takes to draw the dashboard.
pub const DASHBOARD: &[Program] = &[IP, PROMTOOL];
/// What the lab runs to measure.
pub const LAB: &[Program] = &[IP, IPERF3, SOCKPERF];
/// What the lab runs to measure connections between guests that are namespaces.
pub const CONNECTIONS: &[Program] = &[WRK, WEBORF];
/// What the tests run; those of the lab have it measure, check with busybox that files arrive, and run the scripts.
pub const TESTS: &[Program] = &[
    IP,
    NFT,
    EBTABLES,
    IPERF3,
    SOCKPERF,
    BUSYBOX,
    JQ,
    VTYSH,
    PROMTOOL,
    STRACE,
    DPKG_SHLIBDEPS,
    MAN,
];

/// Installs programs with apt-get.
pub fn install(programs: &[&Program]) -> Result<()> {
    let packages: Vec<&str> = programs.iter().map(|program| program.package).collect();
    let list = packages.join(" ");
    ensure!(
        find_program("apt-get").is_some(),
        "this machine has no apt-get; install these packages, or what your system calls them: {list}"
    );
    root::obtain(&format!("installing {list}"))?;
    let known = packages.iter().all(|package| is_known(package));
    if !known {
        command::run(apt_get().arg("update"), LIMIT)?;
    }
    let services: Vec<&str> = programs.iter().filter_map(|program| program.service).collect();
    let install = || {
        without_starting(&services, || {
            command::run(
                apt_get()
                    .args(["install", "-y", "--no-install-recommends"])
                    .args(&packages),
                LIMIT,
            )
        })
    };
    // Package lists that are too old name versions the mirror no longer has.
    let installed = match install() {
        Err(_) if known => command::run(apt_get().arg("update"), LIMIT).and_then(|()| install()),
        result => result,
    };
    installed
        .with_context(|| format!("apt-get's messages are above; install these packages yourself: {list}"))?;
    for program in programs {
        ensure!(
            find_program(program.name).is_some(),
            "{}: package {} is installed, but the program is not in PATH",
            program.name,
            program.package
        );
    }
    Ok(())
}

/// Keeps packages that are installed meanwhile from starting these services, now and when the machine starts.
fn without_starting(services: &[&str], install: impl FnOnce() -> Result<()>) -> Result<()> {
    // As systemd's own sd_booted() asks. Nothing else starts a service where there was none.
    if services.is_empty() || !Path::new("/run/systemd/system").exists() {
        return install();
    }
    let systemctl =
        |words: &[&str]| command::run(root::command("systemctl").args(words).args(services), LIMIT);
    systemctl(&["mask", "--runtime"])?;
    let installed = install();
    systemctl(&["unmask", "--runtime"])?;
    installed?;
    systemctl(&["disable"])
}

fn apt_get() -> Command {
    let mut apt = root::command("env");
    apt.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"])
        .args(["-oDPkg::Lock::Timeout=60", "-oAcquire::Retries=3"])
        .args(["-oAcquire::http::Timeout=30", "-oAcquire::https::Timeout=30"]);
    apt
}

fn is_known(package: &str) -> bool {
    command::output(Command::new("apt-cache").args(["policy", package]))
        .is_ok_and(|policy| has_candidate(&policy))
}

fn has_candidate(policy: &str) -> bool {
    policy.lines().any(|line| {
        line.trim()
            .strip_prefix("Candidate: ")
            .is_some_and(|version| version != "(none)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_candidate_is_not_known() {
        assert!(has_candidate(
            "iperf3:\n  Installed: (none)\n  Candidate: 3.12-1\n"
        ));
        assert!(!has_candidate(
            "iperf3:\n  Installed: (none)\n  Candidate: (none)\n"
        ));
        assert!(!has_candidate(""));
    }
}
