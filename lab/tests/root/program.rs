//! The lab's program as the tests start it, and folders for what it writes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// One of the lab's commands, such as "run".
pub fn lab(command: &str) -> Command {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_tapbridge-lab"));
    lab.arg(command);
    lab
}

pub fn signal(process: &Child, signal: Signal) {
    kill(Pid::from_raw(process.id().cast_signed()), signal).expect("signal the process");
}

/// All of the machine's.
pub fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Processes that a process has started and that have not ended.
pub fn children(parent: u32) -> impl Iterator<Item = u32> {
    processes().filter(move |&id| status(id, "PPid").is_some_and(|id| id == parent.to_string()))
}

/// What the kernel tells of a process under a name, such as "State".
pub fn status(id: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|&(other, _)| other == name)?;
    Some(value.trim().into())
}

/// CPU time of a process, in the unit of /proc; nothing of one that has ended.
pub fn cpu_ticks(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let (_, fields) = stat.rsplit_once(") ").unwrap_or_default();
    let times = fields.split(' ').skip(11).take(2);
    times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Empty for a process that has ended.
pub fn command_line(id: u32) -> String {
    fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default()
}

/// A place for a folder, which goes with the test.
pub struct Folder {
    _around: TempDir,
    path: PathBuf,
}

impl Folder {
    pub fn new(name: &str) -> Self {
        let around = tempfile::tempdir().expect("make a folder");
        Self {
            path: around.path().join(name),
            _around: around,
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}
