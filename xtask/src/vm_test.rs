//! Tests on another kernel than the host's: `cargo xtask vm-test`, and a step of `cargo xtask test`.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use xtask::{command, toolchain::find_program};

use crate::{
    cargo, packages, setup,
    steps::{Beside, Failures, conclude, count},
    totals::Totals,
};

/// A test binary, and the arguments that it gets in the virtual machine, where nothing else is asked for.
struct Run {
    binary: &'static str,
    arguments: &'static [&'static str],
}

const fn run(binary: &'static str, arguments: &'static [&'static str]) -> Run {
    Run { binary, arguments }
}

/// What is run there, in this order. Without KVM it takes ten times as long as on the host, so the rounds over taps are
/// those that show a kernel's peculiarities: what it takes and gives back, where it redirects, what it makes of checksums.
const RUNS: &[Run] = &[
    // All but the one that takes minutes and says little more: thousands of random frames.
    run(
        "programs",
        &[
            "--skip",
            "both_programs_do_with_random_frames_what_the_bridges_tables_say",
        ],
    ),
    run(
        "end_to_end",
        &["native::small_known_unicast_leaves_by_a_native_redirect"],
    ),
    // Here the bridge is a module. `cargo xtask vm-test fastpath` runs the rest too, which takes minutes.
    run("end_to_end", &["fastpath::what_the_bridge_would"]),
    // The host's need not filter VLANs.
    run("end_to_end", &["fastpath_vlan::access"]),
    run("end_to_end", &["fastpath_vlan::tags"]),
    run("end_to_end", &["hosts::proxmoxs_vlan"]),
    run("end_to_end", &["checksum::xdp_completes_partial_checksums"]),
    run("end_to_end", &["attach::detach_gives_every_setting_back"]),
    // Programs that are replaced behind their links, and what they say.
    run("end_to_end", &["monitor::at_trace"]),
    // The machine that runs the tests may have no vhost-net.
    run("end_to_end", &["vhost_net::"]),
];

/// What the tests and the bench call; the machine gets the host's.
const PROGRAMS: [&str; 4] = ["ip", "bridge", "nft", "tc"];

/// The longest that one run may take, in seconds: twice as long as on an idle machine without KVM.
const LIMIT: &str = "1200";

/// `cargo xtask vm-test`.
pub fn run_alone(arguments: &[OsString]) -> ExitCode {
    let mut failures = Failures::default();
    let mut totals = Totals::default();
    failures.step("set-up", || {
        setup::ebpf_toolchain()?;
        setup::programs(packages::BENCH)
    });
    let mut machines = None;
    failures.step("set-up of virtual machines", || {
        machines = Some(setup::virtual_machines()?);
        Ok(())
    });
    if let Some(machines) = machines {
        failures.step(NAME, || count(&mut machine(&machines, arguments)?, &mut totals));
    }
    conclude(&failures, totals)
}

const NAME: &str = "tests on another kernel, in a virtual machine";

/// Starts the tests in a virtual machine that is made from the packages in a folder; what they print is kept.
pub fn start(
    failures: &mut Failures,
    totals: &mut Totals,
    arguments: &[OsString],
    machines: Option<&Path>,
) -> Option<Beside> {
    let Some(machines) = machines else {
        println!("\n==> {NAME}\nskipped: their set-up has failed");
        totals.skipped += 1;
        return None;
    };
    let mut beside = None;
    failures.step(&format!("{NAME}, begin: see below"), || {
        beside = Some(Beside::start(machine(machines, arguments)?)?);
        Ok(())
    });
    beside
}

/// Waits for them.
pub fn finish(failures: &mut Failures, totals: &mut Totals, beside: Option<Beside>) {
    if let Some(beside) = beside {
        failures.step(NAME, || {
            let mut there = Totals::default();
            let result = beside.finish(&mut there);
            let (ran, skipped) = (there.passed + there.failed, there.skipped);
            *totals += there;
            result?;
            ensure!(ran > 0 || skipped == 0, "all tests there were skipped");
            Ok(())
        });
    }
}

/// The lab's command that boots the machine and runs the tests there. It needs no root.
fn machine(machines: &Path, arguments: &[OsString]) -> Result<Command> {
    let built = Built::all()?;
    let mut lab = Command::new(built.find("tapbridge-lab")?);
    lab.args(["vm-run", "--limit", LIMIT, "--vm"]).arg(machines);
    lab.arg("--with").arg(built.find("tapbridge")?);
    bring_programs(&mut lab)?;
    let mut commands = Vec::new();
    for run in RUNS {
        let binary = built.find(run.binary)?;
        lab.arg("--with").arg(binary);
        let mut command = Command::new(binary);
        if arguments.is_empty() {
            command.args(run.arguments);
        } else {
            command.args(arguments);
        }
        // One CPU gains nothing from several tests at once, and each would take longer than it may.
        if !arguments
            .iter()
            .any(|argument| argument.to_string_lossy().starts_with("--test-threads"))
        {
            command.arg("--test-threads=1");
        }
        let command = command::line(&command);
        if !commands.contains(&command) {
            commands.push(command);
        }
    }
    lab.arg("--").args(commands);
    Ok(lab)
}

/// Has the lab bring the host's programs along that are called in the machine.
pub fn bring_programs(lab: &mut Command) -> Result<()> {
    for program in PROGRAMS {
        let path = find_program(program).with_context(|| format!("{program} is not in PATH"))?;
        lab.arg("--with").arg(path);
    }
    Ok(())
}

/// The executables that cargo makes for the tests, by their targets' names.
pub struct Built(BTreeMap<String, PathBuf>);

impl Built {
    /// All of the workspace, as `cargo test` builds them: then they are there already.
    pub fn all() -> Result<Self> {
        let mut build = cargo("test");
        build.args([
            "--workspace",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ]);
        Ok(Self::parse(&command::output(&mut build)?))
    }

    /// From cargo's messages, a line each.
    fn parse(messages: &str) -> Self {
        let messages = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
        let executables = messages.filter_map(|artifact| {
            // A binary's own unit tests are executables of its name too.
            let wanted = artifact.target.kind == ["test"] || !artifact.profile.test;
            Some((artifact.target.name, artifact.executable.filter(|_| wanted)?))
        });
        Self(executables.collect())
    }

    /// The path of one.
    pub fn find(&self, name: &str) -> Result<&Path> {
        let found = self.0.get(name);
        Ok(found.with_context(|| format!("cargo has built no executable {name}"))?)
    }
}

/// A message of cargo's about something that it has built.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let message = |name: &str, kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"{name}","kind":["{kind}"]}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [
            r#"{"reason":"build-script-executed"}"#.to_owned(),
            message("tapbridge", "bin", false, r#""/t/tapbridge""#),
            message("tapbridge", "bin", true, r#""/t/deps/tapbridge-0""#),
            message("tapbridge", "lib", false, "null"),
            message("programs", "test", true, r#""/t/deps/programs-1""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let built = Built::parse(&messages.join("\n"));
        assert_eq!(built.find("tapbridge").unwrap(), Path::new("/t/tapbridge"));
        assert_eq!(built.find("programs").unwrap(), Path::new("/t/deps/programs-1"));
        let error = built.find("absent").unwrap_err();
        assert_eq!(error.to_string(), "cargo has built no executable absent");
    }
}
