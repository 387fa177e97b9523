//! `cargo xtask lab` and `cargo xtask bench`.

use std::{
    ffi::{OsString, c_int},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus},
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{SigHandler, Signal, kill, signal},
    unistd::Pid,
};
use xtask::{command, workspace};

use crate::{CARGO_LIMIT, binaries, cargo, packages, root, setup};

/// The last signal that asked this process to end.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Builds the lab, and tapbridge for it to measure, runs it, and ends as it ends.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    match arguments.split_first() {
        Some((word, files)) if word == "report" => report(files),
        Some((word, options)) if word == "estimate" => other("check-estimate", options, packages::BENCH),
        Some((word, options)) if word == "hotplug" => other("hotplug", options, packages::BENCH),
        Some((word, options)) if word == "dashboard" => dashboard(options),
        _ => measure(arguments),
    }
}

/// Shows results that are there.
fn report(arguments: &[OsString]) -> Result<ExitCode> {
    build(&["lab"])?;
    let mut lab = Command::new(binaries("release")?.join("tapbridge-lab"));
    end_as(lab.arg("report").args(arguments))
}

/// Has the lab do something else than measure between guests.
fn other(
    subcommand: &str,
    arguments: &[OsString],
    programs: &'static [packages::Program],
) -> Result<ExitCode> {
    setup::ebpf_toolchain()?;
    setup::programs(programs)?;
    build(&["bridge-user", "lab"])?;
    root::obtain("the lab (network namespaces, programs in the kernel)")?;
    let binaries = binaries("release")?;
    let mut lab = root::command(binaries.join("tapbridge-lab"));
    lab.args([subcommand, "--tapbridge"])
        .arg(binaries.join("tapbridge"))
        .args(arguments);
    end_as(&mut lab)
}

/// Draws what the dashboard shows.
fn dashboard(arguments: &[OsString]) -> Result<ExitCode> {
    let mut arguments = arguments.to_vec();
    if !names_a_folder(&arguments) {
        arguments.push("--output".into());
        arguments.push(new_folder(&binaries("release")?, "dashboard")?.into());
    }
    other("dashboard", &arguments, packages::DASHBOARD)
}

fn measure(arguments: &[OsString]) -> Result<ExitCode> {
    setup::ebpf_toolchain()?;
    setup::programs(packages::LAB)?;
    let guest = values(arguments, "--guest").pop();
    let machines = guest.as_deref() == Some("qemu");
    // Virtual machines have their own.
    if !machines
        && values(arguments, "--workload")
            .iter()
            .any(|workload| workload == "connections")
    {
        setup::programs(packages::CONNECTIONS)?;
    }
    let machines = machines.then(setup::virtual_machines).transpose()?;
    let mut options = Vec::new();
    if let Some(folder) = machines {
        options.extend(["--vm".into(), folder.into_os_string()]);
    }
    run_as_root("run", arguments, &options, guest.as_deref().unwrap_or("netns"))
}

/// Measures frames from tap to tap.
pub fn bench(arguments: &[OsString]) -> Result<ExitCode> {
    setup::ebpf_toolchain()?;
    setup::programs(packages::BENCH)?;
    run_as_root("bench", arguments, &[], "bench")
}

/// Builds the lab and what it measures, and has it do so; a folder that nobody has named has `what` in its name.
fn run_as_root(
    subcommand: &str,
    arguments: &[OsString],
    options: &[OsString],
    what: &str,
) -> Result<ExitCode> {
    build(&["bridge-user", "lab"])?;
    root::obtain("the lab (network namespaces, programs in the kernel)")?;
    let binaries = binaries("release")?;
    let mut lab = root::command(binaries.join("tapbridge-lab"));
    lab.arg(subcommand)
        .arg("--tapbridge")
        .arg(binaries.join("tapbridge"))
        .args(arguments)
        .args(options);
    if !names_a_folder(arguments) {
        lab.arg("--output").arg(new_folder(&binaries, what)?);
    }
    if let Some(revision) = revision().filter(|_| values(arguments, "--revision").is_empty()) {
        lab.arg("--revision").arg(revision);
    }
    end_as(&mut lab)
}

/// Builds the binaries of packages, optimised.
pub fn build(packages: &[&str]) -> Result<()> {
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    let mut build = cargo("build");
    command::run(build.args(["--release", "--bins"]).args(packages), CARGO_LIMIT)
}

/// Runs the lab to its end, and ends as it does.
pub fn end_as(lab: &mut Command) -> Result<ExitCode> {
    outlive_signals()?;
    let mut child = command::spawn(lab)?;
    let status = wait(&mut child).with_context(|| format!("`{}`", command::line(lab)))?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The values that a long option is given, one by one where they are a list: `--option a,b` or `--option=a,b`.
fn values(arguments: &[OsString], option: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        let list = match argument.split_once('=') {
            Some((name, list)) if name == option => list.to_owned(),
            None if argument == option => arguments.next().unwrap_or_default().into_owned(),
            _ => continue,
        };
        values.extend(list.split(',').map(str::to_owned));
    }
    values
}

/// Whether the lab is told where its results are to go.
fn names_a_folder(arguments: &[OsString]) -> bool {
    let is_short = |argument: &OsString| argument.to_string_lossy().starts_with("-o");
    !values(arguments, "--output").is_empty() || arguments.iter().any(is_short)
}

/// Where results go that nobody has named a folder for. The folder around it is made here, so that it is not root's.
fn new_folder(binaries: &Path, what: &str) -> Result<PathBuf> {
    let folder = binaries.with_file_name("lab");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    // Colons are a nuisance in names of files.
    let now = humantime::format_rfc3339_seconds(SystemTime::now())
        .to_string()
        .replace(':', "");
    Ok(folder.join(format!("{now}-{what}")))
}

/// What git calls this tree, if it is git's.
fn revision() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"])
        .current_dir(workspace());
    let revision = command::output(&mut git).ok()?;
    Some(revision.trim().to_owned()).filter(|revision| !revision.is_empty())
}

/// The lab takes down what it has built when it is told to end. Its parent has to stay until then: the shell would
/// show its prompt, and the exit status would be lost. The child's handlers are not these; exec resets them.
fn outlive_signals() -> Result<()> {
    for ending in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: all the handler does is to store to an atomic, which is safe at any moment.
        unsafe { signal(ending, SigHandler::Handler(note)) }.with_context(|| format!("handle {ending}"))?;
    }
    Ok(())
}

extern "C" fn note(signal: c_int) {
    RECEIVED.store(signal, Ordering::Relaxed);
}

/// Waits for the child, and hands signals on to it.
fn wait(child: &mut Child) -> Result<ExitStatus> {
    let id = Pid::from_raw(i32::try_from(child.id()).context("its process id")?);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        // An interrupt comes from the terminal, which has sent it to the child, too.
        match Signal::try_from(RECEIVED.swap(0, Ordering::Relaxed)) {
            Ok(Signal::SIGINT) | Err(_) => {}
            Ok(signal) => {
                // Only root may signal sudo.
                if let Err(error) = kill(id, signal) {
                    eprintln!("{signal} can't be handed on to process {id}: {error}; end it as root");
                }
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(Into::into).collect()
    }

    #[test]
    fn an_options_values_are_found_in_every_form() {
        let arguments =
            words("--workload latency,connections --json --guest=qemu --workload=throughput --guests x");
        assert_eq!(
            values(&arguments, "--workload"),
            ["latency", "connections", "throughput"]
        );
        assert_eq!(values(&arguments, "--guest"), ["qemu"]);
        assert_eq!(values(&arguments, "--output"), [""; 0]);
    }

    #[test]
    fn a_folder_of_the_users_is_seen() {
        for named in ["--output x", "--output=x", "-o x", "-ox"] {
            assert!(names_a_folder(&words(named)), "{named}");
        }
        assert!(!names_a_folder(&words("--time 3 --json")));
    }
}
