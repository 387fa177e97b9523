//! A program that runs beside the lab, on this machine or in a guest: a measurement's server or client.

use std::time::Duration;

use anyhow::{Error, Result, anyhow};

use crate::host::{
    interrupt::Interrupted,
    wait::{self, OnSignal},
};

/// A program that was started; dropping it ends it.
pub trait Job {
    /// What it is called in messages.
    fn name(&self) -> &str;
    /// Whether it still runs, and if not, how it ended.
    fn state(&mut self) -> Result<State>;
    /// Its standard output so far.
    fn stdout(&self) -> String;
    /// Its standard error so far.
    fn stderr(&self) -> String;
}

/// The state of a [`Job`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Running,
    Succeeded,
    /// How it failed, such as "exit status: 1".
    Failed(String),
}

/// Waits for the job's success; returns its standard output.
pub fn finish(job: &mut dyn Job, limit: Duration, on_signal: OnSignal) -> Result<String> {
    let what = format!("{} to end", job.name());
    let end = wait::until(&what, limit, on_signal, || match job.state()? {
        State::Running => Ok(None),
        State::Succeeded => Ok(Some(())),
        State::Failed(how) => Err(anyhow!("{} failed, {how}", job.name())),
    });
    end.map_err(|error| with_last_words(error, job))?;
    Ok(job.stdout())
}

/// Waits until the job has printed `text`, on either of its outputs.
pub fn has_printed(job: &mut dyn Job, text: &str, limit: Duration) -> Result<()> {
    let what = format!("{} to print '{text}'", job.name());
    let end = wait::until(&what, limit, OnSignal::Stop, || {
        if job.stdout().contains(text) || job.stderr().contains(text) {
            return Ok(Some(()));
        }
        match job.state()? {
            State::Running => Ok(None),
            State::Succeeded => Err(anyhow!("{} ended before it printed '{text}'", job.name())),
            State::Failed(how) => Err(anyhow!("{} failed, {how}", job.name())),
        }
    });
    end.map_err(|error| with_last_words(error, job))
}

/// The job's last lines of output say more than its exit status.
pub fn with_last_words(error: Error, job: &dyn Job) -> Error {
    if error.is::<Interrupted>() {
        return error;
    }
    let words = last_lines(&format!("{}{}", job.stdout(), job.stderr()), 10);
    if words.is_empty() {
        error
    } else {
        anyhow!("{error:#}; its last output:\n{words}")
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.len().saturating_sub(count);
    lines[first..]
        .iter()
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_skip_empty_ones() {
        assert_eq!(last_lines("a\n\nb\nc\n\n", 2), "    b\n    c");
        assert_eq!(last_lines("", 2), "");
    }
}
