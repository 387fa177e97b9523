//! `cargo xtask`: the one door to everything that is not plain cargo.

mod apt;
mod bpf_core;
mod crates;
mod dependencies;
mod dist;
mod documents;
mod lab;
mod packages;
mod root;
mod setup;
mod steps;
mod test;
mod tool;
mod totals;
mod vm;
mod vm_bench;
mod vm_test;

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use xtask::{command, workspace};

/// How long one cargo command may take: several times what a full build takes on two slow cores.
const CARGO_LIMIT: Duration = Duration::from_hours(1);

/// Sets up, builds, tests and runs tapbridge.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install all that building, testing and the lab need.
    ///
    /// bpf-linker and a core for BPF go into the cache folder, which the environment variable `TAPBRIDGE_CACHE` can
    /// move, and so do the Debian packages that virtual machines are made of. The programs ip, iperf3, sockperf,
    /// busybox, jq, nft, ebtables-nft, promtool, prometheus, strace and those of FRR are installed with apt-get, as root, if they are missing; no service
    /// is started.
    Setup,
    /// Build the workspace, after setting up what is missing for it.
    Build {
        /// Build with optimisations.
        #[arg(long)]
        release: bool,
    },
    /// Run every check and test, after setting up what is missing for them.
    ///
    /// The tests that load programs into the kernel run as root, through sudo if need be. The last line printed is
    /// "N passed, M failed, K skipped".
    Test {
        /// Leave out what needs root or a virtual machine: those tests are named.
        #[arg(long)]
        quick: bool,
        /// Passed to the test binaries, for example a part of a test's name.
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Run the tests on the kernel that is tested beside the host's own, in a virtual machine.
    ///
    /// They are a part of `test`: the tests of the programs, and rounds over taps. The machine is QEMU's, with KVM where
    /// it works; no root is needed.
    VmTest {
        /// Passed to the test binaries instead of what chooses among their tests, for example a part of a test's name.
        arguments: Vec<OsString>,
    },
    /// Check the licences, versions and sources of all dependencies, as deny.toml says.
    ///
    /// Builds cargo-deny into the cache folder if it is not there, which takes 2 to 4 minutes.
    Dependencies,
    /// Make the Debian package: the path is the last line printed.
    ///
    /// With optimisations, and the same octets from the same commit wherever it is built. Builds cargo-deb into the cache
    /// folder if it is not there, which takes one to two minutes.
    Dist {
        /// Make it a second time, from a clone in another folder, and fail if that is not the same octets.
        ///
        /// Takes one more build of everything.
        #[arg(long)]
        check: bool,
    },
    /// Build tapbridge and the lab, then run the lab as root, after setting up what is missing for it.
    ///
    /// The results, a report and plots go to a new folder in `target/lab`, or to `--output FOLDER`. `cargo xtask lab
    /// -- --help` shows the lab's own options. `cargo xtask lab report FILE...` shows or compares the results of
    /// earlier runs, and needs neither root nor any set-up. `cargo xtask lab estimate` checks what `tapbridge estimate`
    /// foretells of the VMMs' CPU time against what is measured then, `cargo xtask lab hotplug` measures how soon
    /// `tapbridge run` attaches new ports, and `cargo xtask lab dashboard` draws what the Grafana dashboard shows.
    Lab {
        /// Passed to `tapbridge-lab run`, or to `tapbridge-lab report` what follows the word `report`, or to
        /// `tapbridge-lab check-estimate` what follows the word `estimate`; `hotplug` and `dashboard` are called as here.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build tapbridge and the lab, then measure as root what a frame costs from one tap to another.
    ///
    /// Over the Linux bridge, macvtap, the Linux bridge with tapbridge attached to its ports by each hook, and the floor:
    /// one static redirect and nothing else. It takes about ten minutes. The results, a table and plots go to a new folder in `target/lab`, or to
    /// `--output FOLDER`. `cargo xtask bench -- --help` shows the other options.
    Bench {
        /// Passed to `tapbridge-lab bench`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Build tapbridge and the lab, then run the bench on the kernel that is tested beside the host's own, in a virtual
    /// machine.
    ///
    /// It measures what the host's kernel may lack, which is bridges that filter VLANs. The machine is QEMU's, with KVM
    /// where it works; without it only the ratios tell anything. No root is needed.
    VmBench {
        /// Passed to `tapbridge-lab bench` instead of what chooses the cases.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs one test binary, as root if it needs to be: cargo calls this when `test` runs as an ordinary user.
    #[command(hide = true)]
    RunTest {
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    run(Arguments::parse().task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => {
            setup::ebpf_toolchain()?;
            setup::programs(packages::TESTS)?;
            setup::virtual_machines()?;
            println!("everything is set up");
            Ok(ExitCode::SUCCESS)
        }
        Task::Build { release } => {
            setup::ebpf_toolchain()?;
            let mut build = cargo("build");
            build.arg("--workspace");
            if release {
                build.arg("--release");
            }
            command::run(&mut build, CARGO_LIMIT)?;
            let profile = if release { "release" } else { "debug" };
            println!("{}", binaries(profile)?.join("tapbridge").display());
            Ok(ExitCode::SUCCESS)
        }
        Task::Test { quick, arguments } => Ok(if quick {
            test::run_quick(&arguments)
        } else {
            test::run(&arguments)
        }),
        Task::VmTest { arguments } => Ok(vm_test::run_alone(&arguments)),
        Task::Dependencies => dependencies::check().map(|()| ExitCode::SUCCESS),
        Task::Dist { check } => {
            let package = if check { dist::build_twice() } else { dist::build() };
            println!("{}", package?.display());
            Ok(ExitCode::SUCCESS)
        }
        Task::Lab { arguments } => lab::run(&arguments),
        Task::Bench { arguments } => lab::bench(&arguments),
        Task::VmBench { arguments } => vm_bench::run(&arguments),
        Task::RunTest { program, arguments } => Err(test::run_binary(&program, &arguments)),
    }
}

/// A cargo command in the workspace.
fn cargo(subcommand: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg(subcommand).current_dir(workspace());
    cargo
}

/// Where cargo puts the binaries of a profile: beside this one's folder, wherever the target folder lies.
fn binaries(profile: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("where xtask's own binary lies")?;
    let folder = own.parent().context("xtask's own binary lies in no folder")?;
    Ok(folder.with_file_name(profile))
}
