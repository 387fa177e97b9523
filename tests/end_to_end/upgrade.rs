//! New programs in the place of those that are attached: nothing is lost by it, whatever happens meanwhile.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::json;
use tapbridge::common::{
    Hook,
    counters::Traffic,
    fastpath::{OLDEST_VERSION, PortCounters},
    forwarding::Reason,
};

use crate::support::{
    earlier::{make_version_4, set_version},
    end::EndOnDrop,
    frames::{Flow, hello},
    load::talk,
    program::{happens, ip, link, run},
    running::{LIMIT, Running},
    switch::{BRIDGE, Switch, command_in},
    wire::{assert_receives, drain, receive, send},
};

crate::tests![
    programs_are_replaced_under_load_and_nothing_is_lost,
    what_version_4_has_pinned_is_read_and_goes_on,
    a_killed_upgrade_is_put_right_by_the_next_command,
    run_goes_on_with_new_programs,
    what_is_detached_and_gone_is_still_known_after_an_upgrade,
    without_anything_attached_there_is_nothing_to_do,
];

/// Ids of the programs at a port: XDP's and tcx's.
fn programs(device: &str) -> (u64, Vec<u32>) {
    let (_, tcx) = SchedClassifier::query_tcx(device, TcAttachType::Ingress).expect("list tcx programs");
    let xdp = link(device).expect("a device")["xdp"]["prog"]["id"].as_u64();
    (
        xdp.unwrap_or(0),
        tcx.iter().map(aya::programs::ProgramInfo::id).collect(),
    )
}

/// A frame with a number.
fn numbered(number: u32) -> Vec<u8> {
    Flow::udp(1, 2).frame(&number.to_be_bytes())
}

fn beside(folder: &Path) -> std::path::PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push("~");
    name.into()
}

fn programs_are_replaced_under_load_and_nothing_is_lost() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    let before = switch.stats().port("vm1").rx.frames;
    let end = AtomicBool::new(false);
    let state = switch.state();
    let sent = thread::scope(|scope| {
        let ended = EndOnDrop(&end);
        let sender = scope.spawn(|| talk(vm1, vm2, &end));
        // What is counted never gets less, whenever it is read.
        let reader = scope.spawn(|| {
            let mut received = 0;
            while !end.load(Ordering::Relaxed) {
                let statistics = run(command_in(state, "stats -j")).json();
                let now = statistics["bridges"][0]["ports"][0]["rx"]["frames"].as_u64();
                let now = now.unwrap_or_else(|| panic!("no frames: {statistics}"));
                assert!(now >= received, "{now} after {received}");
                received = now;
            }
        });
        for _ in 0..10 {
            let before = programs("vm1");
            assert_eq!(switch.json("upgrade"), json!({ "schema": 2, "ports": 2 }));
            let after = programs("vm1");
            assert!(
                after.0 != before.0 && after.1 != before.1 && after.1.len() == 1,
                "{before:?} {after:?}"
            );
        }
        drop(ended);
        reader.join().expect("all can be read at any time");
        sender.join().expect("every frame arrives, in order")
    });
    let statistics = switch.stats();
    assert_eq!(statistics.port("vm1").rx.frames, before + u64::from(sent));
    assert!(sent > 100, "{sent} frames");
    let folder = switch.folder().expect("something pinned");
    assert!(!beside(&folder).exists());
    assert!(
        switch
            .ok("upgrade")
            .starts_with("2 ports have the programs of tapbridge ")
    );
}

fn what_version_4_has_pinned_is_read_and_goes_on() {
    for words in ["upgrade", "attach vm1", "detach vm3"] {
        let switch = Switch::of(3);
        let [vm1, vm2, vm3] = switch.taps();
        switch.introduce();
        switch.ok("detach vm3");
        switch.ok("attach vm3 --hook tcx");
        switch.introduce();
        send(vm1, &numbered(0));
        assert_receives(vm2, &numbered(0));
        let sent = switch.stats().frames("vm1", "vm2");
        let mut counted = PortCounters {
            left_traffic: Traffic {
                frames: 70,
                bytes: 7000,
            },
            bulk: Traffic {
                frames: 3,
                bytes: 4000,
            },
            gso: 2,
            checksums_completed: 5,
            ..PortCounters::default()
        };
        counted.left[Hook::Tcx as usize][Reason::Group as usize] = 30;
        counted.left[Hook::Tcx as usize][Reason::VlanTag as usize] = 40;
        counted.left[Hook::Xdp as usize][Reason::Generic as usize] = 9;
        let folder = switch.folder().expect("something pinned");
        make_version_4(&folder, &[(vm1.ifindex(), counted)]);

        let check = |more: u64| {
            let statistics = switch.stats();
            let port = statistics.port("vm1");
            let bytes = u64::try_from(hello(1).len()).expect("a short frame");
            assert_eq!(
                (port.left.frames, port.left.bytes),
                (70 + more, 7000 + bytes * more)
            );
            assert_eq!((port.left("group"), port.left("vlan_tag")), (30 + more, 40));
            assert_eq!((port.bulk.frames, port.gso_frames), (3, 2));
            assert_eq!(port.checksums_completed, 5);
            assert_eq!(statistics.frames("vm1", "vm2"), sent);
        };
        // Who only reads changes nothing.
        let before = programs("vm1");
        check(0);
        assert_eq!(switch.shown("vm3")["hook"], "tcx");
        assert!(switch.fails("monitor").contains("'tapbridge upgrade'"));
        assert_eq!(programs("vm1"), before);

        switch.ok(words);
        assert_ne!(programs("vm1"), before, "{words}");
        check(0);
        if words != "detach vm3" {
            assert_eq!(switch.shown("vm3")["hook"], "tcx");
            assert_eq!(programs("vm3").0, 0);
        }
        send(vm1, &hello(1));
        assert_receives(vm2, &hello(1));
        check(1);
        drain(&[vm1, vm2, vm3]);
    }
    // What is older than that is not touched.
    let switch = Switch::of(1);
    let folder = switch.folder().expect("something pinned");
    set_version(&folder, OLDEST_VERSION - 1);
    assert!(switch.fails("upgrade").contains("'tapbridge detach --all'"));
}

fn a_killed_upgrade_is_put_right_by_the_next_command() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    let mut sent = switch.stats().port("vm1").rx.frames;
    let folder = switch.folder().expect("something pinned");
    let beside = beside(&folder);
    let mut interrupted = 0;
    let deadline = Instant::now() + LIMIT;
    // Killed a little later each time after it has begun to change something, until it has come to its end.
    for delay in (0..).scan(0, |delay, more| {
        *delay += more;
        Some(*delay)
    }) {
        let mut child = switch.start("upgrade");
        let mut has_ended = || child.try_wait().expect("look at it").is_some();
        assert!(happens(LIMIT, || beside.exists() || has_ended()));
        let has_ended = happens(Duration::from_millis(delay), has_ended);
        child.kill().expect("kill it");
        child.wait().expect("wait for its end");
        // The first may have come to its end on a busy machine before it could be killed.
        if has_ended && interrupted > 0 {
            break;
        }
        assert!(
            !has_ended || Instant::now() < deadline,
            "it was never killed at work in {LIMIT:?}"
        );
        interrupted += u64::from(beside.exists());
        for number in 0..3 {
            send(vm1, &numbered(number));
            assert_receives(vm2, &numbered(number));
        }
        // What is seen meanwhile is whole.
        switch.ok("show");
        switch.ok("attach vm1");
        assert!(!beside.exists());
        send(vm1, &numbered(9));
        assert_receives(vm2, &numbered(9));
        sent += 4;
    }
    // What was counted by programs that were taken back is not, so it is no more than was sent.
    let counted = switch.stats().port("vm1").rx.frames;
    assert!(
        counted <= sent && counted + 3 * interrupted >= sent,
        "{counted} of {sent}, {interrupted} times"
    );
    switch.ok("detach --all");
}

fn run_goes_on_with_new_programs() {
    let switch = Switch::with_hook(2, "auto");
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    let running = Running::start(&switch);
    switch.ok("upgrade");
    let bulk = super::run::bulk(1, 2);
    let changed = || {
        crate::support::wire::send_with(vm1, &bulk.0, &bulk.1);
        receive(vm2);
        running
            .change()
            .inspect(|change| assert_eq!(change["event"], "hook", "{change}"))
            .is_some()
    };
    assert!(happens(LIMIT, changed), "hooks do not change in {LIMIT:?}");
    assert!(running.stop("TERM").success());
}

fn what_is_detached_and_gone_is_still_known_after_an_upgrade() {
    let mut switch = Switch::of(3);
    let [_, _, vm3] = switch.taps();
    ip(&format!("link set {} nomaster", vm3.name()));
    switch.remove("vm2");
    switch.ok("upgrade");
    // The one is in no bridge, of the other the device is gone.
    let overview = switch.json("show").to_string();
    assert!(overview.contains("no_bridge"), "{overview}");
    let detached = switch.json("detach --all");
    let names: Vec<_> = detached["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| (port["ifname"].clone(), port["gone"].clone()))
        .collect();
    for expected in [("vm1", false), ("vm2", true), ("vm3", false)] {
        assert!(
            names.contains(&(json!(expected.0), json!(expected.1))),
            "{names:?}"
        );
    }
    assert_eq!(link(BRIDGE), None);
}

fn without_anything_attached_there_is_nothing_to_do() {
    let switch = Switch::detached(1);
    assert_eq!(switch.json("upgrade"), json!({ "schema": 2, "ports": 0 }));
    assert!(fs::metadata(switch.state()).is_err());
    switch.ok("attach vm1");
    switch.ok("detach vm1");
    assert_eq!(
        switch.ok("upgrade"),
        "no ports are attached in this network namespace\n"
    );
}
