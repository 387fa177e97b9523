//! A running `tapbridge syscalls`.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
    sync::mpsc::Receiver,
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};

use super::{
    caller::Plan,
    program::{lines, signal, wait},
    schema,
    switch::{TAPBRIDGE, unique},
};

pub use super::program::LIMIT;

pub const WRITEV: i64 = libc::SYS_writev;
pub const READ: i64 = libc::SYS_read;

/// Counts since it was started.
pub struct Counting {
    words: String,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    /// What it said on stderr before it said that it counts.
    pub said: Vec<String>,
    _stderr: Receiver<String>,
}

/// `tapbridge syscalls` with these words, not yet running.
pub fn syscalls(words: &str) -> Command {
    let mut command = Command::new(TAPBRIDGE);
    // There is no state, and none is made.
    command.args(["--state", "/nonexistent/state", "syscalls"]);
    command.args(words.split_whitespace());
    command
}

impl Counting {
    /// Starts to count, and waits until it says so.
    #[track_caller]
    pub fn start(words: &str) -> Self {
        let mut command = syscalls(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start tapbridge");
        let mut stdout = child.stdout.take().expect("a pipe");
        let stdout = thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).expect("read");
            text
        });
        let stderr = lines(child.stderr.take());
        let mut said = Vec::new();
        loop {
            match stderr.recv_timeout(LIMIT) {
                Ok(line) if line == "counting… Ctrl-C ends it" => break,
                Ok(line) => said.push(line),
                Err(error) => panic!("{words}: does not count: {error}; {said:?}"),
            }
        }
        Self {
            words: words.to_owned(),
            child,
            stdout: Some(stdout),
            said,
            _stderr: stderr,
        }
    }

    /// The process that counts.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for its end, whichever.
    #[track_caller]
    pub fn wait(&mut self) {
        assert!(wait(&mut self.child, LIMIT).is_some(), "{}: goes on", self.words);
    }

    /// What it prints when it ends by itself, successfully.
    #[track_caller]
    pub fn output(mut self) -> String {
        let status = wait(&mut self.child, LIMIT);
        let stdout = self.stdout.take().expect("asked once").join().expect("read");
        assert!(
            status.is_some_and(|status| status.success()),
            "{}: {status:?}\n{stdout}",
            self.words
        );
        stdout
    }

    /// What it prints when Ctrl-C has been pressed.
    #[track_caller]
    pub fn interrupt(self) -> String {
        self.signal("INT");
        self.output()
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A name that nothing else on the machine has.
pub fn unique_name() -> String {
    unique("sc")
}

/// A caller of this name that makes these calls, in one thread.
pub fn named(name: &str, calls: &[(i64, u32)]) -> Plan {
    Plan {
        name: Some(name.to_owned()),
        calls: calls.to_vec(),
        ..Plan::default()
    }
}

/// The JSON document without its time, and that time in seconds.
#[track_caller]
pub fn document(output: &str) -> (Value, f64) {
    let mut document: Value = serde_json::from_str(output).expect("one JSON document");
    schema::check("syscalls", &document);
    let seconds = document
        .as_object_mut()
        .and_then(|document| document.remove("seconds")?.as_f64());
    let seconds = seconds.expect("the seconds that were counted");
    (document, seconds)
}

/// The document that says these calls were counted, of processes by id and name.
pub fn counted(processes: &[(u32, &str, Value)]) -> Value {
    let processes: Vec<_> = processes
        .iter()
        .map(|(pid, comm, calls)| json!({ "pid": pid, "comm": comm, "calls": calls }))
        .collect();
    json!({ "schema": 1, "uncounted": 0, "processes": processes })
}
