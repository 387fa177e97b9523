//! Commands that are killed, or refused something, at each of their steps while a guest sends: none of its frames is lost,
//! doubled or overtaken, and the next command puts right what is left.

use std::{env, os::unix::process::ExitStatusExt as _, process::Child};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use lab::Tap;
use tapbridge::common::fastpath::VERSION;

use super::configuration::File;
use crate::support::{
    earlier::set_version,
    frames::{mac, text},
    linux_bridge::{introduce, linux_bridge},
    load::under_load,
    program::{LIMIT, Output, bridge, happens, link, run, signal, wait},
    running::Running,
    steps::{Fault, Step, command_with, run_with, steps},
    switch::{Switch, command_in},
};

crate::tests![
    an_upgrade_that_is_refused_something_goes_back_to_what_was,
    an_upgrade_that_is_refused_all_from_a_step_on_is_put_right_by_the_next_command,
    an_upgrade_that_is_killed_is_put_right_by_the_next_command,
    an_attach_that_is_killed_is_undone_by_the_next_command,
    an_attach_of_further_ports_that_is_killed_is_undone_by_the_next_command,
    a_detach_that_is_killed_is_finished_by_the_next_command,
    a_detach_of_all_that_is_killed_is_finished_by_the_next_command,
    a_run_that_is_killed_as_it_attaches_is_gone_on_with_by_the_next_one,
    what_a_newer_version_has_pinned_is_refused_and_goes_on,
];

/// Says of the others that they leave nothing out.
pub const EVERY_TESTS: &[crate::Test] = &[("no_step_is_left_out", || assert_eq!(left_out(), None))];

/// Whoever has the time sets it.
const EVERY: &str = "TAPBRIDGE_EVERY_STEP";
/// Of how many steps one is tried where there is less time, besides the last and those by which folders change places.
const FEW: usize = 3;

/// Why not every step is tried.
pub fn left_out() -> Option<String> {
    let tells = || format!("needs {EVERY}=1, for two minutes more: one step in {FEW} is tried");
    env::var_os(EVERY).is_none().then(tells)
}

/// Those of a command's steps that are tried.
fn tried(steps: Vec<Step>) -> Vec<Step> {
    let last = steps.len() - 1;
    let every = left_out().is_none();
    let steps = steps.into_iter().enumerate();
    steps
        .filter(|(place, step)| every || place % FEW == 0 || *place == last || step.call == "renameat2")
        .map(|(_, step)| step)
        .collect()
}

/// Three taps that are ports of br0, the first of which may send to the second for as long as it takes.
fn bridged() -> Switch {
    let switch = linux_bridge(3, false);
    introduce(&switch.taps::<3>());
    bridge(&format!("fdb replace {} dev vm2 master static", text(mac(2))));
    switch
}

fn talkers(switch: &Switch) -> [&Tap; 2] {
    ["vm1", "vm2"].map(|name| switch.tap(name))
}

/// Ids of the programs at a port: XDP's, if there is one, and tcx's.
fn programs(device: &str) -> (Option<u64>, Vec<u32>) {
    let (_, tcx) = SchedClassifier::query_tcx(device, TcAttachType::Ingress).expect("list tcx programs");
    let xdp = link(device).expect("a device")["xdp"]["prog"]["id"].as_u64();
    (xdp, tcx.iter().map(ProgramInfo::id).collect())
}

/// Whether all ports have the same programs at both hooks, and no others.
#[track_caller]
fn assert_whole(ports: &[&str], context: &str) {
    let first = programs(ports[0]);
    assert!(first.0.is_some() && first.1.len() == 1, "{context}: {first:?}");
    for port in ports {
        assert_eq!(programs(port), first, "{context}: {port}");
    }
}

#[track_caller]
fn assert_bare(ports: &[&str], context: &str) {
    for port in ports {
        assert_eq!(programs(port), (None, vec![]), "{context}: {port}");
    }
}

/// How many frames of a port are counted, while it sends.
#[track_caller]
fn counted(switch: &Switch, port: &str) -> u64 {
    let statistics = run(command_in(switch.state(), &format!("stats {port} -j"))).json();
    let frames = statistics["bridges"][0]["ports"][0]["rx"]["frames"].as_u64();
    frames.unwrap_or_else(|| panic!("no frames: {statistics}"))
}

/// Leaves those steps out that come before a command makes a folder for what it pins, if it makes one: it has loaded programs by
/// then, of which nothing stays.
fn leave_loading_out(steps: &mut Vec<Step>) {
    if let Some(place) = steps.iter().rposition(|step| step.call.starts_with("mkdir")) {
        steps.drain(..place);
    }
}

/// The steps of a command that ends by itself.
fn steps_of(switch: &Switch, words: &str) -> Vec<Step> {
    let steps = steps(switch, words, |mut child| {
        let status = wait(&mut child, LIMIT).unwrap_or_else(|| panic!("{words} takes more than {LIMIT:?}"));
        assert!(status.success(), "{words}: {status}");
    });
    assert!(steps.len() > 10, "{steps:?}");
    steps
}

/// Whether a command has met its fault, which must show in how it has ended.
#[track_caller]
fn has_failed(output: &Output, fault: Fault, context: &str) -> bool {
    if output.status.success() {
        // It had fewer steps this time, or does without what it was refused, or has asked again.
        return false;
    }
    if fault == Fault::Killed {
        assert_eq!(output.status.signal(), Some(9), "{context}: {output}");
    } else {
        assert_eq!(output.code(), Some(1), "{context}: {output}");
        assert!(output.stderr.contains("tapbridge: "), "{context}: {output}");
    }
    true
}

/// An upgrade with this fault at each step, one after the other.
fn upgrade_at_each_step(fault: Fault) {
    let switch = bridged();
    let all = ["vm1", "vm2"];
    switch.ok("attach vm1 vm2 --hook xdp");
    let mut steps = steps_of(&switch, "upgrade");
    if fault != Fault::Refused {
        leave_loading_out(&mut steps);
    }
    let steps = tried(steps);
    let exchange = steps.iter().position(|step| step.call == "renameat2");
    let exchange = exchange.expect("the folders change places");
    let mut failed = 0;
    let mut counted_before = counted(&switch, "vm1");
    under_load(talkers(&switch), || {
        for (place, step) in steps.iter().enumerate() {
            let context = format!("{fault:?} at {step}");
            let before = programs("vm1");
            let output = run_with(&switch, "upgrade", step, fault);
            let has_failed = has_failed(&output, fault, &context);
            failed += usize::from(has_failed);
            for port in all {
                let (xdp, tcx) = programs(port);
                assert!(
                    xdp.is_some() && tcx.len() == 1,
                    "{context}: {port}: {xdp:?} {tcx:?}"
                );
            }
            let counted_after = counted(&switch, "vm1");
            assert!(
                counted_after >= counted_before,
                "{context}: {counted_after} after {counted_before}"
            );
            if fault != Fault::Refused {
                switch.ok("attach vm1");
            }
            assert_whole(&all, &context);
            // The folders have changed places once the new programs are the ones that there are.
            let is_back = programs("vm1") == before;
            assert_eq!(is_back, has_failed && place <= exchange, "{context}: {output}");
            let goes_on = || {
                counted_before = counted(&switch, "vm1");
                counted_before > counted_after
            };
            assert!(happens(LIMIT, goes_on), "{context}: nothing more is counted");
            let last = programs("vm1");
            if fault == Fault::Refused && place > exchange {
                // The next one would begin with what this one has left beside.
                switch.ok("attach vm1");
            }
            if place % 8 == 0 || place + 1 == steps.len() {
                switch.ok("upgrade");
                assert_whole(&all, &context);
                assert_ne!(programs("vm1"), last, "{context}");
            }
        }
    });
    assert!(
        failed > steps.len() / 2,
        "{failed} of {} have failed",
        steps.len()
    );
}

fn an_upgrade_that_is_refused_something_goes_back_to_what_was() {
    upgrade_at_each_step(Fault::Refused);
}

fn an_upgrade_that_is_refused_all_from_a_step_on_is_put_right_by_the_next_command() {
    upgrade_at_each_step(Fault::AllRefused);
}

fn an_upgrade_that_is_killed_is_put_right_by_the_next_command() {
    upgrade_at_each_step(Fault::Killed);
}

/// Kills a command at each of its steps. `begin` makes what it begins with, `repair` is the next command, which ends in what
/// `check` expects.
fn kill_at_each_step(switch: &Switch, words: &str, begin: impl Fn(), repair: &str, check: impl Fn(&str)) {
    begin();
    let mut steps = steps_of(switch, words);
    leave_loading_out(&mut steps);
    let steps = tried(steps);
    let mut killed = 0;
    under_load(talkers(switch), || {
        for step in &steps {
            begin();
            let context = format!("'{words}' killed at {step}");
            let output = run_with(switch, words, step, Fault::Killed);
            killed += usize::from(has_failed(&output, Fault::Killed, &context));
            // What is seen meanwhile can be read.
            switch.ok("stats");
            switch.ok(repair);
            check(&context);
        }
    });
    assert!(
        killed > steps.len() / 2,
        "{killed} of {} were killed",
        steps.len()
    );
}

fn an_attach_that_is_killed_is_undone_by_the_next_command() {
    let switch = bridged();
    kill_at_each_step(
        &switch,
        "attach vm1 vm2 --hook xdp",
        || (),
        "detach --all",
        |context| {
            assert!(!switch.state().exists(), "{context}");
            assert_bare(&["vm1", "vm2", "vm3"], context);
        },
    );
}

fn an_attach_of_further_ports_that_is_killed_is_undone_by_the_next_command() {
    let switch = bridged();
    switch.ok("attach vm3 --hook xdp");
    kill_at_each_step(
        &switch,
        "attach vm1 vm2 --hook xdp",
        || drop(switch.tapbridge("detach vm1 vm2")),
        "attach vm1 vm2 vm3 --hook xdp",
        |context| assert_whole(&["vm1", "vm2", "vm3"], context),
    );
}

fn a_detach_that_is_killed_is_finished_by_the_next_command() {
    let switch = bridged();
    switch.ok("attach vm3 --hook xdp");
    kill_at_each_step(
        &switch,
        "detach vm1 vm2",
        || drop(switch.ok("attach vm1 vm2 --hook xdp")),
        // Names what is attached no more, perhaps.
        "attach vm1 vm2 vm3 --hook xdp",
        |context| assert_whole(&["vm1", "vm2", "vm3"], context),
    );
}

fn a_detach_of_all_that_is_killed_is_finished_by_the_next_command() {
    let switch = bridged();
    kill_at_each_step(
        &switch,
        "detach --all",
        || drop(switch.ok("attach --master br0 --hook xdp")),
        "detach --all",
        |context| {
            assert!(!switch.state().exists(), "{context}");
            assert_bare(&["vm1", "vm2", "vm3"], context);
        },
    );
}

fn a_run_that_is_killed_as_it_attaches_is_gone_on_with_by_the_next_one() {
    let switch = bridged();
    let file = File::new("[[bridge]]\nname = \"br0\"\nhook = \"xdp\"");
    let all = ["vm1", "vm2", "vm3"];
    let words = format!("run -j --config {}", file.path());
    let has_all = || {
        let ports = switch.all_shown();
        ports.iter().filter(|port| port["attached"] == true).count() == all.len()
    };
    let begin = || {
        switch.ok("attach vm3 --hook xdp");
        drop(switch.tapbridge("detach vm1 vm2"));
    };
    begin();
    let steps = steps(&switch, &words, |mut child: Child| {
        assert!(happens(LIMIT, has_all), "not all are attached in {LIMIT:?}");
        signal(&child, "TERM");
        wait(&mut child, LIMIT).expect("run ends when it is asked to");
    });
    let steps = tried(steps);
    under_load(talkers(&switch), || {
        for step in &steps {
            begin();
            let context = format!("killed at {step}");
            let mut killed = command_with(&switch, &words, step, Fault::Killed)
                .spawn()
                .expect("start strace");
            let status = wait(&mut killed, LIMIT);
            assert_eq!(status.and_then(|status| status.signal()), Some(9), "{context}");
            switch.ok("show");
            let running = Running::saying(
                switch.command(&words),
                &format!("{}: 1 rule is followed", file.path()),
            );
            assert!(happens(LIMIT, has_all), "{context}: {}", switch.json("show"));
            assert!(running.stop("TERM").success(), "{context}");
            assert_whole(&all, &context);
        }
    });
}

fn what_a_newer_version_has_pinned_is_refused_and_goes_on() {
    let switch = bridged();
    switch.ok("attach --master br0 --hook xdp");
    let folder = switch.folder().expect("something pinned");
    let before = ["vm1", "vm2", "vm3"].map(programs);
    under_load(talkers(&switch), || {
        let counted_before = counted(&switch, "vm1");
        set_version(&folder, VERSION + 1);
        for words in [
            "upgrade",
            "attach vm1 --hook tcx",
            "attach --master br0",
            "detach vm3",
        ] {
            let complaint = switch.fails(words);
            assert!(complaint.contains("detach --all"), "{words}: {complaint}");
            assert_eq!(["vm1", "vm2", "vm3"].map(programs), before, "{words}");
        }
        // Whose it is, has it as it was.
        set_version(&folder, VERSION);
        assert!(counted(&switch, "vm1") > counted_before);
        switch.ok("upgrade");
    });
}
