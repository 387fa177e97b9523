//! What a station is told by its standard input, while it does something else.

use std::{
    io::{Stdin, stdin},
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result};
use nix::{errno::Errno, unistd::read};

use super::task::Task;

/// Tasks, a line each.
pub struct Orders {
    input: Stdin,
    bytes: Vec<u8>,
    ended: bool,
}

impl Orders {
    /// Those of this process's standard input.
    pub fn new() -> Self {
        Self {
            input: stdin(),
            bytes: Vec::new(),
            ended: false,
        }
    }

    /// Takes in what has come; waits for it if nothing has.
    pub fn take(&mut self) -> Result<()> {
        let mut piece = [0; 1024];
        match read(&self.input, &mut piece) {
            Ok(0) => self.ended = true,
            Ok(length) => self.bytes.extend(&piece[..length]),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("reading a task from the standard input"),
        }
        Ok(())
    }

    /// Whether there is another task, or will be none.
    pub fn waiting(&self) -> bool {
        self.ended || self.bytes.contains(&b'\n')
    }

    /// Whether there will be none but those that have come.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next task that has come.
    pub fn next(&mut self) -> Result<Option<Task>> {
        let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        let task = serde_json::from_slice(&line);
        Ok(Some(task.with_context(|| {
            format!("a task: {}", String::from_utf8_lossy(&line))
        })?))
    }
}

impl AsFd for Orders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }
}
