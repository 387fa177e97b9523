//! A host in use: how soon new ports are attached, and what the dashboard shows.

use std::{fs, process::Command};

use crate::{
    Test, datapaths,
    program::{self, Folder},
};

pub const TESTS: &[Test] = &[(
    "new_ports_are_attached_and_no_frame_is_lost",
    new_ports_are_attached_and_no_frame_is_lost,
)];

pub const PROMETHEUS: &[Test] = &[(
    "every_query_of_the_dashboard_is_answered_and_drawn",
    every_query_of_the_dashboard_is_answered_and_drawn,
)];

fn lab(command: &str, options: &[&str]) -> Command {
    let mut lab = program::lab(command);
    lab.arg("--tapbridge").arg(datapaths::switch()).args(options);
    lab
}

/// How long they wait is the lab's to say.
fn new_ports_are_attached_and_no_frame_is_lost() {
    let output = lab("hotplug", &["--taps", "3"]).output().expect("start the lab");
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaints}");
    for words in [
        "3 taps, until they are attached",
        "from RTM_NEWLINK",
        " 0 lost, 0 doubled or overtaken",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

fn every_query_of_the_dashboard_is_answered_and_drawn() {
    let folder = Folder::new("dashboard");
    let path = folder.path().to_str().expect("a folder in ASCII");
    let output = lab("dashboard", &["--time", "20", "--output", path])
        .output()
        .expect("start the lab");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let page = fs::read_to_string(folder.path().join("dashboard.md")).expect("a page");
    let dashboard = fs::read_to_string("../monitoring/grafana-dashboard.json").expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    for title in panels.iter().filter_map(|panel| panel["title"].as_str()) {
        assert!(page.contains(title), "{title}: {page}");
    }
    // What guests do all the time can't be without data.
    let without = page
        .lines()
        .find(|line| line.contains("without data: "))
        .expect("what has none");
    for title in [
        "Frames: past the bridge, left to it",
        "Busiest paths",
        "Left to the bridge, by reason",
        "Ports by hook",
    ] {
        assert!(!without.contains(title), "{without}");
    }
    let pictures = fs::read_dir(folder.path()).expect("pictures").flatten();
    let pictures = pictures.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "png"));
    assert_eq!(pictures.count(), page.matches(".svg)").count());
}
