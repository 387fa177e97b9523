//! Programs are loaded past the kernel's verifier, and what it says of one that it refuses is told.

use aya::programs::ProgramError;
use nix::{
    libc::EAGAIN,
    sys::signal::{SigSet, SigmaskHow},
};

use crate::error::{Context as _, Error, Result};

/// How often a program is tried that the verifier gave up for a signal (`EAGAIN`, `do_check`).
const ATTEMPTS: usize = 20;

/// How many lines are told that come before the refusal itself: the instruction, and the line of source that it is of.
const LINES_BEFORE: usize = 2;
/// Lines that list registers are long; a refusal is not.
const LONGEST_LINE: usize = 200;

/// Loads a program with `attempt`.
///
/// The verifier gives up when a signal waits for the calling thread (`signal_pending`), and a profiler's timer may send
/// one more often than a program is verified: the thread's signals wait meanwhile. What can't be blocked wakes it too
/// (the freezer of control groups, work for the task), so another attempt follows.
///
/// # Errors
///
/// The kernel refuses the program, or a signal ended every attempt.
pub(crate) fn load(object: &str, mut attempt: impl FnMut() -> Result<(), ProgramError>) -> Result<()> {
    let before = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .at(object, "hold signals back")?;
    let mut loaded = attempt();
    for _ in 1..ATTEMPTS {
        if !loaded.as_ref().is_err_and(was_interrupted) {
            break;
        }
        loaded = attempt();
    }
    before.thread_set_mask().at(object, "let signals through")?;
    loaded.map_err(|error| load_error(object, error))
}

fn was_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() == Some(EAGAIN))
}

/// The error of a program that was not loaded, with the verifier's reason. All that the verifier said, which can be
/// megabytes, goes to the log.
fn load_error(object: &str, error: ProgramError) -> Error {
    let cause = match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            match reason(&log) {
                Some(reason) => {
                    log::debug!("{object}: all that the verifier said:\n{log}");
                    format!("{io_error}; the verifier: {reason}; '--log-level debug' prints all that it said")
                }
                None => io_error.to_string(),
            }
        }
        error => error.to_string(),
    };
    Error::System {
        object: object.to_owned(),
        action: "load",
        cause,
    }
}

/// The last lines that say something of the program; statistics follow them (`print_verification_stats`).
fn reason(log: &str) -> Option<String> {
    let statistics = ["verification time ", "stack depth ", "processed "];
    let mut lines: Vec<String> = log
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !statistics.iter().any(|start| line.starts_with(start)))
        .rev()
        .take(1 + LINES_BEFORE)
        .map(shortened)
        .collect();
    lines.reverse();
    (!lines.is_empty()).then(|| lines.join(" / "))
}

fn shortened(line: &str) -> String {
    let end = line.char_indices().nth(LONGEST_LINE);
    end.map_or_else(|| line.to_owned(), |(end, _)| format!("{} …", &line[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_comes_before_the_statistics() {
        let log = "0: R1=ctx() R10=fp0\n; let [_, byte] = frame.read(at)?; @ checksum.rs:215\n\
            812: (71) r1 = *(u8 *)(r8 +1)\nR8 offset is outside of the packet\n\
            verification time 8901 usec\nstack depth 96+0\n\
            processed 8123 insns (limit 1000000) max_states_per_insn 4 total_states 321 peak_states 321 mark_read 12\n\n";
        assert_eq!(
            reason(log).as_deref(),
            Some(
                "; let [_, byte] = frame.read(at)?; @ checksum.rs:215 / 812: (71) r1 = *(u8 *)(r8 +1) / \
                 R8 offset is outside of the packet"
            )
        );
    }

    #[test]
    fn long_lines_are_cut_and_a_log_may_be_empty() {
        let line = "R1=scalar() ".repeat(100);
        let cut = reason(&line).expect("a line");
        assert_eq!(cut.chars().count(), LONGEST_LINE + 2);
        assert_eq!(reason("processed 0 insns\n\n"), None);
    }
}
