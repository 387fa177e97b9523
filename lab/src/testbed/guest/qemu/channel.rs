//! The channel to a guest, a virtio port: programs are started in the guest through it.

use std::{cell::RefCell, rc::Rc, time::Duration};

use anyhow::{Result, bail};

use super::transcript::{READY, Transcript};
use crate::host::{
    job::{self, Job, State},
    process::{Process, quoted},
    wait::{self, OnSignal},
};

/// Half a minute is ten times what the slowest answer took, a large output from a busy guest without KVM.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// The channel to a machine, and the machine's process, whose standard input and output its ends are.
#[derive(Debug)]
pub struct Channel {
    inner: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    machine: Process,
    /// How many bytes of its output have been taken in.
    read: u64,
    transcript: Transcript,
    requests: u32,
    jobs: u32,
}

impl Channel {
    /// Of a machine that was just started.
    pub fn new(machine: Process) -> Self {
        Self {
            inner: RefCell::new(Inner {
                machine,
                read: 0,
                transcript: Transcript::default(),
                requests: 0,
                jobs: 0,
            }),
        }
    }

    /// Waits until the guest takes requests.
    pub fn wait_until_ready(&self, limit: Duration) -> Result<()> {
        job::has_printed(&mut self.inner.borrow_mut().machine, READY, limit)
    }

    /// The process of the machine.
    pub fn process_id(&self) -> u32 {
        self.inner.borrow().machine.id()
    }

    /// Has the guest's shell run a command that takes a moment only; returns its status and what it says.
    pub fn request(&self, command: &str) -> Result<(u8, String)> {
        let inner = &mut *self.inner.borrow_mut();
        inner.send(command)?;
        let what = format!("{} to answer '{command}'", inner.machine.name());
        wait::until(&what, ANSWER_LIMIT, OnSignal::GoOn, || {
            inner.listen()?;
            Ok(inner.transcript.answer())
        })
    }

    /// Has the guest's shell run a command whose output is wanted as it comes, line by line; returns its status.
    pub fn follow(&self, command: &str, limit: Duration, mut said: impl FnMut(&str)) -> Result<u8> {
        let inner = &mut *self.inner.borrow_mut();
        inner.send(&format!("follow {}", quoted(command)))?;
        let what = format!("{} to finish '{command}'", inner.machine.name());
        wait::until(&what, limit, OnSignal::Stop, || {
            let listened = inner.listen();
            said(&inner.transcript.so_far());
            listened?;
            Ok(inner.transcript.answer().map(|(status, _)| status))
        })
    }

    /// Starts a program in the guest.
    pub fn start(self: &Rc<Self>, name: String, words: &[&str]) -> Result<ChannelJob> {
        let id = {
            let inner = &mut *self.inner.borrow_mut();
            inner.jobs += 1;
            inner.jobs
        };
        let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        let (status, said) = self.request(&format!("launch {id} {}", words.join(" ")))?;
        if status != 0 {
            bail!("starting {name}: status {status}; {said}");
        }
        Ok(ChannelJob {
            channel: Rc::clone(self),
            name,
            id,
        })
    }

    /// Ends the machine, which takes no leave of its guest.
    pub fn stop(self) -> Result<()> {
        self.inner.into_inner().machine.stop().map(drop)
    }
}

impl Inner {
    fn send(&mut self, command: &str) -> Result<()> {
        self.requests += 1;
        self.transcript.expect(self.requests);
        self.machine
            .write(format!("{} {command}\n", self.requests).as_bytes())
    }

    /// Takes in what has come; an error if nothing will come any more.
    fn listen(&mut self) -> Result<()> {
        let bytes = self.machine.stdout_from(self.read)?;
        self.read += bytes.len() as u64;
        self.transcript.feed(&bytes);
        match self.machine.state()? {
            State::Running => Ok(()),
            ended => Err(job::with_last_words(
                anyhow::anyhow!("{} has ended ({ended:?})", self.machine.name()),
                &self.machine,
            )),
        }
    }
}

/// A program in the guest.
#[derive(Debug)]
pub struct ChannelJob {
    channel: Rc<Channel>,
    name: String,
    id: u32,
}

impl ChannelJob {
    fn output(&self, stream: &str) -> String {
        match self.channel.request(&format!("output {} {stream}", self.id)) {
            // The guest has added the last line end.
            Ok((0, output)) => output.strip_suffix('\n').unwrap_or(&output).to_owned(),
            Ok((status, _)) => format!("(its output can't be read: status {status})"),
            Err(error) => format!("(its output can't be read: {error:#})"),
        }
    }
}

impl Job for ChannelJob {
    fn name(&self) -> &str {
        &self.name
    }

    /// Asks nothing of the guest: its end is told when it comes.
    fn state(&mut self) -> Result<State> {
        let inner = &mut *self.channel.inner.borrow_mut();
        inner.listen()?;
        Ok(match inner.transcript.ended(self.id) {
            None => State::Running,
            Some(0) => State::Succeeded,
            Some(status) => State::Failed(format!("exit status: {status}")),
        })
    }

    fn stdout(&self) -> String {
        self.output("stdout")
    }

    fn stderr(&self) -> String {
        self.output("stderr")
    }
}

impl Drop for ChannelJob {
    fn drop(&mut self) {
        let inner = &mut *self.channel.inner.borrow_mut();
        if inner.listen().is_ok() && inner.transcript.ended(self.id).is_none() {
            // Not waited for: a guest that hangs would keep the lab, and its end is the end of all its programs.
            let _ = inner.send(&format!("stop {}", self.id));
        }
    }
}
