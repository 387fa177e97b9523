//! Steps of which one that fails does not keep the others from running, and tests whose totals are added up.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write, stdout},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::command;

use crate::{CARGO_LIMIT, totals::Totals};

/// The parts that failed, and why.
#[derive(Default)]
pub struct Failures(Vec<String>);

impl Failures {
    /// Does a part of the work under a heading; a failure is printed at once, and remembered.
    pub fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        println!("\n==> {name}");
        let result = work();
        if let Err(error) = &result {
            println!("{error:#}");
            self.0.push(format!("{name}: {error:#}"));
        }
        result.is_ok()
    }

    fn print(&self) {
        println!();
        for failure in &self.0 {
            println!("failed: {failure}");
        }
    }
}

/// Prints what failed, and the totals in the last line.
pub fn conclude(failures: &Failures, totals: Totals) -> ExitCode {
    failures.print();
    println!("{totals}");
    let passed = failures.0.is_empty() && totals.failed == 0;
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs a command and adds up the totals in its output.
pub fn count(test: &mut Command, totals: &mut Totals) -> Result<()> {
    let mut child = command::spawn(test.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let output = child.stdout.take().context("the pipe from the tests")?;
    Counted::new(child, test, output, stdout()).finish(totals)
}

/// How long tests that have begun may say nothing, until they are taken to hang: several times what the slowest takes.
const SILENCE: Duration = Duration::from_mins(15);

/// A command at work, whose output is copied and counted.
struct Counted {
    child: Child,
    line: String,
    summaries: Receiver<Totals>,
    said: Said,
}

/// The last line that a command has said, and when.
type Said = Arc<Mutex<Option<(Instant, String)>>>;

impl Counted {
    fn new(
        child: Child,
        command: &Command,
        output: impl Read + Send + 'static,
        copy: impl Write + Send + 'static,
    ) -> Self {
        let (sender, summaries) = channel();
        let said = Said::default();
        let last = said.clone();
        thread::spawn(move || pass_on(output, copy, &last, &sender));
        Self {
            child,
            line: command::line(command),
            summaries,
            said,
        }
    }

    /// Waits for its end and adds up the totals.
    fn finish(self, totals: &mut Totals) -> Result<()> {
        self.finish_unless_silent(SILENCE, totals)
    }

    fn finish_unless_silent(mut self, limit: Duration, totals: &mut Totals) -> Result<()> {
        let status = command::wait_while(&mut self.child, CARGO_LIMIT, || {
            match &*self.said.lock().unwrap_or_else(PoisonError::into_inner) {
                Some((time, line)) if time.elapsed() >= limit => bail!(
                    "it has said nothing for {}, since '{line}'",
                    humantime::format_duration(limit)
                ),
                _ => Ok(()),
            }
        });
        // A process that a test left behind may hold the pipe open: the wait for its end has a limit too.
        while let Ok(summary) = self.summaries.recv_timeout(Duration::from_secs(10)) {
            *totals += summary;
        }
        let line = &self.line;
        let status = status.with_context(|| format!("`{line}`"))?;
        ensure!(
            status.success(),
            "`{line}` failed ({status}); its messages are above"
        );
        Ok(())
    }
}

/// A command that runs beside others, which have the terminal.
pub struct Beside {
    command: Counted,
    output: Kept,
}

impl Beside {
    /// Starts it.
    pub fn start(mut test: Command) -> Result<Self> {
        let (output, input) = io::pipe().context("a pipe for the tests")?;
        test.stdout(input.try_clone().context("a pipe for the tests")?);
        let child = command::spawn(test.stdin(Stdio::null()).stderr(input))?;
        let kept = Kept::default();
        Ok(Self {
            command: Counted::new(child, &test, output, kept.clone()),
            output: kept,
        })
    }

    /// Waits for its end, adds up the totals in its output and prints that.
    pub fn finish(self, totals: &mut Totals) -> Result<()> {
        self.finish_to(&mut stdout(), totals)
    }

    fn finish_to(self, copy: &mut impl Write, totals: &mut Totals) -> Result<()> {
        let result = self.command.finish(totals);
        let output = self.output.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever read our output may have gone; the tests still count.
        let _ = copy.write_all(&output);
        result
    }
}

/// Output that is printed later.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies the tests' output, line by line, and sends the totals that it names.
fn pass_on(output: impl Read, mut copy: impl Write, said: &Said, summaries: &Sender<Totals>) {
    for mut line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let text = String::from_utf8_lossy(&line).into_owned();
        let summary = Totals::from_summary(&text);
        *said.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), text));
        line.push(b'\n');
        // Whoever read our output may have gone; the tests still count.
        let _ = copy.write_all(&line);
        if summary.is_some_and(|totals| summaries.send(totals).is_err()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_step_that_fails_is_remembered() {
        let mut failures = Failures::default();
        assert!(failures.step("good", || Ok(())));
        assert!(!failures.step("bad", || Err(anyhow!("no luck").context("the attempt"))));
        assert_eq!(failures.0, ["bad: the attempt: no luck"]);
    }

    #[test]
    fn what_runs_beside_others_is_counted_at_its_end() {
        let mut test = Command::new("sh");
        test.args([
            "-c",
            "echo 'test result: ok. 2 passed; 0 failed; 3 ignored'; echo so >&2; exit 7",
        ]);
        let beside = Beside::start(test).unwrap();
        let (mut totals, mut output) = (Totals::default(), Vec::new());
        // Not to our own standard output, where it would be counted among these tests.
        let error = beside
            .finish_to(&mut output, &mut totals)
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 7"), "{error}");
        assert_eq!([totals.passed, totals.failed, totals.skipped], [2, 0, 3]);
        assert!(output.ends_with(b"\nso\n"));
    }

    #[test]
    fn tests_that_say_nothing_more_are_stopped() {
        let mut test = Command::new("sh");
        test.args(["-c", "echo 'test a_wait ...'; exec sleep 60"]);
        let mut child = command::spawn(test.stdout(Stdio::piped())).unwrap();
        let output = child.stdout.take().unwrap();
        let counted = Counted::new(child, &test, output, io::sink());
        let error = counted
            .finish_unless_silent(Duration::from_millis(100), &mut Totals::default())
            .unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.ends_with("stopped: it has said nothing for 100ms, since 'test a_wait ...'"),
            "{error}"
        );
    }

    #[test]
    fn the_tests_output_is_copied_and_counted() {
        let text = "running 1 test\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured\nend\n";
        let (sender, summaries) = channel();
        let mut copy = Vec::new();
        pass_on(text.as_bytes(), &mut copy, &Said::default(), &sender);
        drop(sender);
        assert_eq!(copy, text.as_bytes());
        assert_eq!(
            summaries.iter().collect::<Vec<_>>(),
            [Totals {
                passed: 1,
                failed: 0,
                skipped: 0
            }]
        );
    }
}
