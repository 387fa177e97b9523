//! The command line of `tapbridge`.

mod cli;

use std::{io::Write as _, process::ExitCode};

use log::LevelFilter;

use self::cli::print;

/// What clap answers wrong usage with.
const WRONG_USAGE: u8 = 2;

/// Broken pipes end the process quietly, as every tool does whose output is piped into `head`; `run` is told apart by itself.
fn main() -> ExitCode {
    let command_line = match cli::CommandLine::read() {
        Ok(command_line) => command_line,
        Err(error) => return usage(&error, print::is_json_wanted()),
    };
    let json = command_line.json;
    let level = command_line.log_level.into();
    env_logger::Builder::new()
        // Crates that we use only where they warn; ours, and the programs in the kernel, as was asked for.
        .filter_level(LevelFilter::Warn.min(level))
        .filter_module("tapbridge", level)
        .filter_module("fastpath", level)
        .format(|line, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(line, "tapbridge: {level}: {}", record.args())
        })
        .init();
    match run(command_line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if print::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(error) = error.downcast_ref::<clap::Error>() {
                return usage(error, json);
            }
            print::error(&format!("{error:#}"), json);
            ExitCode::FAILURE
        }
    }
}

fn run(command_line: cli::CommandLine) -> anyhow::Result<()> {
    command_line.enter_netns()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(cli::run(command_line))
}

/// Help that was asked for, or what is wrong with the words.
fn usage(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        // Help is no error, and that nobody reads it is none either.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if json {
        let complaint = print::first_paragraph(&error.to_string());
        print::error(&format!("{complaint}; try '--help'"), json);
    } else {
        let _ = error.print();
    }
    ExitCode::from(WRONG_USAGE)
}
