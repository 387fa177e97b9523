//! `cargo xtask vm-bench`: the bench on another kernel than the host's.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::Result;
use xtask::command;

use crate::{binaries, lab, packages, setup, vm_test};

/// The longest that it may take, in seconds: several times as long as on an idle machine without KVM.
const LIMIT: &str = "3600";
/// What is measured where nothing else is asked for: what the host's kernel need not have. Turns are as much longer as
/// frames are without KVM.
const DEFAULT: &[&str] = &[
    "--case",
    "vlan-untagged,vlan-tagged,vlan-tag-added,vlan-tag-removed",
    "--rounds",
    "8",
    "--turn",
    "200",
];
const NOTE: &str =
    "\nOf the times only the ratios tell anything where QEMU has no KVM: it emulates each instruction.";

/// Builds the lab and tapbridge, and has the lab's bench measure in a virtual machine. It needs no root.
pub fn run(arguments: &[OsString]) -> Result<ExitCode> {
    setup::ebpf_toolchain()?;
    setup::programs(packages::BENCH)?;
    let machines = setup::virtual_machines()?;
    lab::build(&["bridge-user", "lab"])?;
    let binaries = binaries("release")?;
    let (bench, tapbridge) = (binaries.join("tapbridge-lab"), binaries.join("tapbridge"));
    let mut inside = Command::new(&bench);
    inside.arg("bench").arg("--tapbridge").arg(&tapbridge);
    if arguments.is_empty() {
        inside.args(DEFAULT);
    } else {
        inside.args(arguments);
    }
    let mut outside = Command::new(&bench);
    outside.args(["vm-run", "--limit", LIMIT, "--vm"]).arg(machines);
    for program in [bench, tapbridge] {
        outside.arg("--with").arg(program);
    }
    vm_test::bring_programs(&mut outside)?;
    outside.arg("--").arg(command::line(&inside));
    let ended = lab::end_as(&mut outside)?;
    println!("{NOTE}");
    Ok(ended)
}
