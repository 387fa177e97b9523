//! How far a command has come that takes its time.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// A command that is done by then says nothing.
const QUIET: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_millis(100);

/// One line on standard error, written anew and in the end removed; for people only, so only on a terminal and not where
/// JSON is wanted.
pub struct Progress {
    what: &'static str,
    wanted: bool,
    start: Instant,
    /// When the line was written last.
    written: Option<Instant>,
}

impl Progress {
    /// Of a command that begins now; `what` is what has been done with so many of so many.
    pub fn new(what: &'static str, json: bool) -> Self {
        Self {
            what,
            wanted: !json && io::stderr().is_terminal(),
            start: Instant::now(),
            written: None,
        }
    }

    /// So many of so many.
    pub fn tell(&mut self, done: usize, all: usize) {
        let due = self.written.is_none_or(|written| written.elapsed() >= PERIOD);
        if self.wanted && due && self.start.elapsed() >= QUIET {
            write(&format!("{} {done} of {all}", self.what));
            self.written = Some(Instant::now());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.written.is_some() {
            write("");
        }
    }
}

/// Replaces the line. That nobody sees it is no reason to stop.
fn write(line: &str) {
    let _ = write!(io::stderr(), "\r\x1b[K{line}");
}
