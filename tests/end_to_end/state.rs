//! The folder with what is pinned: who waits for whom, and what one bad entry does to the rest.

use std::{
    fs::{self, File},
    io::Write as _,
    process::Stdio,
    thread,
    time::Duration,
};

use aya::{
    maps::MapData,
    programs::{SchedClassifier, TcAttachType},
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe,
};
use serde_json::{Value, json};
use tapbridge::common::fastpath::{OLDEST_VERSION, VERSION, map};

use crate::support::{
    bpffs::OwnBpffs,
    earlier::set_version,
    frames::hello,
    program::{happens, link, run},
    running::{LIMIT, Running},
    switch::{BRIDGE, Switch, command_in},
    wire::{assert_receives, drain, send},
};

crate::tests![
    nobody_waits_for_who_reads_what_is_printed,
    who_reads_does_not_wait_for_a_command_at_work,
    one_bad_entry_is_named_and_the_rest_is_served,
    a_bridge_of_an_older_version_is_named_and_cleared_away,
    pins_of_another_version_are_cleared_away_with_what_was_attached,
    pins_of_which_one_is_lost_are_cleared_away_with_what_was_attached,
    devices_are_given_back_after_their_bpffs_was_unmounted,
    run_tells_of_pins_that_no_command_has_removed,
];

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

/// A map that is pinned where the switch's are.
fn any_map(switch: &Switch) -> MapData {
    let folder = switch.folder().expect("something pinned");
    MapData::from_pin(folder.join(map::PATHS)).expect("open a pinned map")
}

fn one_bad_entry_is_named_and_the_rest_is_served() {
    const BAD: [&str; 3] = ["foreign", "others", "old"];
    let switch = Switch::of(2);
    let state = switch.state();
    let map = any_map(&switch);
    map.pin(state.join("foreign")).expect("pin a map");
    fs::create_dir(state.join("others")).expect("make a folder");
    map.pin(state.join("others/foreign")).expect("pin a map");
    fs::create_dir(state.join("old")).expect("make a folder");
    for words in ["show", "stats"] {
        let document = switch.json(words);
        let entries = document["unreadable"].as_array().expect("unreadable").clone();
        assert_eq!(entries.len(), BAD.len(), "{document}");
        for name in BAD {
            let entry = entries.iter().find(|entry| entry["name"] == name).expect(name);
            let error = entry["error"].as_str().expect("a text");
            let way_out = if name == "old" {
                "'tapbridge detach --all' clears it away".to_owned()
            } else {
                format!("remove it with 'rm -r {}'", state.join(name).display())
            };
            assert!(error.contains(&way_out), "{error}");
        }
        assert_eq!(document["bridges"][0]["ports"].as_array().map(Vec::len), Some(2));
        let output = switch.tapbridge(words);
        for name in BAD {
            assert!(
                output.stdout.contains(name) || output.stderr.contains(name),
                "{words}: {name}: {output}"
            );
        }
    }
    for words in ["fdb show", "attach vm2 --hook tcx", "detach vm2", "attach vm2"] {
        switch.ok(words);
    }
    let [vm1, vm2] = switch.taps();
    send(vm1, &hello(1));
    assert_receives(vm2, &hello(1));
    drain(&[vm1, vm2]);

    // Everything that is known is detached, the rest is said to be left.
    let output = switch.tapbridge("detach --all");
    assert_eq!(output.code(), Some(1), "{output}");
    for left in ["foreign", "others"] {
        assert!(output.stderr.contains(left), "{left}: {output}");
        assert!(state.join(left).exists(), "{left}");
    }
    assert!(switch.folder().is_none() && !state.join("old").exists());
    assert_eq!(link(BRIDGE), None);
    fs::remove_file(state.join("foreign")).expect("remove it, as the message says");
    fs::remove_dir_all(state.join("others")).expect("remove it, as the message says");
}

fn a_bridge_of_an_older_version_is_named_and_cleared_away() {
    let switch = Switch::of(1);
    // What there was, with a link to a device.
    let old = switch.state().join("tapbridge");
    fs::create_dir(&old).expect("make a folder");
    any_map(&switch).pin(old.join("BRIDGE")).expect("pin a map");
    fs::rename(switch.pin("vm1", "tcx"), old.join("link_0_tcx")).expect("move a pin");
    let told = switch.json("show")["unreadable"][0]["error"].take();
    assert!(
        told.as_str()
            .is_some_and(|text| text.contains("a bridge of an older version of tapbridge")),
        "{told}"
    );
    let cleared = switch.json("detach --all")["cleared"].take();
    assert_eq!(cleared[0]["name"], "tapbridge", "{cleared}");
    assert!(!switch.state().exists() && tcx("vm1") == 0);
}

fn tcx(device: &str) -> usize {
    let (_, programs) = SchedClassifier::query_tcx(device, TcAttachType::Ingress).expect("list tcx programs");
    programs.len()
}

/// Of what can't be read, what is attached is known nevertheless.
#[track_caller]
fn assert_cleared_away(switch: &Switch, words: &str) {
    for command in ["attach vm2", "detach vm1", "fdb show"] {
        let complaint = switch.fails(command);
        assert!(
            complaint.contains(words) && complaint.contains("'tapbridge detach --all'"),
            "{command}: {complaint}"
        );
    }
    for command in ["show", "stats"] {
        let told = switch.json(command);
        let error = told["unreadable"][0]["error"]
            .as_str()
            .expect("a text")
            .to_owned();
        assert!(
            error.contains(words) && error.contains("'tapbridge detach --all'"),
            "{error}"
        );
    }
    assert_eq!(tcx("vm1"), 1);
    let report = switch.json("detach --all");
    let told = json!([{ "ifname": "vm1", "master": BRIDGE, "released": true, "gone": false }]);
    assert_eq!(report["ports"], told, "{report}");
    let vm1 = link("vm1").expect("a tap");
    assert!(
        vm1["xdp"].is_null() && vm1["master"].is_null() && tcx("vm1") == 0,
        "{vm1}"
    );
    assert!(link(BRIDGE).is_none() && !switch.state().exists());
}

fn pins_of_another_version_are_cleared_away_with_what_was_attached() {
    let switch = Switch::detached(2);
    for version in [OLDEST_VERSION - 1, VERSION + 1] {
        switch.ok("attach vm1");
        set_version(&switch.folder().expect("something pinned"), version);
        assert_cleared_away(&switch, &format!("layout version {version}"));
    }
}

fn pins_of_which_one_is_lost_are_cleared_away_with_what_was_attached() {
    let switch = Switch::detached(2);
    for pin in [map::PORTS, map::COUNTERS, map::PATHS] {
        switch.ok("attach vm1");
        let folder = switch.folder().expect("something pinned");
        fs::remove_file(folder.join(pin)).expect("unpin a map");
        assert_cleared_away(&switch, "can't be used");
        // Another map in its place.
        switch.ok("attach vm1");
        let folder = switch.folder().expect("something pinned");
        fs::remove_file(folder.join(pin)).expect("unpin a map");
        let other = MapData::from_pin(folder.join(map::SETTINGS)).expect("open a pinned map");
        other.pin(folder.join(pin)).expect("pin another map in its place");
        assert_cleared_away(&switch, "can't be used");
    }
}

/// A port's link is detached some time after its pin is gone.
fn assert_leaves(device: &str) {
    let left = || {
        let tcx = SchedClassifier::query_tcx(device, TcAttachType::Ingress);
        tcx.is_ok_and(|(_, programs)| programs.is_empty())
    };
    assert!(happens(LIMIT, left), "{device} keeps its program");
}

fn devices_are_given_back_after_their_bpffs_was_unmounted() {
    let _switch = Switch::detached(2);
    let mut bpffs = OwnBpffs::new();
    let state = bpffs.state();
    for _ in 0..2 {
        run(command_in(&state, "attach vm1 vm2")).success();
        bpffs.unmount();
        bpffs.mount();
        for device in ["vm1", "vm2"] {
            assert_leaves(device);
            // Its bridge goes on.
            assert_eq!(link(device).expect("a tap")["master"], BRIDGE);
        }
    }
    // That the bridge was made for them it says itself.
    run(command_in(&state, "attach vm1 vm2")).success();
    run(command_in(&state, "detach vm1 vm2")).success();
    assert_eq!(link(BRIDGE), None);
    let left = [link("vm1"), link("vm2")].map(|tap| tap.expect("a tap")["master"].clone());
    assert_eq!(left, [Value::Null, Value::Null]);
}

fn run_tells_of_pins_that_no_command_has_removed() {
    let _switch = Switch::detached(2);
    let mut bpffs = OwnBpffs::new();
    let state = bpffs.state();
    let running = Running::of(command_in(&state, "run -j"));
    let look_after = |words: &str, ports: u64| {
        run(command_in(&state, words)).success();
        let seen = || run(command_in(&state, "status -j")).json()["ports"] == ports;
        assert!(happens(LIMIT, seen), "run does not look after {words}");
    };
    look_after("attach vm1 vm2", 2);
    look_after("detach --all", 0);
    look_after("attach vm1 vm2 --bridge two", 2);
    assert_eq!(running.change(), None);
    bpffs.unmount();
    let mut told = None;
    let tells = || {
        told = running.change();
        told.is_some()
    };
    assert!(happens(LIMIT, tells), "run says nothing");
    let expected = json!({ "event": "vanished", "ports": ["vm1", "vm2"] });
    assert_eq!(told, Some(expected));
    // It goes on.
    bpffs.mount();
    for device in ["vm1", "vm2"] {
        assert_leaves(device);
    }
    look_after("attach vm1 vm2", 2);
    assert_eq!(running.change(), None);
    let folder = fs::read_dir(&state).expect("the state").flatten().next();
    fs::remove_dir_all(folder.expect("a folder").path()).expect("remove the folder");
    assert!(happens(LIMIT, || running
        .change()
        .is_some_and(|told| told["event"] == "vanished")));
    for device in ["vm1", "vm2"] {
        assert_leaves(device);
    }
    look_after("attach vm1 vm2", 2);
    look_after("detach --all", 0);
    assert_eq!(running.change(), None);
    assert!(running.stop("TERM").success());
}
