//! The whole lab, over the kernel's own bridge: that it measures, and that it leaves nothing behind.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Child, Output, Stdio},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    PATIENCE, Test,
    program::{self, processes, status},
};

pub const TESTS: &[Test] = &[
    ("a_run_measures_and_leaves_nothing_behind", a_run_measures),
    (
        "an_interrupted_run_leaves_nothing_behind",
        an_interrupted_run_leaves_nothing,
    ),
    (
        "the_next_run_removes_what_a_killed_one_left_behind",
        the_next_run_removes_the_remains,
    ),
];

/// A lab removes what killed ones left: none of another test may start while one looks at that.
static REMAINS: RwLock<()> = RwLock::new(());

/// What a test holds while it runs labs that are not killed.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    REMAINS.read().unwrap_or_else(PoisonError::into_inner)
}

/// What a test holds while it kills labs and looks at what they leave.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    REMAINS.write().unwrap_or_else(PoisonError::into_inner)
}

/// A lab's process and the namespaces it has made.
pub struct Run {
    pub child: Child,
    namespaces: Vec<u64>,
}

impl Run {
    fn start(datapath: &str, time: &str, options: &[&str]) -> Self {
        let child = program::lab("run")
            .args(["--datapath", datapath, "--json", "--time", time, "--repeat", "1"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the lab");
        Self {
            child,
            namespaces: Vec::new(),
        }
    }

    /// A lab in the middle of its first measurement.
    pub fn in_the_middle(options: &[&str]) -> Self {
        let mut run = Self::start("linux-bridge", "30", options);
        let deadline = Instant::now() + PATIENCE;
        while run
            .programs()
            .iter()
            .filter(|program| *program == "iperf3")
            .count()
            < 2
        {
            assert!(
                Instant::now() < deadline,
                "no iperf3 after {PATIENCE:?}, but {:?}",
                run.programs()
            );
            thread::sleep(Duration::from_millis(20));
            run.namespaces = run
                .names()
                .iter()
                .filter_map(|path| Some(fs::metadata(path).ok()?.ino()))
                .collect();
        }
        assert_eq!(run.namespaces.len(), 3, "a host and two guests");
        run
    }

    pub fn signal(&self, signal: Signal) {
        program::signal(&self.child, signal);
    }

    /// The lab's namespaces that have their names still.
    fn names(&self) -> Vec<PathBuf> {
        let prefix = format!("tblab-{}-", self.child.id());
        let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let own = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
        own.map(|entry| entry.path()).collect()
    }

    /// The programs that run in the lab's namespaces.
    fn programs(&self) -> Vec<String> {
        let inside = self
            .namespaces
            .iter()
            .flat_map(|&namespace| processes_in(namespace));
        inside.filter_map(|id| status(id, "Name")).collect()
    }

    /// Nobody waits for what a killed lab started, so it may take init a moment.
    pub fn assert_no_programs(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.programs().is_empty() {
            assert!(
                Instant::now() < deadline,
                "after {PATIENCE:?} there still run {:?}",
                self.programs()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The processes that are in a network namespace, by its inode.
pub fn processes_in(namespace: u64) -> impl Iterator<Item = u32> {
    processes().filter(move |id| {
        let own = fs::metadata(format!("/proc/{id}/ns/net"));
        own.is_ok_and(|own| own.ino() == namespace)
    })
}

fn a_run_measures() {
    measure("linux-bridge");
}

/// Has a lab measure once, checks what it reports and that it leaves nothing behind; returns the report.
pub fn measure(datapath: &str) -> Value {
    let _guard = beside_others();
    let run = Run::start(datapath, "1", &[]);
    let names = format!("tblab-{}-", run.child.id());
    let Output {
        status,
        stdout,
        stderr,
    } = run.child.wait_with_output().expect("wait for the lab");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let report: Value = serde_json::from_slice(&stdout).expect("JSON");
    assert_eq!(report["schema"], 4);
    assert_eq!(report["guests"]["kind"], "netns");
    let sample = &report["samples"][0];
    assert!(
        sample["runs"][0]["outcome"]["gbit_per_s"]
            .as_f64()
            .is_some_and(|rate| rate > 0.05),
        "{sample}"
    );
    assert_eq!(
        sample["runs"][0]["outcome"]["streams"].as_array().map(Vec::len),
        Some(4)
    );
    assert!(
        sample["runs"][1]["outcome"]["average_us"]
            .as_f64()
            .is_some_and(|latency| latency > 1.0),
        "{sample}"
    );
    assert!(
        sample["pumps"][0]["to_host"]["frames"]
            .as_u64()
            .is_some_and(|frames| frames > 100),
        "{sample}"
    );
    let folders =
        ["/run/netns".into(), env::temp_dir()].map(|folder| fs::read_dir(folder).expect("is there"));
    let left: Vec<_> = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(
        !left.iter().any(|name| name.to_string_lossy().starts_with(&names)),
        "{left:?}"
    );
    report
}

fn an_interrupted_run_leaves_nothing() {
    let _guard = beside_others();
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let mut run = Run::in_the_middle(&[]);
        run.signal(signal);
        let status = run.child.wait().expect("wait for the lab");
        assert_eq!(status.code(), Some(code));
        assert_eq!(run.names(), Vec::<PathBuf>::new());
        run.assert_no_programs();
    }
}

fn the_next_run_removes_the_remains() {
    let _guard = alone();
    let mut killed = Run::in_the_middle(&[]);
    killed.signal(Signal::SIGKILL);
    killed.child.wait().expect("wait for the lab");
    killed.assert_no_programs();
    assert_eq!(
        killed.names().len(),
        3,
        "a killed lab can't remove its namespaces"
    );

    let mut next = Run::in_the_middle(&[]);
    assert_eq!(killed.names(), Vec::<PathBuf>::new());
    next.signal(Signal::SIGINT);
    next.child.wait().expect("wait for the lab");
}
