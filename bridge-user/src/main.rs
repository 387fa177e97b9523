//! The command line of `tapbridge`.

mod cli;
mod output;

use std::process::ExitCode;

use clap::Parser as _;

/// Broken pipes end the process quietly, as every tool does whose output is piped into `head`.
fn main() -> ExitCode {
    let command_line = cli::CommandLine::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(command_line)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tapbridge: {error:#}");
            ExitCode::FAILURE
        }
    }
}
