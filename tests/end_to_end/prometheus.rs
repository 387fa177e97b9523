//! What Prometheus makes of the metrics, of the rules and of the dashboard: its own `promtool`, and a Prometheus that scrapes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::Value;

use crate::support::{
    frames::{Flow, segmented},
    http,
    linux_bridge::stop_learning,
    metrics::families,
    program::{LIMIT, happens, run, signal, wait},
    running::Running,
    switch::Switch,
    wire::{drain, send, send_with},
};

crate::tests![
    promtool_finds_nothing_wrong_with_the_metrics,
    every_alert_fires_where_it_should,
    every_name_in_rules_dashboard_and_documents_is_one_of_the_metrics,
    a_prometheus_scrapes_what_the_statistics_say,
];

const METRICS: &str = "127.0.0.1:9123";
const PROMETHEUS: &str = "127.0.0.1:9090";

/// A file of the repository.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Three ports with traffic of every kind.
fn busy() -> Switch {
    let switch = Switch::with_hook(3, "auto");
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    for _ in 0..50 {
        send(vm1, &Flow::tcp(1, 2).of_length(101));
        send(vm1, &Flow::tcp(1, 9).of_length(104));
    }
    let (header, frame) = segmented(&Flow::tcp(1, 3).of_length(30_000), 1400);
    send_with(vm1, &header, &frame);
    drain(&[vm1, vm2, vm3]);
    switch
}

fn promtool_finds_nothing_wrong_with_the_metrics() {
    let switch = busy();
    let metrics = switch.ok("metrics");
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    promtool
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = promtool.spawn().expect("start promtool");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(metrics.as_bytes()).expect("tell promtool");
    drop(input);
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && said == ["", ""], "{said:?}\n{metrics}");
}

fn every_alert_fires_where_it_should() {
    let promtool = |words: &[&str], name: &str| {
        let mut promtool = Command::new("promtool");
        promtool.args(words).arg(file(name));
        run(promtool).success()
    };
    promtool(&["check", "rules"], "monitoring/tapbridge.rules.yml");
    promtool(&["check", "config"], "monitoring/prometheus.yml");
    promtool(&["test", "rules"], "monitoring/tapbridge.rules.test.yml");
    // None of them is forgotten there.
    let tested = text("monitoring/tapbridge.rules.test.yml");
    let rules = text("monitoring/tapbridge.rules.yml");
    let alerts: Vec<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        let fires = format!("alertname: {alert}\n        exp_alerts:\n");
        assert!(tested.contains(&fires), "{alert}");
    }
}

/// What looks like a metric of ours.
fn names(text: &str) -> BTreeSet<&str> {
    text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
        .filter(|word| word.starts_with("tapbridge_"))
        .collect()
}

fn every_name_in_rules_dashboard_and_documents_is_one_of_the_metrics() {
    let switch = Switch::empty();
    let metrics = switch.ok("metrics");
    let all: BTreeSet<&str> = families(&metrics).into_iter().collect();
    let mut seen = BTreeSet::new();
    let files = [
        "monitoring/tapbridge.rules.yml",
        "monitoring/tapbridge.rules.test.yml",
        "monitoring/grafana-dashboard.json",
        "docs/metrics.md",
    ]
    .map(text);
    for file in &files {
        let used = names(file);
        let unknown: Vec<_> = used.difference(&all).collect();
        assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
        seen.extend(used);
    }
    let [.., documents] = &files;
    let untold: Vec<_> = all.difference(&names(documents)).copied().collect();
    assert!(untold.is_empty(), "not in docs/metrics.md: {untold:?}");
    serde_json::from_str::<Value>(&files[2]).expect("the dashboard is JSON");
}

/// A Prometheus that scrapes, until it is dropped.
struct Prometheus {
    child: Child,
    folder: tempfile::TempDir,
}

impl Prometheus {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{:?}]\n\
             scrape_configs: [{{ job_name: tapbridge, static_configs: [{{ targets: [{METRICS:?}] }}] }}]\n",
            file("monitoring/tapbridge.rules.yml").display().to_string()
        );
        fs::write(folder.path().join("prometheus.yml"), config).expect("write a configuration");
        let log = File::create(folder.path().join("log")).expect("make a log");
        // It does not outlive the tests, however they end.
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "prometheus",
                "--config.file=prometheus.yml",
            ])
            .args(["--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={PROMETHEUS}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("start prometheus");
        Self { child, folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What its API answers with, once it answers.
    fn api(path: &str) -> Option<Value> {
        TcpStream::connect(PROMETHEUS).ok()?;
        let answer = http::tcp(PROMETHEUS, &format!("GET /api/v1/{path}"));
        let json: Value = serde_json::from_str(&answer.body).ok()?;
        (json["status"] == "success").then(|| json["data"].clone())
    }

    /// The value of the only sample that a query finds, once it finds one.
    #[track_caller]
    fn value(&self, query: &str) -> String {
        let encoded: String = query
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        let mut found = Vec::new();
        let finds = happens(LIMIT, || {
            let data = Self::api(&format!("query?query={encoded}")).unwrap_or_default();
            found = data["result"].as_array().cloned().unwrap_or_default();
            !found.is_empty()
        });
        assert!(finds, "{query}: nothing in {LIMIT:?}: {}", self.log());
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        found[0]["value"][1].as_str().expect("a value").to_owned()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.child.kill();
        } else {
            signal(&self.child, "TERM");
        }
        let _ = wait(&mut self.child, LIMIT);
    }
}

fn a_prometheus_scrapes_what_the_statistics_say() {
    let switch = busy();
    let running = Running::saying(
        switch.command("run -j --metrics 9123"),
        &format!("metrics are at http://{METRICS}/metrics"),
    );
    let prometheus = Prometheus::start();
    assert_eq!(prometheus.value("up{job=\"tapbridge\"} == 1"), "1");
    let stats = switch.stats();
    let vm1 = stats.port("vm1");
    for (query, number) in [
        ("tapbridge_port_receive_bytes_total{device=\"vm1\"}", vm1.rx.bytes),
        (
            "tapbridge_left_frames_total{device=\"vm1\",reason=\"destination_unknown\"}",
            vm1.left("destination_unknown"),
        ),
        (
            "sum(tapbridge_path_frames_total{from=\"vm1\"})",
            vm1.forwarded.frames,
        ),
        ("tapbridge_scrape_complete", 1),
        ("tapbridge_run_active", 1),
    ] {
        assert_eq!(prometheus.value(query), number.to_string(), "{query}");
    }
    // In OpenMetrics the family of a counter is called without what its samples end with.
    let metadata = ["", "_total"].map(|end| {
        let path = format!("targets/metadata?metric=tapbridge_port_receive_bytes{end}");
        Prometheus::api(&path).unwrap_or_default().to_string()
    });
    assert!(metadata.concat().contains(r#""type":"counter""#), "{metadata:?}");
    let mut rules = Vec::new();
    let evaluated = happens(LIMIT, || {
        let data = Prometheus::api("rules").unwrap_or_default();
        rules = data["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok")
    });
    assert!(evaluated, "{rules:?}");
    drop(prometheus);
    assert!(running.stop("TERM").success());
}
