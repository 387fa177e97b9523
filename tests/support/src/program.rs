//! Programs that the tests run, none longer than its time.

use std::{
    fmt,
    fs::File,
    io::{BufRead as _, BufReader, Read},
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use nix::pty::{OpenptyResult, Winsize, openpty};
use serde_json::Value;

/// How long anything may take on a busy machine: longer than a command waits for those that go before it.
pub const LIMIT: Duration = Duration::from_mins(6);

/// What a program that has ended has said.
pub struct Output {
    words: String,
    /// How it ended.
    pub status: ExitStatus,
    /// On standard output.
    pub stdout: String,
    /// On standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code; none if a signal ended the program.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What it printed, if it succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{self}");
        self.stdout
    }

    /// What it complained of, if it ended with this code and printed nothing else.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!((self.code(), self.stdout.as_str()), (Some(code), ""), "{self}");
        self.stderr
    }

    /// What it printed as JSON, if it succeeded.
    #[track_caller]
    pub fn json(self) -> Value {
        let context = self.to_string();
        serde_json::from_str(&self.success()).unwrap_or_else(|error| panic!("no JSON: {error}: {context}"))
    }
}

impl fmt::Display for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            words,
            status,
            stdout,
            stderr,
        } = self;
        write!(formatter, "{words}: {status}\n{stdout}{stderr}")
    }
}

/// Runs a program to its end, in the calling thread's network namespace unless the command says otherwise.
pub fn run(mut command: Command) -> Output {
    let words = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("start {words}: {error}"));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let stdout = scope.spawn(|| read(stdout));
        let stderr = scope.spawn(|| read(stderr));
        let status = wait(&mut child, LIMIT);
        let (stdout, stderr) = (stdout.join().expect("read"), stderr.join().expect("read"));
        let Some(status) = status else {
            panic!("{words}: killed after {LIMIT:?}\n{stdout}{stderr}");
        };
        Output {
            words,
            status,
            stdout,
            stderr,
        }
    })
}

fn read(pipe: Option<impl Read>) -> String {
    let mut text = Vec::new();
    pipe.expect("a pipe")
        .read_to_end(&mut text)
        .expect("read what a program says");
    String::from_utf8_lossy(&text).into_owned()
}

/// What a running program says, line by line.
pub fn lines(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let lines = BufReader::new(pipe.expect("a pipe")).lines();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

/// Whether something happens within some time.
pub fn happens(limit: Duration, mut happened: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if happened() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits for a program to end; kills it if it takes too long, and answers nothing then.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("wait for a program") {
            return Some(status);
        }
        if Instant::now() > deadline {
            child.kill().expect("kill a program");
            child.wait().expect("wait for a program");
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sends a process a signal, by name.
#[track_caller]
pub fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    kill.args(["-s", name, &child.id().to_string()]);
    run(kill).success();
}

/// Runs `tc` with these words, which must succeed.
pub fn tc(words: &str) {
    let mut command = Command::new("tc");
    command.args(words.split_whitespace());
    run(command).success();
}

/// Runs `bridge` with these words, which must succeed.
#[track_caller]
pub fn bridge(words: &str) {
    let mut command = Command::new("bridge");
    command.args(words.split_whitespace());
    run(command).success();
}

/// Runs `ip` with these words, which must succeed; answers with what it printed.
#[track_caller]
pub fn ip(words: &str) -> String {
    let mut command = Command::new("ip");
    command.args(words.split_whitespace());
    run(command).success()
}

/// What `ip -j -d link show` says of a device, without what changes by itself; nothing if there is none.
pub fn link(device: &str) -> Option<Value> {
    let mut command = Command::new("ip");
    command.args(["-j", "-d", "link", "show", "dev", device]);
    let output = run(command);
    let mut link = output.status.success().then(|| output.json()[0].take())?;
    for data in ["info_data", "info_slave_data"] {
        if let Some(data) = link["linkinfo"].get_mut(data).and_then(Value::as_object_mut) {
            data.retain(|key, _| !key.ends_with("_timer"));
        }
    }
    Some(link)
}

/// A terminal for programs to write to.
pub struct Terminal {
    screen: OwnedFd,
    end: OwnedFd,
}

impl Terminal {
    /// Of so many columns.
    pub fn new(columns: u16) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).expect("a terminal");
        Self {
            screen: master,
            end: slave,
        }
    }

    /// For a program's standard output or error.
    pub fn end(&self) -> OwnedFd {
        self.end.try_clone().expect("another descriptor")
    }

    /// Waits until programs have written this, however much else.
    #[track_caller]
    pub fn says(&mut self, words: &str) {
        let mut screen = File::from(self.screen.try_clone().expect("another descriptor"));
        let (mut text, mut part) = (String::new(), [0; 4096]);
        let deadline = Instant::now() + LIMIT;
        while !text.contains(words) {
            assert!(Instant::now() < deadline, "not {words:?} in {LIMIT:?}: {text:?}");
            let count = screen.read(&mut part).expect("read a terminal");
            text.push_str(&String::from_utf8_lossy(&part[..count]));
        }
    }

    /// What programs wrote that have all ended: no more than a terminal keeps, some 4 KB.
    pub fn said(self) -> String {
        drop(self.end);
        let mut screen = File::from(self.screen);
        let mut text = Vec::new();
        let mut part = [0; 4096];
        // Behind the last of it is an error.
        while let Ok(count @ 1..) = screen.read(&mut part) {
            text.extend_from_slice(&part[..count]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}
