//! The programs on the real kernel: taps in private network namespaces, attached by the real command line, and frames
//! sent and received as a VMM does. Where the machine lacks what a test needs it is ignored, and says so.

mod attach;
mod behind_our_back;
mod checksum;
mod command_line;
mod configuration;
mod conservation;
mod drops;
mod estimate;
mod fastpath;
mod fastpath_commands;
mod fastpath_vlan;
mod fdb;
mod fleet;
mod flood;
mod gso;
mod hosts;
mod hotplug;
mod interrupted;
mod learning;
mod metrics;
mod monitor;
mod mtu;
mod multi_bridge;
mod native;
mod netns;
mod oracle;
mod order;
mod output;
mod ports;
mod prometheus;
mod queueing;
mod refusals;
mod ring;
mod run;
mod schemas;
mod since;
mod state;
mod statistics;
mod status;
mod steps;
mod support;
mod syscalls;
mod syscalls_output;
mod tcp;
mod tunnels;
mod unit;
mod upgrade;
mod veth;
mod vhost_net;
mod vlan;

use std::{fs, process::ExitCode, thread};

use lab::netns as namespaces;
use libtest_mimic::Arguments;
pub use test_support::{Test, tests};
use test_support::{lacking, trials};

use crate::support::bpffs::Bpffs;

fn main() -> ExitCode {
    support::caller::play_if_told_to();
    syscalls::contain_if_told_to();
    let mut arguments = Arguments::from_args();
    // Most of a test's time is the kernel's: waiting for grace periods while programs come and go.
    arguments.test_threads = arguments
        .test_threads
        .or_else(|| thread::available_parallelism().ok().map(|cpus| 3 * cpus.get()));
    let ebtables = lacking(&["ip", "bridge", "tc", "ebtables-nft"]);
    let prometheus = lacking(&["ip", "bridge", "tc", "promtool", "prometheus"]);
    let lacking = lacking(&["ip", "bridge", "tc"]);
    let bpffs = (lacking.is_none() && !arguments.list).then(Bpffs::new);
    let lacking = lacking.as_deref();
    let tracing = lacking.or_else(|| lacking_tracepoints().then_some("needs tracefs"));
    let compat = lacking.or_else(|| (!support::caller::has_compat_calls()).then_some("needs 32-bit calls"));
    let public = lacking.or_else(|| {
        (!command_line::others_may_execute_it()).then_some("needs a binary that others may execute")
    });
    let unit = public
        .map(str::to_owned)
        .or_else(|| test_support::lacking(&["setpriv", "unshare"]));
    let two_cpus = lacking.map(str::to_owned).or_else(lacking_cpus);
    let steps = lacking
        .map(str::to_owned)
        .or_else(|| test_support::lacking(&[support::steps::PROGRAM]));
    let vhost = lacking.map(str::to_owned).or_else(lacking_vhost);
    let vlans = lacking.map(str::to_owned).or_else(lacking_vlans);
    let routing = lacking
        .map(str::to_owned)
        .or_else(|| fleet::lacking().map(str::to_owned));
    let rules = lacking
        .map(str::to_owned)
        .or_else(|| test_support::lacking(&["nft"]));
    let qemu = lacking.map(str::to_owned).or_else(hosts::lacking_qemu);
    let trials = [
        trials("attach", attach::TESTS, lacking),
        trials("behind_our_back", behind_our_back::TESTS, lacking),
        trials("checksum", checksum::TESTS, lacking),
        trials("command_line", command_line::TESTS, lacking),
        trials("command_line", command_line::UNPRIVILEGED_TESTS, public),
        trials("configuration", configuration::TESTS, lacking),
        trials("configuration", configuration::UNPRIVILEGED_TESTS, public),
        trials("conservation", conservation::TESTS, lacking),
        trials("drops", drops::TESTS, lacking),
        trials("estimate", estimate::TESTS, lacking),
        trials("estimate", estimate::FILTER_TESTS, rules.as_deref()),
        trials("estimate", estimate::VLAN_TESTS, vlans.as_deref()),
        trials("fastpath", fastpath::TESTS, lacking),
        trials("fastpath", fastpath::EBTABLES_TESTS, ebtables.as_deref()),
        trials("fastpath_commands", fastpath_commands::TESTS, lacking),
        trials("fastpath_vlan", fastpath_vlan::TESTS, vlans.as_deref()),
        trials("fdb", fdb::TESTS, lacking),
        trials("fleet", fleet::TESTS, routing.as_deref()),
        trials("flood", flood::TESTS, lacking),
        trials("gso", gso::TESTS, lacking),
        trials("hotplug", hotplug::TESTS, lacking),
        trials("hosts", &hosts::TESTS.concat(), lacking),
        trials("hosts", &hosts::FILTER_TESTS.concat(), rules.as_deref()),
        trials("hosts", hosts::VLAN_TESTS, vlans.as_deref()),
        trials("hosts", hosts::QEMU_TESTS, qemu.as_deref()),
        trials("interrupted", interrupted::TESTS, lacking),
        trials("learning", learning::TESTS, lacking),
        trials("metrics", metrics::TESTS, lacking),
        trials("monitor", monitor::TESTS, lacking),
        trials("mtu", mtu::TESTS, lacking),
        trials("native", native::TESTS, tracing),
        trials("netns", netns::TESTS, lacking),
        trials("oracle", &oracle::TESTS.concat(), lacking),
        trials("oracle", oracle::EBTABLES_TESTS, ebtables.as_deref()),
        trials("order", order::TESTS, two_cpus.as_deref()),
        trials("output", output::TESTS, lacking),
        trials("ports", ports::TESTS, lacking),
        trials("prometheus", prometheus::TESTS, prometheus.as_deref()),
        trials("queueing", queueing::TESTS, lacking),
        trials("refusals", refusals::TESTS, lacking),
        trials("ring", ring::TESTS, lacking),
        trials("run", run::TESTS, lacking),
        trials("schemas", schemas::TESTS, lacking),
        trials("since", since::TESTS, lacking),
        trials("multi_bridge", multi_bridge::TESTS, lacking),
        trials("state", state::TESTS, lacking),
        trials("statistics", statistics::TESTS, lacking),
        trials("status", status::TESTS, lacking),
        trials("status", status::UNPRIVILEGED_TESTS, public),
        trials("steps", steps::TESTS, steps.as_deref()),
        trials("steps", steps::EVERY_TESTS, steps::left_out().as_deref()),
        trials("syscalls", syscalls::TESTS, lacking),
        trials("syscalls_output", syscalls_output::TESTS, lacking),
        trials("syscalls_output", syscalls_output::TRACING_TESTS, tracing),
        trials("syscalls_output", syscalls_output::COMPAT_TESTS, compat),
        trials("tcp", tcp::TESTS, lacking),
        trials("tunnels", tunnels::TESTS, lacking),
        trials("unit", unit::TESTS, unit.as_deref()),
        trials("upgrade", upgrade::TESTS, lacking),
        trials("veth", veth::TESTS, lacking),
        trials("vhost_net", vhost_net::TESTS, vhost.as_deref()),
        trials("vlan", vlan::TESTS, lacking),
    ];
    let conclusion = libtest_mimic::run(&arguments, trials.into_iter().flatten().collect());
    oracle::remove_all();
    drop(bpffs);
    conclusion.exit_code()
}

fn lacking_cpus() -> Option<String> {
    let cpus = thread::available_parallelism();
    cpus.is_ok_and(|cpus| cpus.get() < 2)
        .then(|| "needs two CPUs".into())
}

fn lacking_vhost() -> Option<String> {
    let device = support::vhost_net::DEVICE;
    fs::metadata(device).is_err().then(|| format!("needs {device}"))
}

fn lacking_vlans() -> Option<String> {
    let can = namespaces::can_filter_vlans().is_ok_and(|can| can);
    (!can).then(|| "needs a bridge that filters VLANs".into())
}

fn lacking_tracepoints() -> bool {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    !filesystems.lines().any(|line| line.ends_with("tracefs"))
}
