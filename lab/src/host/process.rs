//! Child processes with a time limit, whose output is kept for error messages.

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{fs::FileExt, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        prctl::set_pdeathsig,
        signal::{Signal, kill},
    },
    unistd::{Pid, getpid, getppid},
};

use crate::host::{
    job::{self, Job, State},
    wait::{self, OnSignal},
};

/// How long a process that was asked to stop may take before it is killed.
const GRACE: Duration = Duration::from_mins(1);

/// How long a command that only changes settings may take; `tapbridge` waits half a minute for its lock.
pub const CALL_LIMIT: Duration = Duration::from_secs(40);

/// A child process. Its output goes to files in memory, so it never waits for a reader. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Stays empty where the output goes elsewhere.
    stdout: File,
    stderr: File,
}

impl Process {
    /// Starts a process that the kernel kills when the calling thread ends, in whatever way.
    pub fn start(name: impl Into<String>, command: Command) -> Result<Self> {
        Self::spawn(name.into(), die_with_parent(command), Stdio::null(), None)
    }

    /// Starts a process that the kernel kills when the calling thread ends; its standard output goes elsewhere instead
    /// of being kept.
    pub fn start_with_output(
        name: impl Into<String>,
        command: Command,
        output: impl Into<Stdio>,
    ) -> Result<Self> {
        Self::spawn(
            name.into(),
            die_with_parent(command),
            Stdio::null(),
            Some(output.into()),
        )
    }

    /// As [`Process::start`], and its standard input is what is [written](Self::write) to it.
    pub fn start_with_input(name: impl Into<String>, command: Command) -> Result<Self> {
        Self::spawn(name.into(), die_with_parent(command), Stdio::piped(), None)
    }

    fn spawn(name: String, mut command: Command, stdin: Stdio, output: Option<Stdio>) -> Result<Self> {
        let [stdout, stderr] = ["stdout", "stderr"].map(|stream| {
            memfd_create(stream, MFdFlags::MFD_CLOEXEC)
                .map(File::from)
                .context("making a file for output")
        });
        let (stdout, stderr) = (stdout?, stderr?);
        let output = output.map_or_else(|| stdout.try_clone().map(Stdio::from), Ok)?;
        let child = command
            .stdin(stdin)
            .stdout(output)
            .stderr(stderr.try_clone()?)
            // A Ctrl-C is for the lab alone, which then ends its children in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name} ({})", command.get_program().display()))?;
        Ok(Self {
            name,
            child,
            stdout,
            stderr,
        })
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut input = self
            .child
            .stdin
            .as_ref()
            .context("it was started without input")?;
        input
            .write_all(bytes)
            .with_context(|| format!("writing to {}", self.name))
    }

    /// Its standard output from a byte on.
    pub fn stdout_from(&self, offset: u64) -> Result<Vec<u8>> {
        read_from(&self.stdout, offset).with_context(|| format!("reading the output of {}", self.name))
    }

    /// Asks the process to stop, and waits for it; returns its standard output.
    pub fn stop(mut self) -> Result<String> {
        self.terminate();
        job::finish(&mut self, GRACE, OnSignal::GoOn)
    }

    fn terminate(&mut self) {
        // Once waited for, its id may be another process's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        }
    }
}

impl Job for Process {
    fn name(&self) -> &str {
        &self.name
    }

    fn state(&mut self) -> Result<State> {
        Ok(
            match self
                .child
                .try_wait()
                .with_context(|| format!("waiting for {}", self.name))?
            {
                None => State::Running,
                Some(status) if status.success() => State::Succeeded,
                Some(status) => State::Failed(status.to_string()),
            },
        )
    }

    fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    fn stderr(&self) -> String {
        contents(&self.stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.terminate();
        let child = &mut self.child;
        let ended = wait::until("the end", GRACE, OnSignal::GoOn, || Ok(child.try_wait()?));
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Has the kernel kill the command's process when the calling thread ends.
fn die_with_parent(mut command: Command) -> Command {
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the call.
            if getppid() == parent {
                Ok(())
            } else {
                Err(Errno::ESRCH.into())
            }
        });
    }
    command
}

/// Has the command's process inherit a file; returns the number that it finds the file by.
pub fn inherit(command: &mut Command, file: impl Into<OwnedFd>) -> RawFd {
    let file = file.into();
    let number = file.as_raw_fd();
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
    number
}

/// The file's bytes, whatever position the child writes at.
fn read_from(file: &File, offset: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn contents(file: &File) -> String {
    match read_from(file, 0) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(its output can't be read: {error})"),
    }
}

/// Runs a short command to its end, even when the lab is told to stop meanwhile; returns its standard output.
pub fn call(command: Command) -> Result<String> {
    call_within(command, CALL_LIMIT)
}

/// As [`call`], one that may take so long.
pub fn call_within(command: Command, limit: Duration) -> Result<String> {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let name = words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    let mut process = Process::spawn(name, command, Stdio::null(), None)?;
    job::finish(&mut process, limit, OnSignal::GoOn)
}

/// The first line that a program prints when it is called with an option, such as its version.
pub fn first_line(program: impl AsRef<Path>, option: &str) -> Result<String> {
    let mut command = Command::new(program.as_ref());
    command.arg(option);
    let output = call(command)?;
    Ok(output.lines().next().unwrap_or_default().trim().into())
}

/// A word that a shell takes as it is.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_a_quoted_word_as_it_is() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
