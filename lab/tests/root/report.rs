//! What a run leaves in its folder, and what is made of it later.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use perf_event::{Builder, events::Software};
use serde_json::Value;

use crate::{
    Test, datapaths,
    program::{self, Folder},
    run,
};

pub const TESTS: &[Test] = &[
    (
        "a_run_leaves_its_results_a_report_and_plots_which_can_be_compared_later",
        a_run_leaves_a_report,
    ),
    (
        "a_run_that_is_interrupted_keeps_the_samples_that_it_has",
        an_interrupted_run_keeps_its_samples,
    ),
];

const PLOTS: [&str; 5] = [
    "throughput",
    "latency",
    "syscalls",
    "cpu-throughput",
    "cpu-latency",
];

fn succeed(lab: &mut Command) -> String {
    let output = lab.output().expect("start the lab");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn fail(lab: &mut Command) -> String {
    let output = lab.output().expect("start the lab");
    assert!(!output.status.success(), "{lab:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn a_run_leaves_a_report() {
    let folder = Folder::new("report");
    let output = folder.path().join("first");
    {
        let _guard = run::beside_others();
        let mut lab = program::lab("run");
        lab.args(["--time", "1", "--datapath", "tapbridge,linux-bridge"])
            .arg("--tapbridge")
            .arg(datapaths::switch())
            .arg("--output")
            .arg(&output);
        let text = succeed(&mut lab);
        assert!(
            text.contains("Gbit/s") && text.contains("to linux-bridge"),
            "{text}"
        );
    }
    let results = output.join("results.json");
    let samples_kernel = samples_kernel();
    if samples_kernel {
        assert_profiles(&results);
    } else {
        eprintln!("the kernel can't be sampled here: no profile to look at");
    }
    let page = fs::read_to_string(output.join("report.md")).expect("a report");
    for call in ["read", "writev"] {
        let line = format!("@total[tapbridge-lab, tracepoint:syscalls:sys_enter_{call}]: ");
        // Two datapaths, two workloads, two roles.
        assert_eq!(page.matches(&line).count(), 8, "{page}");
    }
    assert!(page.contains("| vm1 → vm2 | xdp |"), "{page}");
    assert!(page.contains("\n## Host CPU\n"), "{page}");
    assert_eq!(page.contains("\n### Where it went\n"), samples_kernel, "{page}");
    assert_plots(&output, &page, samples_kernel);

    assert!(succeed(program::lab("report").arg(&results)).contains("## Throughput"));
    let second = folder.path().join("second");
    let mut comparison = program::lab("report");
    comparison.args([&results, &results]).arg("--output").arg(&second);
    succeed(&mut comparison);
    let page = fs::read_to_string(second.join("report.md")).expect("a comparison");
    assert!(page.contains("| tapbridge | #2 |"), "{page}");
    assert_plots(&second, &page, samples_kernel);
    let error = fail(&mut comparison);
    assert!(error.contains("must not exist yet"), "{error}");

    let other = folder.path().join("other.json");
    let texts = [
        ("{", "is not JSON"),
        ("{}", "names no schema"),
        (r#"{"schema": 1}"#, "has the schema 1"),
    ];
    for (text, cause) in texts {
        fs::write(&other, text).expect("write");
        let error = fail(program::lab("report").arg(&other));
        assert!(error.contains("other.json") && error.contains(cause), "{error}");
    }
}

fn an_interrupted_run_keeps_its_samples() {
    let folder = Folder::new("interrupted");
    let _guard = run::beside_others();
    for (marks, samples) in [(1, None), (2, Some(1))] {
        let output = folder.path().join(marks.to_string());
        let mut lab = program::lab("run");
        lab.args(["--datapath", "linux-bridge", "--workload", "throughput"])
            .args(["--time", "1", "--repeat", "99", "--output"])
            .arg(&output);
        let mut lab = lab
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("start the lab");
        let said = BufReader::new(lab.stderr.take().expect("a pipe"));
        let mut steps = said
            .lines()
            .map_while(Result::ok)
            .filter(|line| line.contains("throughput, 1 s"));
        assert_eq!(steps.by_ref().take(marks).count(), marks);
        program::signal(&lab, Signal::SIGINT);
        steps.for_each(drop);
        assert_eq!(lab.wait().expect("wait for it").code(), Some(130));
        let results = fs::read_to_string(output.join("results.json")).ok();
        let results: Option<Value> = results.map(|text| serde_json::from_str(&text).expect("JSON"));
        let taken = results.and_then(|results| Some(results["samples"].as_array()?.len()));
        assert_eq!(taken, samples);
        assert_eq!(output.exists(), samples.is_some());
    }
}

/// The kernel was met on both sides of each datapath and between, and what a guest does is told from that.
fn assert_profiles(results: &Path) {
    let results = fs::read_to_string(results).expect("results");
    let results: Value = serde_json::from_str(&results).expect("JSON");
    let samples = results["samples"].as_array().expect("samples");
    for datapath in ["linux-bridge", "tapbridge"] {
        let samples = samples.iter().filter(|sample| sample["datapath"] == datapath);
        let runs = samples.flat_map(|sample| sample["runs"].as_array().expect("runs"));
        let profiles: Vec<_> = runs.map(|run| &run["profile"]).collect();
        for part in ["write", "path", "read", "wake-up", "guest"] {
            let seconds: f64 = profiles
                .iter()
                .filter_map(|profile| profile["seconds"][part].as_f64())
                .sum();
            assert!(seconds > 0.0, "{datapath}, {part}: {profiles:#?}");
        }
        for (profile, part) in profiles
            .iter()
            .flat_map(|profile| ["write", "path", "read"].map(|part| (profile, part)))
        {
            let functions = profile["functions"][part].as_array();
            let mut names = functions
                .into_iter()
                .flatten()
                .filter_map(|function| function["name"].as_str());
            // What is cut into segments on its way (`validate_xmit_skb`) is no guest's doing.
            let is_guests = |name: &str| name.starts_with("tcp_") && !name.ends_with("_gso_segment");
            assert!(!names.any(is_guests), "{datapath}, {part}: {profile:#}");
        }
    }
}

/// Asked without the lab: that it finds no way would else be no failure.
fn samples_kernel() -> bool {
    let mut clock = Builder::new(Software::CPU_CLOCK);
    clock.any_pid().one_cpu(0).include_kernel().exclude_user(true);
    clock.build().is_ok() && fs::read_to_string("/proc/kallsyms").is_ok()
}

fn assert_plots(folder: &Path, page: &str, samples_kernel: bool) {
    for plot in PLOTS {
        if plot.starts_with("cpu-") && !samples_kernel {
            assert!(!folder.join(format!("{plot}.svg")).exists(), "{plot}");
            continue;
        }
        let file = |ending: &str| fs::read(folder.join(format!("{plot}.{ending}"))).expect("a plot");
        assert!(file("svg").starts_with(b"<svg"), "{plot}");
        let png = file("png");
        assert!(
            png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 10_000,
            "{plot}"
        );
        assert!(page.contains(&format!("({plot}.svg)")), "{page}");
    }
}
