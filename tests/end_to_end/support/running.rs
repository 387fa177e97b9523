//! A running `tapbridge run`.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::Receiver,
};

use serde_json::Value;

use super::{
    program::{lines, signal, wait},
    schema,
    switch::Switch,
};

pub use super::program::LIMIT;

/// Looks after a switch's ports until it is stopped.
pub struct Running {
    child: Child,
    changes: Receiver<String>,
    complaints: Receiver<String>,
}

impl Running {
    /// Starts it, and waits until it says that it watches.
    #[track_caller]
    pub fn start(switch: &Switch) -> Self {
        Self::of(switch.command("run -j"))
    }

    /// Starts this command, likewise.
    #[track_caller]
    pub fn of(command: Command) -> Self {
        Self::saying(command, "watching the ports of '--hook auto'; Ctrl-C ends")
    }

    /// Starts this command, and waits until it says so on its standard error.
    #[track_caller]
    pub fn saying(mut command: Command, words: &str) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start tapbridge");
        let running = Self {
            changes: lines(child.stdout.take()),
            complaints: lines(child.stderr.take()),
            child,
        };
        assert_eq!(running.complaint(), words);
        running
    }

    /// Its process.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// The next thing that it complains of.
    #[track_caller]
    pub fn complaint(&self) -> String {
        let line = self.complaints.recv_timeout(LIMIT);
        line.unwrap_or_else(|error| panic!("run says nothing in {LIMIT:?}: {error}"))
    }

    /// The next line that it prints.
    #[track_caller]
    pub fn line(&self) -> String {
        let line = self.changes.recv_timeout(LIMIT);
        line.unwrap_or_else(|error| panic!("nothing is printed in {LIMIT:?}: {error}"))
    }

    /// The next document that it prints.
    #[track_caller]
    pub fn next(&self) -> Value {
        parse(&self.line())
    }

    /// A change that it has made, if there is one that was not asked for yet.
    #[track_caller]
    pub fn change(&self) -> Option<Value> {
        let line = self.changes.try_recv().ok()?;
        Some(parse(&line))
    }

    /// All changes that were not asked for yet.
    #[track_caller]
    pub fn changes(&self) -> Vec<Value> {
        std::iter::from_fn(|| self.change()).collect()
    }

    /// Ends it with a signal, by name.
    #[track_caller]
    pub fn stop(mut self, name: &str) -> ExitStatus {
        signal(&self.child, name);
        wait(&mut self.child, LIMIT).expect("run ends when it is asked to")
    }
}

/// What `run -j` or `monitor -j` has printed.
#[track_caller]
fn parse(line: &str) -> Value {
    let document: Value = serde_json::from_str(line).expect("a JSON document");
    let is_of_monitor = document.get("time").is_some();
    schema::check(if is_of_monitor { "monitor" } else { "run" }, &document);
    document
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
