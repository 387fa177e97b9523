//! How far a command has come that takes its time.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A command that is done by then says nothing.
const QUIET: Duration = Duration::from_secs(1);
const PERIOD: Duration = Duration::from_millis(100);

/// One line on standard error, written anew and in the end removed; for people only, so only on a terminal and not where
/// JSON is wanted. A thread writes it: the kernel may keep the command's own one waiting.
pub struct Progress {
    /// How many of how many, once that is known.
    counted: Arc<Mutex<Option<(usize, usize)>>>,
    writer: Option<Writer>,
}

struct Writer {
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Of a command that begins now and is `doing` something, which so many of so many have `done` behind them.
    pub fn new(doing: &'static str, done: &'static str, json: bool) -> Self {
        let counted = Arc::new(Mutex::new(None));
        let is_wanted = !json && io::stderr().is_terminal();
        let writer = is_wanted.then(|| {
            let (end, ended) = mpsc::channel();
            let counted = Arc::clone(&counted);
            let thread = thread::spawn(move || {
                let start = Instant::now();
                let mut pause = QUIET;
                while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    let counted = *counted.lock().unwrap_or_else(PoisonError::into_inner);
                    match counted {
                        Some((so_many, all)) => write(&format!("{done} {so_many} of {all}")),
                        None => write(&format!("{doing}… {} s", start.elapsed().as_secs())),
                    }
                    pause = PERIOD;
                }
                if pause == PERIOD {
                    write("");
                }
            });
            Writer { end, thread }
        });
        Self { counted, writer }
    }

    /// Of a command that only reads.
    pub fn reading(json: bool) -> Self {
        Self::new("reading", "read", json)
    }

    /// So many of so many.
    pub fn tell(&self, done: usize, all: usize) {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner) = Some((done, all));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(Writer { end, thread }) = self.writer.take() {
            drop(end);
            let _ = thread.join();
        }
    }
}

/// Replaces the line. That nobody sees it is no reason to stop.
fn write(line: &str) {
    let _ = write!(io::stderr(), "\r\x1b[K{line}");
}
