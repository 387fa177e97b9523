//! `--steady`: that guests stay on their CPUs, that the others are kept awake by what gives way, and that it all goes.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::signal::Signal,
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    PATIENCE, Test,
    program::{self, children, command_line, status},
    run::{self, Run, processes_in},
};

pub const TESTS: &[Test] = &[
    (
        "a_steady_run_keeps_cpus_awake_and_guests_on_theirs_until_it_is_interrupted",
        a_steady_run_has_all_in_its_place,
    ),
    (
        "the_results_of_a_steady_run_say_so_and_do_without_the_hosts_cpu_time",
        the_results_say_so,
    ),
    (
        "the_next_run_removes_the_cgroup_of_a_killed_steady_one",
        the_next_run_removes_the_cgroup,
    ),
    (
        "a_cgroup_is_removed_when_the_processes_of_a_killed_lab_have_ended_at_last",
        what_ends_late_is_waited_for,
    ),
    (
        "a_steady_run_that_fails_leaves_no_cgroup",
        a_failed_run_leaves_none,
    ),
    (
        "on_a_single_cpu_or_without_cgroups_a_steady_run_says_why_not",
        a_steady_run_says_why_not,
    ),
];

pub fn lacking() -> Option<String> {
    if cpus().len() < 2 {
        return Some("needs two CPUs".into());
    }
    // A root cgroup has no such setting.
    let idle = |hierarchy: &Path| {
        let probe = hierarchy.join(format!("tblab-probe-{}", process::id()));
        let made = fs::create_dir(&probe).is_ok();
        let idle = probe.join("cpu.idle").exists();
        if made {
            fs::remove_dir(&probe).expect("remove the cgroup");
        }
        idle
    };
    (!hierarchy().is_some_and(idle)).then(|| "needs cgroups with cpu.idle, to make one".into())
}

/// Where distributions mount the cgroups that have the controller.
fn hierarchy() -> Option<&'static Path> {
    let v1 = Path::new("/sys/fs/cgroup/cpu");
    let v2 = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(v2.join("cgroup.subtree_control")).unwrap_or_default();
    if v1.exists() {
        Some(v1)
    } else {
        controllers
            .split_whitespace()
            .any(|name| name == "cpu")
            .then_some(v2)
    }
}

/// What the cgroups of a lab are called.
fn cgroup(lab: u32) -> PathBuf {
    let name = format!("tblab-{lab}-spinners");
    hierarchy().expect("main has asked").join(name)
}

/// Those that this process may use, as the kernel writes them.
fn cpus() -> Vec<String> {
    let all = sched_getaffinity(Pid::from_raw(0)).expect("own CPUs");
    let cpus = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).expect("a CPU's number"));
    cpus.map(|cpu| cpu.to_string()).collect()
}

fn cpus_of(id: u32) -> String {
    status(id, "Cpus_allowed_list").expect("the process lives")
}

/// The processes in the cgroup.
fn spinners(lab: u32) -> Vec<u32> {
    let ids = fs::read_to_string(cgroup(lab).join("cgroup.procs")).expect("a cgroup");
    ids.lines().map(|id| id.parse().expect("an id")).collect()
}

/// To end, too, they have to wait until there is nothing better to do.
fn assert_end(ids: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    while ids.iter().any(|&id| command_line(id).contains("\0spin\0")) {
        assert!(
            Instant::now() < deadline,
            "after {PATIENCE:?} there still spin some of {ids:?}"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

fn a_steady_run_has_all_in_its_place() {
    let _guard = run::beside_others();
    let mut run = Run::in_the_middle(&["--steady"]);
    let lab = run.child.id();

    let spinners = spinners(lab);
    let spun: BTreeSet<_> = spinners.iter().map(|&id| cpus_of(id)).collect();
    assert_eq!(
        (spinners.len(), spun),
        (cpus().len(), cpus().into_iter().collect())
    );
    let idle = fs::read_to_string(cgroup(lab).join("cpu.idle")).expect("cpu.idle");
    assert_eq!(idle.trim(), "1");

    for (number, cpu) in (1..=2).zip(cpus()) {
        let tap = format!("\0pump\0--host-tap\0vm{number}\0");
        let pump = children(lab).find(|&id| command_line(id).contains(&tap));
        assert_eq!(cpus_of(pump.expect("a pump")), cpu);
        let guest = fs::metadata(format!("/run/netns/tblab-{lab}-guest{number}"));
        let programs: Vec<_> = processes_in(guest.expect("a namespace").ino()).collect();
        assert!(!programs.is_empty());
        for program in programs {
            assert_eq!(cpus_of(program), cpu);
        }
    }

    run.signal(Signal::SIGINT);
    assert_eq!(run.child.wait().expect("wait for the lab").code(), Some(130));
    assert!(!cgroup(lab).exists());
    assert_end(&spinners);
}

fn the_results_say_so() {
    let _guard = run::beside_others();
    let lab = steady("netns")
        .args([
            "--workload",
            "throughput",
            "--time",
            "1",
            "--repeat",
            "1",
            "--json",
        ])
        .output();
    let output = lab.expect("run the lab");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let results: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(results["conditions"]["steady"], true);
    let run = &results["samples"][0]["runs"][0];
    assert_eq!(run.get("host"), Some(&Value::Null));
    let cpu = &run["client"]["cpu"];
    assert!(
        cpu["system_s"].as_f64().is_some_and(|seconds| seconds > 0.0),
        "{cpu}"
    );
}

fn the_next_run_removes_the_cgroup() {
    let _guard = run::alone();
    let mut killed = Run::in_the_middle(&["--steady"]);
    let lab = killed.child.id();
    let spinners = spinners(lab);
    killed.signal(Signal::SIGKILL);
    killed.child.wait().expect("wait for the lab");
    killed.assert_no_programs();
    assert_end(&spinners);
    assert!(cgroup(lab).exists(), "a killed lab can't remove its cgroup");

    let mut next = Run::in_the_middle(&[]);
    assert!(!cgroup(lab).exists());
    next.signal(Signal::SIGINT);
    next.child.wait().expect("wait for the lab");
}

/// On a busy machine they do so long after they have been killed.
fn what_ends_late_is_waited_for() {
    let _guard = run::alone();
    let mut gone = Command::new("true").spawn().expect("start a process");
    gone.wait().expect("wait for it");
    let group = cgroup(gone.id());
    fs::create_dir(&group).expect("make a cgroup");
    let mut late = Command::new("sleep").arg("3").spawn().expect("start a process");
    fs::write(group.join("cgroup.procs"), late.id().to_string()).expect("move it there");
    let waits = thread::spawn(move || late.wait());

    let mut next = Run::in_the_middle(&[]);
    assert!(!group.exists());
    next.signal(Signal::SIGINT);
    next.child.wait().expect("wait for the lab");
    waits.join().expect("a thread").expect("wait for the process");
}

/// Has a lab fail; returns its id and what it says.
fn fail(mut lab: Command) -> (u32, String) {
    let lab = lab.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let lab = lab.expect("start the lab");
    let id = lab.id();
    let output = lab.wait_with_output().expect("wait for the lab");
    assert!(!output.status.success());
    (id, String::from_utf8(output.stderr).expect("UTF-8"))
}

fn steady(guest: &str) -> Command {
    let mut lab = program::lab("run");
    lab.args(["--steady", "--datapath", "linux-bridge", "--guest", guest]);
    lab
}

fn a_failed_run_leaves_none() {
    let _guard = run::beside_others();
    let (id, error) = fail(steady("qemu"));
    assert!(error.contains("needs --vm"), "{error}");
    assert!(!cgroup(id).exists());
}

fn a_steady_run_says_why_not() {
    let _guard = run::beside_others();
    let confined = thread::spawn(|| {
        let first = cpus()[0].parse().expect("a number");
        let mut only = CpuSet::new();
        only.set(first).expect("a CPU's number");
        sched_setaffinity(Pid::from_raw(0), &only).expect("stay on a CPU");
        fail(steady("netns"))
    });
    let (_, error) = confined.join().expect("no panic");
    assert!(error.contains("may use one only"), "{error}");

    let lab = steady("netns");
    let mut hidden = Command::new("unshare");
    hidden
        .args([
            "--mount",
            "sh",
            "-c",
            "umount --recursive --lazy /sys/fs/cgroup && exec \"$@\"",
            "sh",
        ])
        .arg(lab.get_program())
        .args(lab.get_args());
    let (_, error) = fail(hidden);
    assert!(error.contains("mount -t cgroup2"), "{error}");
}
