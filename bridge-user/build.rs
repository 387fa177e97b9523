//! Builds the eBPF programs, so that the binary carries them.

use std::process::ExitCode;

fn main() -> ExitCode {
    match xtask::ebpf::build_script() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
