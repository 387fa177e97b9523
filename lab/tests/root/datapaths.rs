//! What the lab's datapaths other than the Linux bridge do with guests that are namespaces.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use crate::{Test, run};

pub const MACVTAP: &[Test] = &[(
    "over_macvtaps_nothing_is_lost_and_segments_stay_whole",
    nothing_is_lost_over_macvtaps,
)];

pub const CHECKS: &[Test] = &[("files_cross_macvtaps_and_the_linux_bridge", files_cross_macvtaps)];

pub const SWITCH_CHECKS: &[Test] = &[("files_cross_the_switch", files_cross_the_switch)];

pub const OVS: &[Test] = &[(
    "over_open_vswitch_nothing_is_lost_and_the_report_says_which_it_was",
    nothing_is_lost_over_open_vswitch,
)];

pub const NO_OVS: &[Test] = &[(
    "without_open_vswitch_the_lab_names_its_package_and_starts_nothing",
    without_open_vswitch_nothing_starts,
)];

fn nothing_is_lost_over_macvtaps() {
    let report = run::measure("macvtap");
    assert_eq!(report["summary"][0]["lost"], 0, "{report}");
    let to_server = &report["samples"][0]["pumps"][1]["to_guest"];
    let [bytes, frames] = ["bytes", "frames"].map(|field| to_server[field].as_u64().expect("a number"));
    assert!(bytes / frames > 1514, "{to_server}");
}

fn nothing_is_lost_over_open_vswitch() {
    let report = run::measure("ovs");
    assert_eq!(report["summary"][0]["lost"], 0, "{report}");
    let facts = report["samples"][0]["datapath_facts"].as_str();
    assert!(
        facts.is_some_and(|facts| facts.starts_with("Open vSwitch ") && facts.contains(" datapath")),
        "{facts:?}"
    );
}

fn without_open_vswitch_nothing_starts() {
    let _guard = run::beside_others();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_tapbridge-lab"));
    let output = lab
        .args(["run", "--datapath", "linux-bridge,ovs"])
        .output()
        .expect("run the lab");
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("apt-get install openvswitch-switch"), "{stderr}");
    assert!(!stderr.contains("booting"), "{stderr}");
}

fn files_cross_macvtaps() {
    check(
        &["--datapath", "macvtap,linux-bridge"],
        &["macvtap", "linux-bridge"],
    );
}

fn files_cross_the_switch() {
    let program = switch().display().to_string();
    check(
        &["--datapath", "tapbridge", "--tapbridge", &program],
        &["tapbridge"],
    );
}

/// This project's switch, where cargo puts it when it builds the whole workspace.
pub fn switch() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tapbridge-lab")).with_file_name("tapbridge")
}

/// Has the lab check datapaths; each is to carry pings and files, two ways, by IPv4 and IPv6.
fn check(arguments: &[&str], datapaths: &[&str]) {
    let _guard = run::beside_others();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_tapbridge-lab"));
    let output = lab.arg("check").args(arguments).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("run the lab");
    let stdout = String::from_utf8_lossy(&stdout);
    assert!(status.success(), "{stdout}{}", String::from_utf8_lossy(&stderr));
    for datapath in datapaths {
        let lines = stdout
            .lines()
            .filter(|line| line.starts_with(datapath) && line.ends_with(": ok"));
        assert_eq!(lines.count(), 8, "{stdout}");
    }
}
