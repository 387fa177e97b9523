//! What a run leaves in its folder, and what is made of it later.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{self, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{Test, datapaths, run};

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

const PLOTS: [&str; 3] = ["throughput", "latency", "syscalls"];

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn lab(arguments: &[&Path]) -> Output {
    let mut lab = Command::new(env!("CARGO_BIN_EXE_tapbridge-lab"));
    lab.args(arguments).output().expect("start the lab")
}

fn succeed(arguments: &[&Path]) -> String {
    let output = lab(arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn fail(arguments: &[&Path]) -> String {
    let output = lab(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn a_run_leaves_a_report() {
    let folder = Folder(env::temp_dir().join(format!("lab-report-{}", process::id())));
    let output = folder.0.join("first");
    let switch = datapaths::switch();
    {
        let _guard = run::beside_others();
        let words = [
            "run",
            "--time",
            "1",
            "--datapath",
            "tapbridge,linux-bridge",
            "--tapbridge",
        ];
        let words: Vec<&Path> = words.iter().map(Path::new).collect();
        let text = succeed(&[&words[..], &[&switch, Path::new("--output"), &output]].concat());
        assert!(
            text.contains("Gbit/s") && text.contains("to linux-bridge"),
            "{text}"
        );
    }
    let results = output.join("results.json");
    let page = fs::read_to_string(output.join("report.md")).expect("a report");
    for call in ["read", "writev"] {
        let line = format!("@total[tapbridge-lab, tracepoint:syscalls:sys_enter_{call}]: ");
        // Two datapaths, two workloads, two roles.
        assert_eq!(page.matches(&line).count(), 8, "{page}");
    }
    assert!(page.contains("| vm1 → vm2 | xdp |"), "{page}");
    assert_plots(&output, &page);

    let [report, option] = ["report", "--output"].map(Path::new);
    assert!(succeed(&[report, &results]).contains("## Throughput"));
    let second = folder.0.join("second");
    succeed(&[report, &results, &results, option, &second]);
    let page = fs::read_to_string(second.join("report.md")).expect("a comparison");
    assert!(page.contains("| tapbridge | #2 |"), "{page}");
    assert_plots(&second, &page);
    let error = fail(&[report, &results, option, &second]);
    assert!(error.contains("must not exist yet"), "{error}");

    let other = folder.0.join("other.json");
    let texts = [
        ("{", "is not JSON"),
        ("{}", "names no schema"),
        (r#"{"schema": 1}"#, "has the schema 1"),
    ];
    for (text, cause) in texts {
        fs::write(&other, text).expect("write");
        let error = fail(&[report, &other]);
        assert!(error.contains("other.json") && error.contains(cause), "{error}");
    }
}

fn an_interrupted_run_keeps_its_samples() {
    let folder = Folder(env::temp_dir().join(format!("lab-interrupted-{}", process::id())));
    let _guard = run::beside_others();
    for (marks, samples) in [(1, None), (2, Some(1))] {
        let output = folder.0.join(marks.to_string());
        let mut lab = Command::new(env!("CARGO_BIN_EXE_tapbridge-lab"));
        lab.args(["run", "--datapath", "linux-bridge", "--workload", "throughput"])
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
        kill(Pid::from_raw(lab.id().cast_signed()), Signal::SIGINT).expect("interrupt it");
        steps.for_each(drop);
        assert_eq!(lab.wait().expect("wait for it").code(), Some(130));
        let results = fs::read_to_string(output.join("results.json")).ok();
        let results: Option<Value> = results.map(|text| serde_json::from_str(&text).expect("JSON"));
        let taken = results.and_then(|results| Some(results["samples"].as_array()?.len()));
        assert_eq!(taken, samples);
        assert_eq!(output.exists(), samples.is_some());
    }
}

fn assert_plots(folder: &Path, page: &str) {
    for plot in PLOTS {
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
