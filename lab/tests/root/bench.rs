//! The bench: that it measures every datapath, and that it leaves nothing behind.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    Test, datapaths,
    program::{self, Folder},
    watching,
};

pub const TESTS: &[Test] = &[
    (
        "the_bench_measures_every_datapath_and_leaves_nothing_but_its_results",
        the_bench_measures,
    ),
    (
        "an_interrupted_bench_leaves_nothing_behind",
        an_interrupted_bench_leaves_nothing,
    ),
];

const CASES: &str = "64,1514-partial,tso4,mix,broadcast-8,round-trip,one-way,steady-read,\
    storm,vxlan-uplink,vlan-tagged,vlan-tag-added";

fn bench(options: &[&str]) -> Command {
    let mut bench = program::lab("bench");
    bench.arg("--tapbridge").arg(datapaths::switch()).args(options);
    bench
}

fn the_bench_measures() {
    let folder = Folder::new("bench");
    let output = folder.path().to_str().expect("a folder in ASCII");
    let options = [
        "--rounds", "1", "--turn", "1", "--json", "--case", CASES, "--output", output,
    ];
    let (run, seen) = watching::run_to_end(&mut bench(&options));
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_watched(&seen);
    let results: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    assert_eq!(results["schema"], 1);
    assert!(results["machine"]["kernel"].is_string(), "{results}");
    let measured = results["measured"].as_array().expect("a list");
    for own in measured {
        let median = own["median"].as_f64().expect("a number");
        assert!((0.1..1e9).contains(&median), "{own}");
        // Only a writer that does not wait for the reader finds its ring full.
        assert!(own["case"] == "one-way" || own["lost"] == 0, "{own}");
    }
    let text = |own: &Value, name: &str| own[name].as_str().expect("a word").to_owned();
    let of = |case: &str| -> BTreeSet<String> {
        let of_case = measured.iter().filter(|own| own["case"] == case);
        of_case.map(|own| text(own, "datapath")).collect()
    };
    let all = [
        "floor-tcx",
        "floor-xdp",
        "linux-bridge",
        "macvtap",
        "tapbridge-auto",
        "tapbridge-tcx",
        "tapbridge-xdp",
    ];
    assert_eq!(of("64"), all.map(String::from).into());
    assert_eq!(of("tso4").len(), 6);
    assert_eq!(of("mix").len(), 5);
    assert_eq!(of("broadcast-8").len(), 4);
    assert_eq!(of("steady-read").len(), 2);
    assert_eq!(of("storm").len(), 3);
    // What this kernel can't do is named, and nothing else.
    let not_measured = results["not_measured"].as_array().expect("a list");
    for case in ["vlan-tagged", "vlan-tag-added", "vxlan-uplink"] {
        let named = not_measured.iter().filter(|not| not["case"] == case).count();
        assert_eq!(
            of(case).len(),
            if named == 0 { 3 } else { 0 },
            "{case}: {results}"
        );
    }
    assert!(not_measured.iter().all(|not| of(&text(not, "case")).is_empty()));
    assert_ratios(&results);
    assert_written(folder.path());
}

/// Those who watch are there when frames are measured, one for each of four cases, and have ended when the bench draws
/// its plots.
fn assert_watched(seen: &[BTreeSet<u32>]) {
    let most = seen.iter().max_by_key(|watchers| watchers.len()).expect("a look");
    assert_eq!(most.len(), 4, "{most:?}");
    let last = seen.last().expect("a look");
    assert!(last.is_empty(), "{last:?}");
    assert_eq!(watching::left(most), [0; 0]);
}

/// What the times are is the bench's to say; here only that ratios are those of the times. Of one round the median is
/// the minimum.
fn assert_ratios(results: &Value) {
    let number = |value: &Value| value.as_f64().expect("a number");
    let value = |datapath: &Value, case: &Value, figure: &Value| {
        let measured = results["measured"].as_array().expect("a list");
        let same =
            |one: &&Value| (&one["datapath"], &one["case"], &one["figure"]) == (datapath, case, figure);
        number(&measured.iter().find(same).expect("measured")["min"])
    };
    let ratios = results["ratios"].as_array().expect("a list");
    assert!(ratios.len() > 20, "{}", ratios.len());
    for ratio in ratios {
        let of = |datapath| value(datapath, &ratio["case"], &ratio["figure"]);
        let quotient = of(&ratio["datapath"]) / of(&ratio["to"]);
        for kind in ["min", "median"] {
            assert!((number(&ratio[kind]) / quotient - 1.0).abs() < 1e-6, "{ratio}");
        }
    }
}

fn assert_written(folder: &Path) {
    let page = fs::read_to_string(folder.join("bench.md")).expect("a page");
    assert!(page.contains("| 64 B | ns/frame | tapbridge-xdp |"), "{page}");
    for plot in [
        "frames",
        "bulk",
        "mix",
        "broadcast",
        "beside",
        "uplink",
        "round-trip",
        "threads",
        "statistics",
    ] {
        let svg = fs::read(folder.join(format!("{plot}.svg"))).expect("a plot");
        assert!(svg.starts_with(b"<svg"), "{plot}");
        assert!(folder.join(format!("{plot}.png")).exists(), "{plot}");
        assert!(page.contains(&format!("({plot}.svg)")), "{page}");
    }
    assert!(folder.join("bench.json").exists());
}

fn an_interrupted_bench_leaves_nothing() {
    let mut bench = bench(&["--case", "64,broadcast-8", "--rounds", "1000"]);
    // Its pins lie in a bpffs of its own, which goes with the last process that sees it.
    let mounts = watching::assert_ends_watched(&mut bench, "round 2 ", Signal::SIGINT, |id| {
        let mounts = fs::read_link(format!("/proc/{id}/ns/mnt")).expect("the bench's mounts");
        assert_ne!(mounts, fs::read_link("/proc/self/ns/mnt").expect("the test's"));
        mounts
    });
    let left = program::processes()
        .filter(|id| fs::read_link(format!("/proc/{id}/ns/mnt")).is_ok_and(|others| others == mounts));
    assert_eq!(left.collect::<Vec<_>>(), [0; 0]);
}
