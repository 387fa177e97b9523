//! A snapshot made by hand, and what it comes to in both formats.

use std::{collections::BTreeMap, time::Duration};

use super::{Families, Format, Kind, Paths};
use crate::{
    SCHEMA,
    snapshot::{
        obstacles::Obstacle,
        overview::{BridgeOverview, Overview, PortOverview},
        problem::Problem,
        statistics::{BridgeStatistics, Count, PathStatistics, PortStatistics, Statistics},
        whole::Whole,
    },
};

const fn count(frames: u64, bytes: u64) -> Count {
    Count { frames, bytes }
}

fn counted(ifname: &str) -> PortStatistics {
    PortStatistics {
        ifname: ifname.into(),
        ifindex: 7,
        attachment: 1,
        rx: count(30, 3000),
        forwarded: count(20, 2000),
        left: count(10, 1000),
        left_by_reason: BTreeMap::from([("group", 4), ("host", 6)]),
        passed_up: 7,
        passed_up_by_reason: BTreeMap::from([("generic", 7)]),
        tx: count(5, 500),
        tx_by_bridge: 3,
        tx_of_device: Some(8),
        tx_dropped: 2,
        checksums_completed: 1,
        bulk: count(6, 60_000),
        gso_frames: 6,
    }
}

fn seen(ifname: &str) -> PortOverview {
    PortOverview {
        ifname: ifname.into(),
        ifindex: 7,
        attached: true,
        kind: Some("tap"),
        hook: Some("auto"),
        hooks: vec!["tcx"],
        hook_changes: 9,
        hook_changed: Some(1),
        bypass_netfilter: false,
        state: "up",
        mtu: Some(1500),
        obstacles: Vec::new(),
        problems: Vec::new(),
    }
}

fn path(from: &str, to: Option<&str>, via: &'static str, frames: u64) -> PathStatistics {
    PathStatistics {
        from: from.into(),
        to: to.map(str::to_owned),
        via,
        frames,
        bytes: 100 * frames,
    }
}

fn whole(statistics: Vec<BridgeStatistics>, overview: Vec<BridgeOverview>) -> Whole {
    Whole {
        statistics: Statistics {
            schema: SCHEMA,
            time: "2026-11-29T12:00:00.000Z".into(),
            boot: "a boot".into(),
            uptime_ms: 1,
            since: None,
            bridges: statistics,
            unreadable: Vec::new(),
        },
        overview: Overview {
            schema: SCHEMA,
            running: true,
            bridges: overview,
            unreadable: Vec::new(),
        },
        paths: 4,
        complete: true,
        duration: Duration::from_millis(12),
    }
}

/// One bridge with one port.
fn one() -> Whole {
    let statistics = BridgeStatistics {
        bridge: Some("br0".into()),
        ports: vec![counted("vm1")],
        paths: vec![
            path("vm1", None, "tcx", 1),
            path("vm1", Some("vm2"), "xdp", 7),
            path("vm1", Some("vm2"), "tcx", 3),
            path("vm1", Some("vm3"), "xdp", 9),
        ],
    };
    let other = PortOverview {
        attached: false,
        hook: None,
        hooks: Vec::new(),
        ..seen("vm2")
    };
    let overview = BridgeOverview {
        bridge: Some("br0".into()),
        own: false,
        obstacles: vec![Obstacle {
            reason: "promiscuous",
            text: String::new(),
        }],
        ports: vec![seen("vm1"), other],
    };
    whole(vec![statistics], vec![overview])
}

/// The samples of a name.
fn samples<'text>(text: &'text str, name: &str) -> Vec<&'text str> {
    let of = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    };
    text.lines().filter(of).collect()
}

#[test]
fn both_formats_have_the_same_samples() {
    let of = |format| {
        let text = Families::of(&one(), Paths::All).render(format);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(Format::Prometheus), of(Format::OpenMetrics));
    assert!(of(Format::Prometheus).len() > 40);
}

#[test]
fn a_counter_is_declared_as_each_format_has_it() {
    let of = |format| Families::of(&one(), Paths::All).render(format);
    let (old, new) = (of(Format::Prometheus), of(Format::OpenMetrics));
    for line in [
        "# TYPE tapbridge_port_receive_bytes_total counter",
        "# TYPE tapbridge_build_info gauge",
        "# TYPE tapbridge_scrape_duration_seconds gauge",
        "tapbridge_scrape_duration_seconds 0.012",
        "tapbridge_port_receive_bytes_total{bridge=\"br0\",device=\"vm1\"} 3000",
    ] {
        assert!(old.lines().any(|found| found == line), "{line}: {old}");
    }
    assert!(!old.contains("# UNIT") && !old.contains("# EOF"));
    for line in [
        "# TYPE tapbridge_port_receive_bytes counter",
        "# UNIT tapbridge_port_receive_bytes bytes",
        "# TYPE tapbridge_build info",
        "tapbridge_port_receive_bytes_total{bridge=\"br0\",device=\"vm1\"} 3000",
    ] {
        assert!(new.lines().any(|found| found == line), "{line}: {new}");
    }
    assert!(new.ends_with("\n# EOF\n"));
}

#[test]
fn names_and_help_follow_the_conventions() {
    let families = Families::of(&one(), Paths::All);
    let mut names: Vec<_> = families
        .all()
        .iter()
        .map(|family| {
            let name = family.name();
            assert!(name.starts_with("tapbridge_"), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_info"), family.kind == Kind::Info, "{name}");
            assert!(
                !family.help.is_empty() && !family.help.ends_with('.'),
                "{name}: {}",
                family.help
            );
            name
        })
        .collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all, "{names:?}");
}

#[test]
fn what_a_port_has_and_what_it_has_not_is_told() {
    let text = Families::of(&one(), Paths::All).render(Format::Prometheus);
    let of = |name| samples(&text, name);
    assert_eq!(
        of("tapbridge_port_hook"),
        [
            "tapbridge_port_hook{bridge=\"br0\",device=\"vm1\",hook=\"tcx\"} 1",
            "tapbridge_port_hook{bridge=\"br0\",device=\"vm1\",hook=\"xdp\"} 0",
        ]
    );
    assert_eq!(
        of("tapbridge_port_info"),
        ["tapbridge_port_info{bridge=\"br0\",device=\"vm1\",kind=\"tap\",mode=\"auto\"} 1"]
    );
    assert_eq!(
        of("tapbridge_bridge_other_ports"),
        ["tapbridge_bridge_other_ports{bridge=\"br0\"} 1"]
    );
    assert_eq!(
        of("tapbridge_bridge_obstacle"),
        ["tapbridge_bridge_obstacle{bridge=\"br0\",reason=\"promiscuous\"} 1"]
    );
    assert_eq!(
        of("tapbridge_left_frames_total"),
        [
            "tapbridge_left_frames_total{bridge=\"br0\",device=\"vm1\",reason=\"group\"} 4",
            "tapbridge_left_frames_total{bridge=\"br0\",device=\"vm1\",reason=\"host\"} 6",
        ]
    );
    assert_eq!(of("tapbridge_run_active"), ["tapbridge_run_active 1"]);
}

#[test]
fn the_busiest_paths_are_told_of_and_the_rest_summed_up() {
    let of = |paths| {
        let text = Families::of(&one(), paths).render(Format::Prometheus);
        let told = samples(&text, "tapbridge_path_frames_total");
        let told = told.iter().map(|line| {
            let (_, rest) = line.split_once("from=\"vm1\",").expect("a path from vm1");
            rest.to_owned()
        });
        let omitted = ["", "_frames", "_bytes"].map(|of| {
            let name = format!("tapbridge_paths_omitted{of}");
            let sample = samples(&text, &name)[0].to_owned();
            sample.rsplit_once(' ').expect("a value").1.to_owned()
        });
        (told.collect::<Vec<_>>(), omitted)
    };
    let vm2 = ["to=\"vm2\",via=\"tcx\"} 3", "to=\"vm2\",via=\"xdp\"} 7"];
    // By both hooks it is one path, and busier than the other.
    assert_eq!(
        of(Paths::Busiest(1)),
        (
            vm2.map(str::to_owned).to_vec(),
            ["2", "10", "1000"].map(str::to_owned)
        )
    );
    let (told, omitted) = of(Paths::All);
    assert_eq!(
        told,
        [
            "to=\"\",via=\"tcx\"} 1",
            vm2[0],
            vm2[1],
            "to=\"vm3\",via=\"xdp\"} 9"
        ]
    );
    assert_eq!(omitted, ["0", "0", "0"]);
    assert_eq!(of(Paths::Busiest(0)).1, ["3", "20", "2000"]);
    for (text, paths) in [
        ("all", Paths::All),
        ("none", Paths::Busiest(0)),
        ("12", Paths::Busiest(12)),
    ] {
        assert_eq!(text.parse(), Ok(paths));
        assert_eq!(paths.to_string(), text);
    }
    for text in ["", "-1", "some", "1.5"] {
        assert!(text.parse::<Paths>().is_err(), "{text}");
    }
}

#[test]
fn two_ports_that_are_gone_and_had_one_name_are_one_sample() {
    let gone = PortStatistics {
        tx_of_device: None,
        ..counted("vm1")
    };
    let statistics = BridgeStatistics {
        bridge: None,
        ports: vec![gone.clone(), gone],
        paths: Vec::new(),
    };
    let overview = BridgeOverview {
        bridge: None,
        own: false,
        obstacles: Vec::new(),
        ports: vec![
            PortOverview {
                state: "gone",
                ..seen("vm1")
            };
            2
        ],
    };
    let text = Families::of(&whole(vec![statistics], vec![overview]), Paths::All).render(Format::Prometheus);
    let of = |name| samples(&text, name);
    assert_eq!(
        of("tapbridge_port_receive_frames_total"),
        ["tapbridge_port_receive_frames_total{bridge=\"\",device=\"vm1\"} 60"]
    );
    assert_eq!(
        of("tapbridge_port_up"),
        ["tapbridge_port_up{bridge=\"\",device=\"vm1\"} 0"]
    );
    assert_eq!(
        of("tapbridge_port_problem"),
        ["tapbridge_port_problem{bridge=\"\",device=\"vm1\",problem=\"gone\"} 1"]
    );
    // What the device counted has gone with it.
    assert!(of("tapbridge_port_transmit_dropped_total").is_empty());
    // They are ports of no bridge.
    assert!(of("tapbridge_bridge_attached_ports").is_empty());
}

#[test]
fn a_problem_is_told_by_its_name() {
    let mut whole = one();
    whole.complete = false;
    whole.overview.bridges[0].ports[0].problems.push(Problem {
        problem: "detached",
        text: String::new(),
    });
    let text = Families::of(&whole, Paths::All).render(Format::Prometheus);
    assert_eq!(
        samples(&text, "tapbridge_port_problem"),
        ["tapbridge_port_problem{bridge=\"br0\",device=\"vm1\",problem=\"detached\"} 1"]
    );
    assert_eq!(
        samples(&text, "tapbridge_scrape_complete"),
        ["tapbridge_scrape_complete 0"]
    );
}

#[test]
fn a_name_may_have_any_characters() {
    let mut whole = one();
    whole.statistics.bridges[0].ports[0].ifname = "a\"b\\c{}".into();
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let text = Families::of(&whole, Paths::All).render(format);
        let line = r#"tapbridge_port_transmit_frames_total{bridge="br0",device="a\"b\\c{}"} 5"#;
        assert!(text.lines().any(|found| found == line), "{text}");
    }
}

#[test]
fn as_json_a_family_has_its_name_type_and_samples() {
    let families = Families::of(&one(), Paths::All);
    let json = serde_json::to_value(families.all()).expect("JSON");
    let family = |name: &str| {
        let mut all = json.as_array().expect("families").iter();
        all.find(|family| family["name"] == name)
            .expect("the family")
            .clone()
    };
    let received = family("tapbridge_port_receive_frames_total");
    assert_eq!(received["type"], "counter");
    assert_eq!(
        received["samples"],
        serde_json::json!([{ "labels": { "bridge": "br0", "device": "vm1" }, "value": 30 }])
    );
    assert_eq!(
        family("tapbridge_scrape_duration_seconds")["samples"][0]["value"],
        0.012
    );
}
