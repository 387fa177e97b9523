//! Running other programs, with errors that name the command and the cause.

use std::{
    fmt::Write as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

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

/// Starts a command.
pub fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|error| not_started(command, &error))
}

/// Waits for a child, but no longer than `limit`; then it is killed.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            bail!("stopped: it took longer than {} minutes", limit.as_secs() / 60);
        }
        thread::sleep(Duration::from_millis(20));
    }
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
        assert!(format!("{error:#}").contains("stopped"), "{error:#}");
    }
}
