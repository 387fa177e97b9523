//! `cargo xtask lab`.

use std::{
    ffi::{OsString, c_int},
    process::{Child, ExitCode, ExitStatus},
    sync::atomic::{AtomicI32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{SigHandler, Signal, kill, signal},
    unistd::Pid,
};
use xtask::command;

use crate::{CARGO_LIMIT, binaries, cargo, packages, root, setup};

/// The last signal that asked this process to end.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Builds tapbridge and the lab, runs the lab, and ends as it ends.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    setup::ebpf_toolchain()?;
    setup::programs(packages::LAB)?;
    let machines = wants_virtual_machines(arguments)
        .then(setup::virtual_machines)
        .transpose()?;
    command::run(
        cargo("build").args([
            "--release",
            "--package",
            "bridge-user",
            "--package",
            "lab",
            "--bins",
        ]),
        CARGO_LIMIT,
    )?;
    root::obtain("the lab (network namespaces, programs in the kernel)")?;
    let binaries = binaries("release")?;
    let mut lab = root::command(binaries.join("tapbridge-lab"));
    lab.arg("run")
        .arg("--tapbridge")
        .arg(binaries.join("tapbridge"))
        .args(arguments);
    if let Some(folder) = machines {
        lab.arg("--vm").arg(folder);
    }

    outlive_signals()?;
    let mut child = command::spawn(&mut lab)?;
    let status = wait(&mut child).with_context(|| format!("`{}`", command::line(&lab)))?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Whether the lab is told to use virtual machines: `--guest qemu` or `--guest=qemu`.
fn wants_virtual_machines(arguments: &[OsString]) -> bool {
    let pair = |pair: &[OsString]| pair[0] == "--guest" && pair[1] == "qemu";
    arguments.windows(2).any(pair) || arguments.iter().any(|argument| argument == "--guest=qemu")
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
