//! The folder with what is pinned: who waits for whom, and what one bad entry does to the rest.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use aya::{
    Pod,
    maps::{Array, Map, MapData},
    programs::{SchedClassifier, TcAttachType},
};
use lab::Tap;
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe,
};
use serde_json::{Value, json};
use tapbridge::{
    bridge::Reading,
    common::{
        adaptive::INTERVAL,
        layout::{self, Config, VERSION, map},
    },
    state::State,
};

use crate::support::{
    bpffs::OwnBpffs,
    frames::{Flow, hello},
    program::{happens, ip, link, run, signal, tc, wait},
    running::{LIMIT, Running},
    switch::{Switch, command_in, ipv6},
    wire::{assert_receives, drain, send},
};

crate::tests![
    nobody_waits_for_who_reads_what_is_printed,
    who_reads_does_not_wait_for_a_command_at_work,
    a_bridge_that_is_being_made_is_told_from_one_that_was_left_unfinished,
    a_monitor_changes_settings_only_while_it_has_the_lock,
    one_bad_entry_is_named_and_the_rest_is_served,
    a_bridge_of_the_version_before_is_cleared_away_with_its_devices_as_they_were,
    a_bridge_of_an_unknown_version_is_cleared_away_with_its_devices_as_they_were,
    a_bridge_that_lost_a_pin_is_not_thrown_away_with_its_ports,
    who_reads_counters_that_are_being_moved_begins_anew,
    what_can_not_be_given_back_is_said,
    what_devices_were_like_is_known_after_their_bpffs_was_unmounted,
    a_device_that_came_later_is_not_taken_for_one_that_was_a_port,
    nothing_is_kept_of_devices_that_are_gone,
    run_tells_of_a_bridge_that_no_command_has_removed,
];

/// An array that is pinned in a bridge's folder.
fn pinned<T: Pod>(switch: &Switch, bridge: &str, name: &str) -> Array<MapData, T> {
    let data = MapData::from_pin(switch.state().join(bridge).join(name)).expect("open a pinned map");
    Map::Array(data).try_into().expect("an array")
}

fn set_version(switch: &Switch, bridge: &str, version: u32) {
    let mut record = pinned::<layout::Bridge>(switch, bridge, map::BRIDGE);
    let was = record.get(&0, 0).expect("read the record");
    record
        .set(0, layout::Bridge { version, ..was }, 0)
        .expect("write the record");
}

/// Holds the lock, as a command at work does.
fn lock(switch: &Switch) -> File {
    let folder = File::open(switch.state()).expect("open the state folder");
    folder.lock().expect("lock it");
    folder
}

fn nobody_waits_for_who_reads_what_is_printed() {
    let switch = Switch::of(3);
    for words in ["show", "stats", "fdb show", "attach vm3", "detach vm3"] {
        // A pager that does not read: the pipe is full already.
        let (_reader, writer) = pipe().expect("make a pipe");
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("do not wait");
        let mut pipe = File::from(writer);
        while pipe.write_all(&[b' '; 4096]).is_ok() {}
        while pipe.write_all(b" ").is_ok() {}
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::empty())).expect("wait again");
        let mut command = switch.command(words);
        let mut child = command
            .stdout(pipe)
            .stderr(Stdio::null())
            .spawn()
            .expect("start tapbridge");
        thread::sleep(Duration::from_millis(500));
        assert_eq!(
            child.try_wait().expect("look at it"),
            None,
            "{words} waits for the pager"
        );
        switch.ok("detach vm2");
        switch.ok("attach vm2 vm3");
        child.kill().expect("end it");
        child.wait().expect("wait for its end");
    }
}

fn who_reads_does_not_wait_for_a_command_at_work() {
    let switch = Switch::of(2);
    switch.introduce();
    let locked = lock(&switch);
    assert_eq!(switch.json("show")["bridges"][0]["ports"][1]["ifname"], "vm2");
    assert_eq!(switch.stats().ports.len(), 2);
    assert!(switch.ok("fdb show").contains("vm1"));
    drop(locked);
}

fn a_bridge_that_is_being_made_is_told_from_one_that_was_left_unfinished() {
    let switch = Switch::of(1);
    let half = switch.state().join("half");
    fs::create_dir(&half).expect("make a folder");
    let text = |overview: &Value| {
        overview["unreadable"][0]["error"]
            .as_str()
            .expect("a text")
            .to_owned()
    };
    let left = text(&switch.json("show"));
    assert!(
        left.contains("half: is half made or half removed") && left.contains("detach --all --bridge half"),
        "{left}"
    );
    let locked = lock(&switch);
    let changing = text(&switch.json("show"));
    assert!(
        changing.contains("half: another command is making or removing it"),
        "{changing}"
    );
    drop(locked);
    switch.ok("detach --all --bridge half");
    assert!(!half.exists());
}

fn a_monitor_changes_settings_only_while_it_has_the_lock() {
    let switch = Switch::of(2);
    let config = pinned::<Config>(&switch, "tapbridge", map::CONFIG);
    let logs = || config.get(&0, 0).expect("read the settings").log != 0;
    let locked = lock(&switch);
    let mut monitor = switch.start("monitor");
    thread::sleep(Duration::from_secs(1));
    assert!(!logs(), "the settings change though a command is at work");
    drop(locked);
    let deadline = Instant::now() + LIMIT;
    while !logs() {
        assert!(
            Instant::now() < deadline,
            "the monitor has not begun in {LIMIT:?}"
        );
        thread::sleep(Duration::from_millis(10));
    }
    signal(&monitor, "INT");
    assert!(wait(&mut monitor, LIMIT).expect("the monitor ends").success());
    assert!(!logs());
}

/// "good" with vm1 and vm2, and beside it all that should not be there.
fn bad_company() -> Switch {
    let switch = Switch::detached(4);
    switch.ok("attach vm1 vm2 --bridge good");
    switch.ok("attach vm3 --bridge old");
    set_version(&switch, "old", VERSION + 1);
    switch.ok("attach vm4 --bridge broken");
    fs::remove_file(switch.state().join("broken").join(map::INGRESS)).expect("unpin a map");
    let other = MapData::from_pin(switch.state().join("good").join(map::CONFIG)).expect("open a pinned map");
    other
        .pin(switch.state().join("broken").join(map::INGRESS))
        .expect("pin another map in its place");
    other.pin(switch.state().join("foreign")).expect("pin a map");
    fs::create_dir(switch.state().join("half")).expect("make a folder");
    switch
}

fn one_bad_entry_is_named_and_the_rest_is_served() {
    const BAD: [&str; 4] = ["broken", "foreign", "half", "old"];
    let switch = bad_company();
    let names = |document: &Value| -> Vec<String> {
        let entries = document["unreadable"].as_array().expect("unreadable");
        for entry in entries {
            let error = entry["error"].as_str().expect("a text");
            assert!(
                error.contains("detach --all --bridge ") || error.contains("rm /"),
                "a way out: {error}"
            );
        }
        entries
            .iter()
            .map(|entry| entry["bridge"].as_str().expect("a name").to_owned())
            .collect()
    };
    for words in [
        "show",
        "stats",
        "attach vm2 --bridge good --hook tcx",
        "detach vm2",
    ] {
        assert_eq!(names(&switch.json(words)), BAD, "{words}");
    }
    for words in ["fdb show", "stats", "attach vm2 --bridge good"] {
        let output = switch.tapbridge(words);
        for name in BAD {
            assert!(output.stderr.contains(name), "{words}: {name}: {}", output.stderr);
        }
        output.success();
    }
    let [vm1, vm2, ..] = switch.taps::<4>();
    send(vm1, &hello(1));
    assert_receives(vm2, &hello(1));
    drain(&[vm1, vm2]);

    // Everything that is known is detached, the rest is said to be left.
    let output = switch.tapbridge("detach --all");
    assert_eq!(output.code(), Some(1), "{output}");
    for left in ["broken", "foreign", "old"] {
        assert!(output.stderr.contains(left), "{left}: {output}");
        assert!(switch.state().join(left).exists(), "{left}");
    }
    assert!(!switch.state().join("good").exists() && !switch.state().join("half").exists());
    assert!(
        link("vm3").expect("a tap")["qdisc"] == "noqueue",
        "old is as it was"
    );

    fs::remove_file(switch.state().join("foreign")).expect("remove it, as the message says");
    set_version(&switch, "old", VERSION);
    switch.ok("detach --all --bridge broken");
}

fn a_bridge_of_the_version_before_is_cleared_away_with_its_devices_as_they_were() {
    let switch = Switch::detached(2);
    switch.speak_ipv6("vm1");
    switch.ok("attach vm1 vm2");
    set_version(&switch, "tapbridge", VERSION - 1);
    assert!(switch.fails("attach vm1").contains("layout version"));
    let report = switch.json("detach --all --bridge tapbridge");
    let restored: Vec<&Value> = report["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| &port["restored"])
        .collect();
    assert_eq!(restored, [&json!(true), &json!(true)], "{report}");
    // The rest is checked when the switch is dropped.
    assert!(ipv6("vm1"));
}

fn a_bridge_of_an_unknown_version_is_cleared_away_with_its_devices_as_they_were() {
    let switch = Switch::detached(2);
    switch.speak_ipv6("vm1");
    switch.ok("attach vm1 vm2");
    set_version(&switch, "tapbridge", VERSION + 1);
    let report = switch.json("detach --all --bridge tapbridge");
    assert_eq!(report["ports"][0]["restored"], true, "{report}");
    assert_eq!(journal(), Vec::<PathBuf>::new());
    // The rest is checked when the switch is dropped.
    assert!(ipv6("vm1"));
}

/// A bridge of which somebody has unpinned something is not one that had no ports yet.
fn a_bridge_that_lost_a_pin_is_not_thrown_away_with_its_ports() {
    let switch = Switch::detached(2);
    switch.speak_ipv6("vm1");
    for pin in [map::INGRESS, map::BRIDGE] {
        switch.ok("attach vm1");
        fs::remove_file(switch.state().join("tapbridge").join(pin)).expect("unpin a map");
        for words in ["attach vm2", "detach --all"] {
            let complaint = switch.tapbridge(words);
            assert_eq!(complaint.code(), Some(1), "{pin}, {words}: {complaint}");
            assert!(
                complaint.stderr.contains("no longer pinned")
                    && complaint.stderr.contains("detach --all --bridge tapbridge"),
                "{pin}, {words}: {complaint}"
            );
        }
        assert!(!link("vm1").expect("a tap")["xdp"].is_null());
        let report = switch.json("detach --all --bridge tapbridge");
        assert_eq!(report["ports"][0]["restored"], true, "{pin}: {report}");
        assert!(
            ipv6("vm1") && link("vm1").expect("a tap")["xdp"].is_null(),
            "{pin}"
        );
    }
}

fn who_reads_counters_that_are_being_moved_begins_anew() {
    const TAPS: usize = 24;
    let switch = Switch::detached(TAPS);
    let mut all: Vec<String> = (1..=TAPS).map(|number| format!("vm{number}")).collect();
    switch.ok(&format!("attach {} --hook tcx", all.join(" ")));
    switch.introduce();
    let [vm1, vm2, ..] = switch.taps::<TAPS>();
    for _ in 0..20 {
        for _ in 0..50 {
            send(vm1, &hello(1));
            send(vm2, &hello(2));
            send(vm1, &Flow::tcp(1, 3).frame(b"forwarded"));
        }
        switch.introduce();
        let gone = all.remove(2);
        let folder = State::new(switch.state())
            .read()
            .expect("look for the state")
            .expect("a state folder");
        let bridge = Reading::open(&folder, "tapbridge").expect("open the bridge");
        let mut detach = switch.start(&format!("detach {gone}"));
        while detach.try_wait().expect("look at it").is_none() {
            for port in bridge.statistics(&[]).expect("read the statistics").ports {
                let places = port.forwarded.frames + port.flooded.frames + port.dropped.values().sum::<u64>();
                assert_eq!(port.rx.frames, places, "{port:#?}");
            }
        }
        switch.ok(&format!("attach {gone} --hook tcx"));
        all.insert(2, gone);
    }
}

fn what_can_not_be_given_back_is_said() {
    let switch = Switch::detached(1);
    switch.ok("attach vm1");
    set_version(&switch, "tapbridge", VERSION + 1);
    journal()
        .iter()
        .try_for_each(fs::remove_file)
        .expect("remove what is kept of the taps");
    let said = switch.ok("detach --all --bridge tapbridge");
    assert!(
        said.contains("vm1: detached, but how it was before can't be read"),
        "{said}"
    );
    let vm1 = link("vm1").expect("a tap");
    assert!(vm1["xdp"].is_null() && vm1["qdisc"] == "noqueue", "{vm1}");
    // As the message says.
    tc("qdisc del dev vm1 root");
}

/// A port's link is detached some time after its pin is gone.
fn assert_leaves(device: &str) {
    let left = || {
        let tcx = SchedClassifier::query_tcx(device, TcAttachType::Ingress);
        tcx.is_ok_and(|(_, programs)| programs.is_empty())
    };
    assert!(happens(LIMIT, left), "{device} keeps its program");
}

fn promiscuous(device: &str) -> bool {
    let flags = &link(device).expect("a device")["flags"];
    flags.as_array().expect("flags").contains(&json!("PROMISC"))
}

fn what_devices_were_like_is_known_after_their_bpffs_was_unmounted() {
    let switch = Switch::detached(2);
    switch.speak_ipv6("vm1");
    ip("link add port0 type veth peer name host0");
    ip("link add port1 promisc on type veth peer name host1");
    let default = link("vm1").expect("a tap")["qdisc"].clone();
    assert_ne!(default, "noqueue");
    let mut bpffs = OwnBpffs::new();
    let state = bpffs.state();
    for round in 0..2 {
        run(command_in(&state, "attach vm1 vm2 port0 port1")).success();
        bpffs.unmount();
        bpffs.mount();
        for device in ["vm1", "vm2", "port0", "port1"] {
            assert_leaves(device);
        }
        assert!(
            !ipv6("vm1") && promiscuous("port0"),
            "round {round}: left as they were changed"
        );
        assert_eq!(link("vm1").expect("a tap")["qdisc"], "noqueue");
    }
    // In whichever state folder.
    switch.ok("attach vm1 vm2 port0 port1");
    switch.ok("detach --all");
    assert!(ipv6("vm1") && !ipv6("vm2"));
    assert!(!promiscuous("port0") && promiscuous("port1"));
    for tap in ["vm1", "vm2"] {
        assert_eq!(link(tap).expect("a tap")["qdisc"], default);
    }
    // Nothing is remembered of a device that was given back.
    ip("link set dev port0 promisc on");
    switch.ok("attach port0");
    switch.ok("detach port0");
    assert!(promiscuous("port0"));
}

fn a_device_that_came_later_is_not_taken_for_one_that_was_a_port() {
    let switch = Switch::empty();
    let make = |promiscuity: &str| {
        ip(&format!(
            "link add port0 index 77 promisc {promiscuity} type veth peer name host0 index 78"
        ));
    };
    make("off");
    let mut bpffs = OwnBpffs::new();
    run(command_in(&bpffs.state(), "attach port0")).success();
    bpffs.unmount();
    assert_leaves("port0");
    ip("link del dev port0");
    make("on");
    switch.ok("attach port0");
    switch.ok("detach port0");
    assert!(promiscuous("port0"));
}

/// The files under /run of the calling thread's network namespace.
fn journal() -> Vec<PathBuf> {
    let inode = fs::metadata("/proc/thread-self/ns/net")
        .expect("a namespace")
        .ino();
    let of_namespace = format!("{inode}-");
    let folders = fs::read_dir("/run/tapbridge").into_iter().flatten().flatten();
    folders
        .filter(|folder| folder.file_name().to_string_lossy().starts_with(&of_namespace))
        .flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten())
        .map(|file| file.path())
        .collect()
}

fn nothing_is_kept_of_devices_that_are_gone() {
    let mut switch = Switch::detached(1);
    let kept = || journal().len();
    // As often as a VM is started again.
    for _ in 0..3 {
        switch.ok("attach vm1");
        assert_eq!(kept(), 1);
        switch.remove("vm1");
        switch.add(Tap::builder("vm1"));
    }
    switch.ok("detach --all");
    assert_eq!(kept(), 0);
}

fn run_tells_of_a_bridge_that_no_command_has_removed() {
    let _switch = Switch::detached(2);
    let mut bpffs = OwnBpffs::new();
    let state = bpffs.state();
    let running = Running::of(command_in(&state, "run -j"));
    let look_after = |words: &str| {
        run(command_in(&state, words)).success();
        // It has looked at the bridges when it knows of this one.
        thread::sleep(3 * INTERVAL);
    };
    look_after("attach vm1 vm2");
    look_after("detach --all");
    look_after("attach vm1 vm2 --bridge two");
    assert_eq!(running.change(), None);
    bpffs.unmount();
    let mut told = None;
    let tells = || {
        told = running.change();
        told.is_some()
    };
    assert!(happens(LIMIT, tells), "run says nothing");
    let expected = json!({ "event": "vanished", "master": "two", "ports": ["vm1", "vm2"] });
    assert_eq!(told, Some(expected));
    // It goes on.
    bpffs.mount();
    for device in ["vm1", "vm2"] {
        assert_leaves(device);
    }
    look_after("attach vm1 vm2");
    assert_eq!(running.change(), None);
    fs::remove_dir_all(state.join("tapbridge")).expect("remove a bridge's folder");
    assert!(happens(LIMIT, || running
        .change()
        .is_some_and(|told| told["master"] == "tapbridge")));
    for device in ["vm1", "vm2"] {
        assert_leaves(device);
    }
    look_after("attach vm1 vm2");
    look_after("detach --all");
    assert_eq!(running.change(), None);
    assert!(running.stop("TERM").success());
}
