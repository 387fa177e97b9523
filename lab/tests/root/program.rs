//! The lab's program as the tests start it, and folders for what it writes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Child, Command},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// One of the lab's commands, such as "run".
pub fn lab(command: &str) -> Command {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_tapbridge-lab"));
    lab.arg(command);
    lab
}

pub fn signal(process: &Child, signal: Signal) {
    kill(Pid::from_raw(process.id().cast_signed()), signal).expect("signal the process");
}

/// A place for a folder, which goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("lab-{name}-{}", process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
