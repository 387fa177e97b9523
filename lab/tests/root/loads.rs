//! Workloads whose guests are stations: generators and receivers of frames.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use lab::Namespace;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    PATIENCE, Test, datapaths,
    program::{self, Folder},
    run,
};

pub const TESTS: &[Test] = &[
    ("packets_are_counted_by_length_and_by_pair", packets_are_counted),
    ("a_guest_routes_frames_and_round_trips", a_guest_routes),
    ("pairs_are_added_while_they_get_their_answers", pairs_are_added),
    (
        "round_trips_are_measured_alone_and_beside_others",
        round_trips_beside_others,
    ),
    ("interrupted_stations_end_with_the_lab", interrupted_stations_end),
    ("what_would_do_nothing_is_refused", what_does_nothing_is_refused),
    (
        "a_station_that_sends_as_fast_as_it_can_is_told_to_end",
        a_fast_station_is_told_to_end,
    ),
];

pub const MACVTAP: &[Test] = &[("packets_cross_macvtaps", packets_cross_macvtaps)];

pub const SWITCH: &[Test] = &[("packets_go_past_the_bridge_by_xdp", packets_go_past_the_bridge)];

/// Those of a lab that runs.
fn stations(lab: u32) -> Vec<u32> {
    let stations = program::children(lab).filter(|&id| program::command_line(id).contains("\0station\0"));
    stations.collect()
}

fn interrupted_stations_end() {
    let _guard = run::beside_others();
    let mut lab = program::lab("run");
    lab.args([
        "--datapath",
        "linux-bridge",
        "--workload",
        "packets",
        "--pairs",
        "2",
    ])
    .args(["--time", "60", "--repeat", "1"])
    .stdout(Stdio::null())
    .stderr(Stdio::piped());
    let mut lab = lab.spawn().expect("start the lab");
    let said = BufReader::new(lab.stderr.take().expect("a pipe"));
    let mut said = said.lines().map_while(Result::ok);
    assert!(
        said.any(|line| line.contains("packets, ") && line.ends_with(" 60 s")),
        "it never measured"
    );
    let all = stations(lab.id());
    assert_eq!(all.len(), 4);
    let flooded = || all.iter().all(|&id| program::cpu_ticks(id) > 20);
    let deadline = Instant::now() + PATIENCE;
    while !flooded() {
        assert!(Instant::now() < deadline, "stations that do nothing: {all:?}");
        thread::sleep(Duration::from_millis(20));
    }
    program::signal(&lab, Signal::SIGINT);
    said.for_each(drop);
    assert_eq!(lab.wait().expect("wait for the lab").code(), Some(130));
    assert!(
        all.iter().all(|&id| program::status(id, "State").is_none()),
        "{all:?}"
    );
    let host = format!("/run/netns/tblab-{}-host", lab.id());
    assert!(!Path::new(&host).exists(), "{host}");
}

fn a_fast_station_is_told_to_end() {
    let host = Namespace::anonymous().expect("namespace");
    let mut station = host
        .command(env!("CARGO_BIN_EXE_tapbridge-lab"))
        .expect("a command for it");
    station
        .args(["station", "--number", "1", "--tap", "fast"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut station = station.spawn().expect("start a station");
    let mut orders = station.stdin.take().expect("a pipe");
    let flow = r#"{"from": "198.18.0.1", "to": "198.18.0.2", "to_mac": [2, 0, 0, 0, 0, 2]}"#;
    let (size, hour) = (r#""64""#, 3_600_000);
    writeln!(
        orders,
        r#"{{"task": "send", "number": 1, "flow": {flow}, "size": {size}, "rate": null, "time_ms": {hour}}}"#
    )
    .expect("tell it to send");
    let deadline = Instant::now() + PATIENCE;
    while program::cpu_ticks(station.id()) < 20 {
        assert!(Instant::now() < deadline, "it sends nothing");
        thread::sleep(Duration::from_millis(20));
    }
    drop(orders);
    while station.try_wait().expect("ask for its end").is_none() {
        if Instant::now() >= deadline {
            station.kill().expect("kill it");
            station.wait().expect("wait for it");
            panic!("it goes on");
        }
        thread::sleep(Duration::from_millis(20));
    }
    let mut said = String::new();
    let mut output = station.stdout.take().expect("a pipe");
    output.read_to_string(&mut said).expect("read");
    let report: Value = serde_json::from_str(said.lines().nth(1).expect("a report")).expect("JSON");
    assert!(number(&report["sent"]) > 1000, "{report}");
    // Its frames, and hellos.
    assert!(
        number(&report["card"]["tx_frames"]) > number(&report["sent"]),
        "{report}"
    );
}

fn what_does_nothing_is_refused() {
    let said = |options: &[&str]| {
        let output = program::lab("run").args(options).output().expect("run the lab");
        assert!(!output.status.success(), "{options:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    };
    let nothing = said(&[
        "--datapath",
        "linux-bridge",
        "--workload",
        "latency",
        "--size",
        "64",
    ]);
    assert!(nothing.contains("--size would do nothing"), "{nothing}");
    let long = said(&[
        "--datapath",
        "linux-bridge",
        "--workload",
        "packets",
        "--mtu",
        "1400",
    ]);
    assert!(
        long.contains("do not fit --mtu 1400") && !long.contains("booting"),
        "{long}"
    );
    let few = said(&["--datapath", "linux-bridge", "--check", "--repeat", "2"]);
    assert!(
        few.contains("at least 3 (--repeat)") && !few.contains("booting"),
        "{few}"
    );
}

/// Has a lab measure once for a second each; returns its samples.
fn measure(datapath: &str, workload: &str, options: &[&str]) -> Value {
    let folder = Folder::new("loads");
    let _guard = run::beside_others();
    let mut lab = program::lab("run");
    lab.args([
        "--datapath",
        datapath,
        "--workload",
        workload,
        "--time",
        "1",
        "--repeat",
        "1",
        "--json",
    ])
    .args(options)
    .arg("--output")
    .arg(folder.path());
    let output = lab.output().expect("run the lab");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_reported(folder.path());
    let results: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    results["samples"][0]["runs"].clone()
}

/// What was written can be read again, and there is a plot.
fn assert_reported(folder: &Path) {
    let report = program::lab("report")
        .arg(folder.join("results.json"))
        .output()
        .expect("run the lab");
    assert!(
        report.status.success(),
        "{}",
        String::from_utf8_lossy(&report.stderr)
    );
    let page = fs::read_to_string(folder.join("report.md")).expect("a report");
    assert!(page.contains(".svg)"), "{page}");
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no count: {value}"))
}

fn packets_are_counted() {
    let runs = measure(
        "linux-bridge",
        "packets",
        &["--size", "64,imix", "--pairs", "1,2"],
    );
    let expected = [
        ("64", 1, 60..61),
        ("imix", 1, 320..400),
        ("64", 2, 60..61),
        ("imix", 2, 320..400),
    ];
    for (run, (size, pairs, length)) in runs.as_array().expect("runs").iter().zip(&expected) {
        let packets = &run["outcome"];
        assert_eq!(
            (packets["size"].as_str(), number(&packets["pairs"])),
            (Some(*size), *pairs)
        );
        let [sent, received, bytes] =
            ["sent", "received", "received_bytes"].map(|name| number(&packets[name]));
        assert!(received > 1000 && received <= sent, "{packets}");
        assert!(length.contains(&(bytes / received)), "{packets}");
        let alone = packets["pairs_alone"].as_array().expect("pairs");
        assert_eq!(alone.len() as u64, *pairs);
        assert_eq!(
            alone.iter().map(|pair| number(&pair["received"])).sum::<u64>(),
            received
        );
        assert!(
            alone.iter().all(|pair| number(&pair["received"]) > 0),
            "{packets}"
        );
        // The cards of all, also those that are idle, and hellos beside the frames.
        assert_eq!(run["others"].as_array().map(Vec::len), Some(2));
        let [client, server] = ["client", "server"].map(|role| &run[role]["card"]);
        assert!(number(&client["tx_frames"]) >= number(&alone[0]["sent"]), "{run}");
        assert!(
            number(&server["rx_frames"]) >= number(&alone[0]["received"]),
            "{run}"
        );
    }
    assert_eq!(runs.as_array().map(Vec::len), Some(expected.len()));
    let slow = measure("linux-bridge", "packets", &["--size", "64", "--rate", "200"]);
    let packets = &slow[0]["outcome"];
    // Fewer on a machine that is busy, but not by half: what is due is made up for.
    assert!((100..=201).contains(&number(&packets["sent"])), "{packets}");
    assert_eq!(packets["sent"], packets["received"]);
}

fn a_guest_routes() {
    let runs = measure("linux-bridge", "forwarding", &[]);
    let frames = &runs[0]["outcome"];
    assert_eq!(frames["workload"], "forwarding");
    assert!(number(&frames["received"]) > 1000, "{frames}");
    let router = &runs[0]["server"]["card"];
    assert!(
        number(&router["tx_frames"]) >= number(&frames["received"]),
        "{router}"
    );
    let trips = &runs[1]["outcome"];
    assert_eq!(trips["workload"], "forwarding-latency");
    assert!(number(&trips["answered"]) > 100, "{trips}");
    assert!(
        trips["percentiles_us"][0][1]
            .as_f64()
            .is_some_and(|p50| p50 > 1.0),
        "{trips}"
    );
}

fn pairs_are_added() {
    let runs = measure("linux-bridge", "density", &["--rate", "100", "--most-pairs", "3"]);
    let density = &runs[0]["outcome"];
    let steps = density["steps"].as_array().expect("steps");
    let pairs: Vec<_> = steps.iter().take(4).map(|step| number(&step["pairs"])).collect();
    assert_eq!(pairs, [1, 1, 1, 2]);
    for step in steps {
        assert_eq!(number(&step["asked"]), 100 * number(&step["pairs"]), "{step}");
        assert!(number(&step["answered"]) > 0, "{step}");
    }
    assert!((1..=3).contains(&number(&density["pairs"])), "{density}");
    let [limit, last] = ["limit_us", "p99_us"].map(|name| density[name].as_f64().expect("a time"));
    assert!(last <= limit || number(&density["pairs"]) == 1, "{density}");
}

fn round_trips_beside_others() {
    let runs = measure("linux-bridge", "mixed", &["--rate", "500"]);
    let mixed = &runs[0]["outcome"];
    for trips in ["alone", "beside"] {
        assert_eq!(number(&mixed[trips]["asked"]), 500, "{mixed}");
        assert!(number(&mixed[trips]["answered"]) > 0, "{mixed}");
    }
    assert!(number(&mixed["broadcasts"]) > 100, "{mixed}");
    assert!(
        mixed["bulk"]["gbit_per_s"]
            .as_f64()
            .is_some_and(|rate| rate > 0.05),
        "{mixed}"
    );
    // Each guest has got the broadcasts: the one that asked not its answers alone.
    let answers = number(&mixed["alone"]["answered"]) + number(&mixed["beside"]["answered"]);
    let asker = &runs[0]["others"][0]["card"];
    assert!(number(&asker["rx_frames"]) > answers + 100, "{asker}");
}

fn packets_cross_macvtaps() {
    let runs = measure("macvtap", "packets", &["--size", "64,1514"]);
    for run in runs.as_array().expect("runs") {
        assert!(number(&run["outcome"]["received"]) > 1000, "{run}");
    }
}

/// They are what XDP can carry: known unicast with a complete checksum.
fn packets_go_past_the_bridge() {
    let switch = datapaths::switch().display().to_string();
    let options = ["--tapbridge", &switch, "--size", "imix", "--rate", "2000"];
    let runs = measure("tapbridge", "packets", &options);
    let sent = number(&runs[0]["outcome"]["sent"]);
    let paths = runs[0]["stats"]["paths"].as_array().expect("paths");
    let by_xdp = paths
        .iter()
        .filter(|path| path["from"] == "vm1" && path["via"] == "xdp");
    let by_xdp: u64 = by_xdp.map(|path| number(&path["frames"])).sum();
    // All but one a second, by which the bridge knows the station.
    assert!(
        by_xdp <= sent && by_xdp + 10 > sent,
        "{by_xdp} of {sent}: {paths:?}"
    );
}
