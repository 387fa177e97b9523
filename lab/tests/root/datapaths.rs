//! What the lab's datapaths other than the Linux bridge do with guests that are namespaces.

use std::{env, path::PathBuf, process::Output};

use serde_json::Value;

use crate::{Test, program, run};

pub const MACVTAP: &[Test] = &[(
    "over_macvtaps_nothing_is_lost_and_segments_stay_whole",
    nothing_is_lost_over_macvtaps,
)];

pub const CHECKS: &[Test] = &[("files_cross_macvtaps_and_the_linux_bridge", files_cross_macvtaps)];

pub const SWITCH_CHECKS: &[Test] = &[("files_cross_the_switch", files_cross_the_switch)];

pub const VIRTUAL_MACHINES: &[Test] = &[(
    "files_cross_the_switch_between_virtual_machines_and_all_counts_agree",
    files_cross_between_virtual_machines,
)];

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
    assert_nothing_lost(&report);
    let to_server = &report["samples"][0]["pumps"][1]["to_guest"];
    let [bytes, frames] = ["bytes", "frames"].map(|field| to_server[field].as_u64().expect("a number"));
    assert!(bytes / frames > 1514, "{to_server}");
}

fn nothing_is_lost_over_open_vswitch() {
    let report = run::measure("ovs");
    assert_nothing_lost(&report);
    let facts = report["samples"][0]["datapath_facts"].as_str();
    assert!(
        facts.is_some_and(|facts| facts.starts_with("Open vSwitch ") && facts.contains(" datapath")),
        "{facts:?}"
    );
}

fn assert_nothing_lost(results: &Value) {
    let sample = &results["samples"][0];
    for pump in sample["pumps"].as_array().expect("two pumps") {
        for direction in ["to_host", "to_guest"] {
            assert_eq!(pump[direction]["dropped"], 0, "{pump}");
        }
    }
    assert_eq!(sample["runs"][1]["outcome"]["dropped"], 0, "{sample}");
}

fn without_open_vswitch_nothing_starts() {
    let _guard = run::beside_others();
    let output = program::lab("run")
        .args(["--datapath", "linux-bridge,ovs"])
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
    let checked = check_switch(&[]);
    assert_all_counts_agree(&checked);
}

fn files_cross_between_virtual_machines() {
    let folder = virtual_machines().expect("main has asked");
    let checked = check_switch(&["--guest", "qemu", "--vm", &folder.display().to_string()]);
    assert_all_counts_agree(&checked);
}

fn check_switch(guests: &[&str]) -> String {
    let program = switch().display().to_string();
    let datapath = ["--datapath", "tapbridge", "--tapbridge", &program];
    check(&[&datapath, guests].concat(), &["tapbridge"])
}

/// The guests', the VMMs' and the switch's, two ways.
fn assert_all_counts_agree(checked: &str) {
    for count in [
        "frames: ok",
        "called writev",
        "called read",
        "tapbridge received",
        "were sent to",
    ] {
        let lines = checked.lines().filter(|line| line.contains(count));
        assert!(lines.count() >= 2, "{count}: {checked}");
    }
}

/// The folder with their packages, from whoever has set them up.
pub fn virtual_machines() -> Option<PathBuf> {
    env::var_os("TAPBRIDGE_VM").map(PathBuf::from)
}

/// This project's switch, where cargo puts it when it builds the whole workspace.
pub fn switch() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tapbridge-lab")).with_file_name("tapbridge")
}

/// Has the lab check datapaths; each is to carry pings and files, two ways, by IPv4 and IPv6. Returns what it says.
fn check(arguments: &[&str], datapaths: &[&str]) -> String {
    let _guard = run::beside_others();
    let output = program::lab("check").args(arguments).output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("run the lab");
    let stdout = String::from_utf8_lossy(&stdout);
    assert!(status.success(), "{stdout}{}", String::from_utf8_lossy(&stderr));
    for datapath in datapaths {
        for what in ["ping", "file"] {
            let start = format!("{datapath}: {what} from ");
            let lines = stdout
                .lines()
                .filter(|line| line.starts_with(&start) && line.ends_with(": ok"));
            assert_eq!(lines.count(), 4, "{what}: {stdout}");
        }
    }
    stdout.into_owned()
}
