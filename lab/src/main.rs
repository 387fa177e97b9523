//! The performance lab: guests, and what connects them, on one machine.

mod bench;
mod commands;
mod cost;
mod host;
mod report;
mod results;
mod shares;
mod station;
mod testbed;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{
    bench::{BenchArguments, CheckEstimateArguments, DashboardArguments, HotplugArguments},
    commands::{
        check::CheckArguments, pump::PumpArguments, report::ReportArguments, run, settings::Settings,
        spin::SpinArguments, station::StationArguments, vm_run::VmRunArguments,
    },
    host::interrupt::Interrupted,
};

/// Guests on this machine's taps, and measurements between them
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Settings),
    Report(ReportArguments),
    Check(CheckArguments),
    Bench(BenchArguments),
    CheckEstimate(CheckEstimateArguments),
    Hotplug(HotplugArguments),
    Dashboard(DashboardArguments),
    Pump(PumpArguments),
    #[command(hide = true)]
    Station(StationArguments),
    #[command(hide = true)]
    Spin(SpinArguments),
    #[command(hide = true)]
    VmRun(VmRunArguments),
}

fn main() -> ExitCode {
    let matches = Arguments::command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let given = matches.subcommand().map_or(&matches, |(_, given)| given);
    let result = match arguments.command {
        Command::Run(settings) => settings.checked(given).and_then(|settings| run::run(&settings)),
        Command::Report(arguments) => arguments.run(),
        Command::Check(arguments) => arguments.run(),
        Command::Bench(arguments) => arguments.run(),
        Command::CheckEstimate(arguments) => arguments.run(),
        Command::Hotplug(arguments) => arguments.run(),
        Command::Dashboard(arguments) => arguments.run(),
        Command::Pump(arguments) => arguments.run(),
        Command::Station(arguments) => arguments.run(),
        Command::Spin(arguments) => arguments.run(),
        Command::VmRun(arguments) => arguments.run(),
    };
    exit_code(result)
}

fn exit_code(result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        eprintln!("{interrupted}");
        return interrupted.exit_code().into();
    }
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
