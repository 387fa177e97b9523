//! Running other programs, with errors that name the command and the cause.

use std::{
    fmt::Write as _,
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    errno::Errno,
    sys::{
        prctl::set_pdeathsig,
        signal::{self, Signal},
    },
    unistd::{Pid, getpid, getppid},
};

/// Runs a command to its end and returns what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(command, &error))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` failed ({}): {}",
            line(command),
            output.status,
            stderr.trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}`: its output is not UTF-8", line(command)))
}

/// Runs a command that shares our terminal, and stops it when `limit` has passed.
pub fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let mut child = spawn(command.stdin(Stdio::null()))?;
    let status = wait(&mut child, limit).with_context(|| format!("`{}`", line(command)))?;
    ensure!(status.success(), "`{}` failed ({status})", line(command));
    Ok(())
}

/// Starts a command, which the kernel asks to end when the calling thread does: by a signal to this process alone, too.
pub fn spawn(command: &mut Command) -> Result<Child> {
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGTERM)?;
            // The parent may have died before the call.
            if getppid() == parent {
                Ok(())
            } else {
                Err(Errno::ESRCH.into())
            }
        });
    }
    command.spawn().map_err(|error| not_started(command, &error))
}

/// Waits for a child, but no longer than `limit`; then it is killed, and what it has started.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    wait_while(child, limit, || Ok(()))
}

/// As [`wait`], and no longer than `fine` answers nothing else.
pub fn wait_while(
    child: &mut Child,
    limit: Duration,
    mut fine: impl FnMut() -> Result<()>,
) -> Result<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let in_time = || {
            ensure!(
                Instant::now() < end,
                "it took longer than {} minutes",
                limit.as_secs() / 60
            );
            Ok(())
        };
        if let Err(error) = in_time().and_then(|()| fine()) {
            return Err(match kill(child) {
                Ok(()) => error.context("stopped"),
                Err(lasting) => error.context(lasting),
            });
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Kills a child and what it has started, as far as that is ours.
fn kill(child: &mut Child) -> Result<()> {
    let mut lasting = Vec::new();
    for process in stopped(child.id()) {
        if signal::kill(process, Signal::SIGKILL) == Err(Errno::EPERM) {
            lasting.push(process.to_string());
        }
    }
    // Only root may end what sudo has started, and sudo itself.
    ensure!(
        lasting.is_empty(),
        "not stopped, since it is root's: process {}; end it as root",
        lasting.join(", ")
    );
    child.wait()?;
    Ok(())
}

/// A process, those that it has started, and those that they have (`proc_pid_task_children(5)`), each stopped before it
/// is asked, so that no more come.
fn stopped(process: u32) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut next = vec![process.cast_signed()];
    while let Some(process) = next.pop() {
        let _ = signal::kill(Pid::from_raw(process), Signal::SIGSTOP);
        let threads = fs::read_dir(format!("/proc/{process}/task"))
            .into_iter()
            .flatten();
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            next.extend(
                children
                    .split_ascii_whitespace()
                    .filter_map(|child| child.parse::<i32>().ok()),
            );
        }
        found.push(Pid::from_raw(process));
    }
    found
}

/// The command as one would type it, for messages.
pub fn line(command: &Command) -> String {
    let mut line = quoted(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        let _ = write!(line, " {}", quoted(&argument.to_string_lossy()));
    }
    line
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:,@~%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn not_started(command: &Command, error: &std::io::Error) -> anyhow::Error {
    anyhow!("`{}` could not be started: {error}", line(command))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, BufRead as _, BufReader, Read as _},
        os::unix::process::ExitStatusExt as _,
    };

    use super::*;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("apt-get");
        command.args(["-o", "A::B=c d", "it's"]);
        assert_eq!(line(&command), r"apt-get -o 'A::B=c d' 'it'\''s'");
    }

    #[test]
    fn a_failure_names_the_command_and_its_message() {
        let error =
            output(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).expect_err("exit 3");
        let text = error.to_string();
        assert!(
            text.contains("exit status: 3") && text.ends_with("no such thing"),
            "{text}"
        );
    }

    #[test]
    fn a_command_that_does_not_exist_is_named() {
        let error = output(&mut Command::new("/no/such/program")).expect_err("there is no such program");
        assert!(
            error
                .to_string()
                .starts_with("`/no/such/program` could not be started"),
            "{error}"
        );
    }

    #[test]
    fn a_command_over_its_time_limit_is_stopped() {
        let error = run(Command::new("sleep").arg("60"), Duration::ZERO).expect_err("it takes a minute");
        assert_eq!(
            format!("{error:#}"),
            "`sleep 60`: stopped: it took longer than 0 minutes"
        );
    }

    #[test]
    fn a_command_ends_with_whoever_started_it() {
        let start = || spawn(Command::new("sleep").arg("60"));
        let mut child = thread::spawn(start).join().unwrap().unwrap();
        let status = wait(&mut child, Duration::from_secs(30)).unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
    }

    #[test]
    fn what_a_stopped_command_has_started_is_stopped_too() {
        let (output, input) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'echo; sleep 60; true'; true"]);
        let mut child = spawn(command.stdout(input)).unwrap();
        // Its output is shared by all of them, and ends with the last.
        drop(command);
        let mut output = BufReader::new(output);
        output.read_line(&mut String::new()).unwrap();
        wait(&mut child, Duration::ZERO).expect_err("it takes a minute");
        let begin = Instant::now();
        output.read_to_string(&mut String::new()).unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30), "they went on");
    }
}
