//! Tests of the lab on the real kernel. Where the machine lacks what they need they are ignored, and say so.

mod bench;
mod datapaths;
mod devices;
mod live;
mod loads;
mod macvtap;
mod program;
mod pump;
mod report;
mod run;
mod scripts;
mod steady;
mod watching;

use std::{
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use lab::Namespace;
use libtest_mimic::Arguments;
pub use test_support::Test;
use test_support::{lacking, trials};

/// Long enough for a frame to arrive, or for processes to come and go, on a very busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let devices = lacking(&["ip"]);
    let programs = lacking(&["ip", "iperf3", "sockperf"]);
    let macvtap = devices.clone().or_else(lacking_macvtap);
    let measured_macvtap = programs.clone().or_else(|| macvtap.clone());
    let ovs = programs
        .clone()
        .or_else(|| lacking(&["ovs-vswitchd", "ovsdb-server", "ovs-vsctl"]));
    let no_ovs = programs.clone().or_else(|| {
        lacking(&["ovs-vswitchd"])
            .is_none()
            .then(|| "Open vSwitch is here".into())
    });
    let scripts = programs
        .clone()
        .or_else(|| lacking(&["jq", "nsenter"]))
        .or_else(lacking_switch);
    let busybox = programs.clone().or_else(|| lacking(&["busybox"]));
    let checked_macvtap = busybox.clone().or_else(|| macvtap.clone());
    let measured_switch = programs.clone().or_else(lacking_switch);
    let steady = programs.clone().or_else(steady::lacking);
    let switch = busybox.or_else(lacking_switch);
    let benched = macvtap.clone().or_else(lacking_switch);
    let live = lacking(&["ip", "bridge"]).or_else(lacking_switch);
    let prometheus = live.clone().or_else(|| lacking(&["prometheus", "promtool"]));
    let machines = lacking(&["ip"]).or_else(lacking_switch).or_else(lacking_machines);
    let trials = [
        trials("", bench::TESTS, benched.as_deref()),
        trials("", macvtap::TESTS, macvtap.as_deref()),
        trials("", datapaths::MACVTAP, measured_macvtap.as_deref()),
        trials("", datapaths::OVS, ovs.as_deref()),
        trials("", datapaths::NO_OVS, no_ovs.as_deref()),
        trials("", datapaths::CHECKS, checked_macvtap.as_deref()),
        trials("", datapaths::SWITCH_CHECKS, switch.as_deref()),
        trials("", datapaths::VIRTUAL_MACHINES, machines.as_deref()),
        trials("", devices::TESTS, devices.as_deref()),
        trials("", live::TESTS, live.as_deref()),
        trials("", live::PROMETHEUS, prometheus.as_deref()),
        trials("", loads::TESTS, programs.as_deref()),
        trials("", loads::MACVTAP, measured_macvtap.as_deref()),
        trials("", loads::SWITCH, measured_switch.as_deref()),
        trials("", pump::TESTS, devices.as_deref()),
        trials("", run::TESTS, programs.as_deref()),
        trials("", steady::TESTS, steady.as_deref()),
        trials("", report::TESTS, measured_switch.as_deref()),
        trials("", watching::TESTS, measured_switch.as_deref()),
        trials("", scripts::TESTS, scripts.as_deref()),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

/// Whether the kernel makes macvtaps can only be tried: their driver is loaded when the first one is made.
fn lacking_macvtap() -> Option<String> {
    let namespace = Namespace::anonymous().expect("namespace");
    let makes = |arguments: &str| {
        let mut ip = Command::new("ip");
        ip.args(arguments.split(' ')).stderr(Stdio::null());
        namespace
            .run(move || ip.status())
            .is_ok_and(|status| status.success())
    };
    let made = makes("link add lower type veth peer name lower-peer")
        && makes("link add vm1 link lower type macvtap mode bridge");
    (!made).then(|| "needs the kernel's macvtap".into())
}

fn lacking_machines() -> Option<String> {
    datapaths::virtual_machines()
        .is_none()
        .then(|| "needs TAPBRIDGE_VM, which 'cargo xtask test' sets".into())
}

fn lacking_switch() -> Option<String> {
    let there = datapaths::switch().exists();
    (!there).then(|| "needs tapbridge: 'cargo build -p bridge-user'".into())
}
