//! Ports of Linux bridges by the command line.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use lab::{Namespace, Tap};
use serde_json::{Value, json};
use tapbridge::{
    common::{Hook, fastpath},
    fastpath::FastPath,
    state::State,
};

use super::{attach::attach_xdp_of, behind_our_back};
use crate::support::{
    bpffs,
    frames::{Flow, mac, payload, segmented, text},
    linux_bridge::{introduce, linux_bridge, make},
    load::under_load,
    program::{LIMIT, bridge, happens, ip, link, run},
    random::Random,
    switch::{Switch, command_in, unique},
    wire::{assert_receives, assert_receives_gso, assert_silent, drain, send, send_with},
};

crate::tests![
    attach_speeds_up_ports_where_they_stand_and_detach_is_not_to_be_seen,
    a_bridge_is_attached_and_detached_by_its_name,
    ports_of_linux_bridges_and_other_devices_are_attached_together_or_not_at_all,
    what_is_no_linux_bridge_is_refused_and_one_without_ports_is_said,
    an_attached_port_stays_and_keeps_its_counters,
    what_was_detached_behind_our_back_is_attached_again,
    a_device_made_anew_under_its_name_keeps_its_hooks,
    ports_whose_device_is_gone_are_cleared_away,
    bridges_of_one_name_in_two_namespaces_do_not_disturb_each_other,
    the_fast_path_of_a_namespace_that_is_gone_is_cleared_away,
    no_frame_is_lost_doubled_or_overtaken_while_ports_are_attached_and_detached,
    every_frame_of_a_port_is_counted_where_it_went,
    statistics_of_one_bridge_are_those_of_its_ports,
    what_is_half_made_is_made_anew_or_cleared_away,
    a_killed_attach_is_undone_by_the_next_command,
    a_killed_detach_is_finished_by_the_next_command,
];

/// Taps vm1, vm2 and so on, ports of br0, whose frames netfilter does not see.
fn bridged(taps: usize) -> Switch {
    linux_bridge(taps, false)
}

fn fast(state: &Path) -> Option<FastPath> {
    let state = State::new(state).read().expect("the state");
    state.and_then(|state| FastPath::open(&state).expect("the fast path"))
}

/// Frames that went from one tap to the other past the bridge: by XDP, by tcx.
fn forwarded(state: &Path, from: &Tap, to: &Tap) -> [u64; 2] {
    let Some(fast) = fast(state) else {
        return [0; 2];
    };
    let wanted = fastpath::Path {
        from: from.ifindex(),
        to: to.ifindex(),
    };
    let paths = fast.paths().expect("paths");
    let path = paths.iter().find(|(path, _)| *path == wanted);
    path.map_or([0; 2], |(_, counters)| {
        Hook::ALL.map(|hook| counters.via[hook as usize].frames)
    })
}

/// The station behind a tap, which is called vm1 and so on.
fn station(tap: &Tap) -> u8 {
    let number = tap.name().trim_start_matches("vm").parse();
    number.expect("a name that ends in a number")
}

/// Sends a frame from one tap to the other, where it must arrive; how often it was counted by each hook.
#[track_caller]
fn pass(state: &Path, [from, to]: [&Tap; 2]) -> [u64; 2] {
    let before = forwarded(state, from, to);
    let frame = Flow::tcp(station(from), station(to)).frame(b"on its way");
    send(from, &frame);
    assert_receives(to, &frame);
    let after = forwarded(state, from, to);
    [0, 1].map(|hook| after[hook] - before[hook])
}

/// Frames get from one tap to the other by this hook, apart from one in a second, which the bridge sees.
#[track_caller]
fn assert_passes_by(state: &Path, taps: [&Tap; 2], hook: Hook) {
    let mut expected = [0; 2];
    expected[hook as usize] = 1;
    let mut last = [0; 2];
    let passes = happens(LIMIT, || {
        last = pass(state, taps);
        last == expected
    });
    assert!(passes, "{last:?} by XDP and tcx after {LIMIT:?}");
}

/// Frames get from one tap to the other, past the bridge or by its way.
#[track_caller]
fn assert_passes(state: &Path, taps: [&Tap; 2], past: bool) {
    if past {
        let passes = happens(LIMIT, || pass(state, taps).iter().sum::<u64>() == 1);
        assert!(passes, "none past the bridge in {LIMIT:?}");
    } else {
        for _ in 0..3 {
            assert_eq!(pass(state, taps), [0; 2]);
        }
    }
}

fn has_xdp(device: &str) -> bool {
    !link(device).expect("a device")["xdp"].is_null()
}

fn tcx(device: &str) -> usize {
    let (_, programs) = SchedClassifier::query_tcx(device, TcAttachType::Ingress).expect("list tcx programs");
    programs.len()
}

/// What an administrator sees of the bridge and its ports: all but our XDP program and what changes by itself.
fn seen(devices: &[&str]) -> Vec<Value> {
    let mut seen = Vec::new();
    for device in devices {
        let mut link = link(device).expect("a device");
        let shown = link.as_object_mut().expect("an object");
        shown.remove("xdp");
        for data in ["info_data", "info_slave_data"] {
            if let Some(data) = link["linkinfo"][data].as_object_mut() {
                data.retain(|key, _| !key.ends_with("_timer"));
            }
        }
        seen.push(link);
        for setting in ["disable_ipv6", "accept_ra"] {
            let path = format!("/proc/sys/net/ipv6/conf/{device}/{setting}");
            seen.push(fs::read_to_string(path).unwrap_or_default().into());
        }
    }
    for call in ["iptables", "ip6tables", "arptables"] {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{call}");
        seen.push(fs::read_to_string(path).unwrap_or_default().into());
    }
    seen.push(ip("-br address").into());
    seen
}

fn attach_speeds_up_ports_where_they_stand_and_detach_is_not_to_be_seen() {
    let switch = bridged(3);
    let [vm1, vm2, vm3] = switch.taps();
    introduce(&[vm1, vm2, vm3]);
    let before = seen(&["br0", "vm1", "vm2", "vm3"]);
    assert_eq!(
        switch.ok("attach vm1 vm2 --hook xdp"),
        "vm1: attached to br0 (xdp + tcx)\nvm2: attached to br0 (xdp + tcx)\n"
    );
    assert_eq!(seen(&["br0", "vm1", "vm2", "vm3"]), before);
    assert_passes_by(switch.state(), [vm1, vm2], Hook::Xdp);
    // To a port that is not attached too, which sends by the bridge's way.
    assert_passes_by(switch.state(), [vm2, vm3], Hook::Xdp);
    assert_passes(switch.state(), [vm3, vm1], false);
    assert_eq!(switch.ok("attach vm3 --hook tcx"), "vm3: attached to br0 (tcx)\n");
    assert!(!has_xdp("vm3"));
    assert_passes_by(switch.state(), [vm3, vm1], Hook::Tcx);
    assert_silent(&[vm1, vm2, vm3]);

    assert_eq!(switch.ok("detach vm1"), "vm1: detached (br0)\n");
    assert!(!has_xdp("vm1") && tcx("vm1") == 0);
    let complaint = switch.fails("detach vm1");
    assert!(complaint.contains("vm1: not attached"), "{complaint}");
    assert_passes(switch.state(), [vm1, vm2], false);
    assert_eq!(
        switch.ok("detach vm3 vm2 vm3"),
        "vm3: detached (br0)\nvm2: detached (br0)\n"
    );
    assert!(!switch.state().exists());
    assert_eq!(seen(&["br0", "vm1", "vm2", "vm3"]), before);
    assert_passes(switch.state(), [vm1, vm2], false);
}

fn a_bridge_is_attached_and_detached_by_its_name() {
    let switch = bridged(3);
    let [vm1, vm2, vm3] = switch.taps();
    ip("link add port0 up type veth peer name host0");
    ip("link set port0 master br0");
    ip("link set vm3 nomaster");
    ip("link add br1 type bridge");
    ip("link set vm3 master br1");
    let attached = switch.json("attach --master br0 --hook xdp");
    let ports = attached["ports"].as_array().expect("ports");
    let told: Vec<_> = ports
        .iter()
        .map(|port| json!([port["ifname"], port["master"], port["hooks"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["vm1", "br0", ["xdp", "tcx"]]),
            json!(["vm2", "br0", ["xdp", "tcx"]]),
            json!(["port0", "br0", ["tcx"]]),
        ],
        "{attached}"
    );
    assert!(
        ports[2]["note"]
            .as_str()
            .is_some_and(|note| note.contains("no XDP"))
    );
    introduce(&[vm1, vm2]);
    assert_passes(switch.state(), [vm1, vm2], true);
    switch.ok("attach vm3");
    assert_eq!(
        switch.ok("detach --master br0"),
        "vm1: detached (br0)\nvm2: detached (br0)\nport0: detached (br0)\n"
    );
    assert_eq!([tcx("vm1"), tcx("port0"), tcx("vm3")], [0, 0, 1]);
    let complaint = switch.fails("detach --master br0");
    assert!(
        complaint.contains("br0: none of its ports is attached"),
        "{complaint}"
    );
    assert_eq!(switch.ok("detach --all"), "vm3: detached (br1)\n");
    drain(&[vm1, vm2, vm3]);
}

fn ports_of_linux_bridges_and_other_devices_are_attached_together_or_not_at_all() {
    let switch = bridged(4);
    for tap in ["vm3", "vm4"] {
        ip(&format!("link set {tap} nomaster"));
    }
    ip("address add 10.0.0.1/24 dev vm4");
    let refused = ["attach vm1 vm4", "attach vm4 vm1", "attach vm1 nosuch"];
    for words in refused {
        switch.fails(words);
        assert!(!switch.state().exists() && tcx("vm1") == 0, "{words}");
    }
    let attached = switch.json("attach vm3 vm1");
    let told = |index: usize| {
        let port = &attached["ports"][index];
        json!([port["ifname"], port["master"]])
    };
    assert_eq!(told(0), json!(["vm3", "tapbridge"]), "{attached}");
    assert_eq!(told(1), json!(["vm1", "br0"]), "{attached}");
    // Of a change too: vm1 keeps its hooks and vm2 gets none.
    let complaint = switch.fails("attach vm1 vm2 vm4 --hook tcx");
    assert!(complaint.contains("vm4: can't be a port"), "{complaint}");
    assert!(has_xdp("vm1") && tcx("vm2") == 0);
    // Who puts a port elsewhere wants it there.
    ip("link set vm3 master br0");
    ip("link set vm1 nomaster");
    let attached = switch.json("attach vm1 vm3");
    let told = |index: usize| attached["ports"][index]["master"].clone();
    assert_eq!(
        [told(0), told(1)],
        [json!("tapbridge"), json!("br0")],
        "{attached}"
    );
    assert_eq!(
        switch.ok("detach vm1 vm3"),
        "vm1: detached (out of tapbridge)\nvm3: detached (br0)\n"
    );
    ip("address delete 10.0.0.1/24 dev vm4");
}

fn what_is_no_linux_bridge_is_refused_and_one_without_ports_is_said() {
    let mut switch = bridged(1);
    switch.add(Tap::builder("stranger"));
    ip("link add br1 type bridge");
    for (words, complaint) in [
        ("attach --master br2", "br2: no such network device"),
        (
            "attach --master vm1",
            "vm1: not a Linux bridge; 'ip -br link show type bridge'",
        ),
    ] {
        let told = switch.fails(words);
        assert!(told.contains(complaint), "{words}: {told}");
        assert!(!switch.state().exists(), "{words}");
    }
    assert_eq!(
        switch.ok("attach --master br1"),
        "br1: has no ports, so nothing is attached\n"
    );
    let attached = switch.json("attach --master br1");
    assert_eq!(
        (&attached["ports"], &attached["without_ports"]),
        (&json!([]), &json!(["br1"]))
    );
    switch.ok("attach vm1");
    for words in ["detach --master br2", "detach --master vm1"] {
        switch.fails(words);
    }
    assert_eq!(switch.tapbridge("detach --master br0 --all").code(), Some(2));
    // By tcx alone it goes beside another XDP program, by XDP not.
    switch.ok("detach vm1");
    let stranger = switch.state().with_file_name(unique(bpffs::PREFIX));
    run(command_in(&stranger, "attach stranger")).success();
    attach_xdp_of(&stranger, "vm1");
    let complaint = switch.fails("attach vm1");
    assert!(
        complaint.contains("another XDP program is attached"),
        "{complaint}"
    );
    assert!(complaint.contains("--hook tcx"), "{complaint}");
    assert!(!switch.state().exists());
    // Two fast paths at a port would wait for each other.
    run(command_in(&stranger, "attach vm1 --hook tcx")).success();
    let complaint = switch.fails("attach vm1 --hook tcx");
    assert!(complaint.contains("in another state folder"), "{complaint}");
    assert!(!switch.state().exists());
    run(command_in(&stranger, "detach vm1")).success();
    switch.ok("attach vm1 --hook tcx");
    let complaint = switch.fails("attach vm1 --hook xdp");
    assert!(
        complaint.contains("another XDP program is attached"),
        "{complaint}"
    );
    ip("link set dev vm1 xdp off");
    run(command_in(&stranger, "detach --all")).success();
    assert_eq!(
        switch.ok("attach vm1 --hook xdp"),
        "vm1: attached to br0 (xdp + tcx)\n"
    );
}

fn an_attached_port_stays_and_keeps_its_counters() {
    let switch = bridged(2);
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    switch.ok("attach vm1 vm2");
    assert_passes(switch.state(), [vm1, vm2], true);
    assert_eq!(
        switch.ok("attach vm2 vm1"),
        "vm2: was attached already to br0 (xdp + tcx, auto)\nvm1: was attached already to br0 (xdp + tcx, auto)\n"
    );
    assert_eq!(switch.ok("attach vm1 --hook tcx"), "vm1: attached to br0 (tcx)\n");
    assert!(!has_xdp("vm1"));
    assert_passes_by(switch.state(), [vm1, vm2], Hook::Tcx);
    assert_eq!(
        switch.ok("attach vm1"),
        "vm1: was attached already to br0 (tcx)\n"
    );
    switch.ok("attach vm1 --hook xdp");
    assert_passes_by(switch.state(), [vm1, vm2], Hook::Xdp);
    assert_eq!(forwarded(switch.state(), vm1, vm2), [2, 1]);
    // What vm1 has sent to a port that goes, it has sent.
    switch.ok("detach vm2");
    assert_eq!(forwarded(switch.state(), vm1, vm2), [2, 1]);
    switch.ok("attach vm2");
    assert_eq!(forwarded(switch.state(), vm1, vm2), [2, 1]);
    switch.ok("detach vm1");
    assert_eq!(forwarded(switch.state(), vm1, vm2), [0, 0]);
}

/// The only folder of the state.
fn folder(switch: &Switch) -> PathBuf {
    switch.folder().expect("a folder")
}

fn what_was_detached_behind_our_back_is_attached_again() {
    let switch = bridged(2);
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    switch.ok("attach vm1 vm2 --hook xdp");
    assert_passes(switch.state(), [vm1, vm2], true);
    let pin = |hook: &str| folder(&switch).join(format!("link_{}_{hook}", vm1.ifindex()));
    for hook in ["tcx", "xdp"] {
        behind_our_back::detach(&pin(hook));
        // Without tcx XDP carries nothing.
        assert_passes(switch.state(), [vm1, vm2], hook == "xdp");
        assert_eq!(switch.json("attach vm1 vm2")["ports"][0]["changed"], true);
        assert_eq!(switch.json("attach vm1 vm2")["ports"][0]["changed"], false);
        assert!(has_xdp("vm1") && tcx("vm1") == 1);
        assert_passes(switch.state(), [vm1, vm2], true);
    }
    for hook in ["tcx", "xdp"] {
        fs::remove_file(pin(hook)).expect("remove a pin");
        let gone = || match hook {
            "tcx" => tcx("vm1") == 0,
            _ => !has_xdp("vm1"),
        };
        assert!(happens(LIMIT, gone), "{hook} is attached {LIMIT:?} later");
        assert_eq!(switch.json("attach vm1")["ports"][0]["changed"], true);
        assert!(has_xdp("vm1") && tcx("vm1") == 1);
        assert_passes(switch.state(), [vm1, vm2], true);
    }
    // What is not asked for any more need not come back.
    behind_our_back::detach(&pin("xdp"));
    switch.ok("attach vm1 --hook tcx");
    assert!(!has_xdp("vm1") && !pin("xdp").exists());
}

fn a_device_made_anew_under_its_name_keeps_its_hooks() {
    let mut switch = bridged(2);
    switch.ok("attach vm1 --hook tcx");
    switch.ok("attach vm2");
    switch.remove("vm1");
    switch.add(Tap::builder("vm1"));
    ip("link set vm1 master br0");
    assert_eq!(tcx("vm1"), 0);
    assert_eq!(switch.ok("attach vm1"), "vm1: attached to br0 (tcx)\n");
    let [vm2, vm1] = switch.taps();
    introduce(&[vm1, vm2]);
    assert_passes(switch.state(), [vm1, vm2], true);
    assert_eq!(
        fast(switch.state())
            .expect("a fast path")
            .ports()
            .expect("ports")
            .len(),
        2
    );
}

fn ports_whose_device_is_gone_are_cleared_away() {
    let mut switch = bridged(3);
    switch.ok("attach vm1 vm2 vm3");
    {
        let [vm1, vm2, vm3] = switch.taps();
        introduce(&[vm1, vm2, vm3]);
        assert_passes(switch.state(), [vm1, vm2], true);
    }
    switch.remove("vm2");
    let elsewhere = Namespace::create(&unique("tbtest-")).expect("a namespace");
    let path = elsewhere.path().expect("a named namespace");
    ip(&format!("link set vm3 netns {}", path.display()));
    assert_eq!(elsewhere.run(|| tcx("vm3")), 1);
    // By the name that it had.
    assert_eq!(switch.ok("detach vm2"), "vm2: was gone; its place is cleared\n");
    assert_eq!(elsewhere.run(|| tcx("vm3")), 0);
    let fast = fast(switch.state()).expect("a fast path");
    let ports = fast.ports().expect("ports");
    assert_eq!(ports.len(), 1);
    // What went to vm2 has still been sent.
    let paths = fast.paths().expect("paths");
    let all: u64 = paths.iter().map(|(_, counters)| counters.total().frames).sum();
    assert_eq!((paths.len(), paths[0].0.to, all), (1, 0, 1));
    drop(fast);
    switch.remove("vm1");
    assert_eq!(switch.ok("detach --all"), "vm1: was gone; its place is cleared\n");
    assert!(!switch.state().exists());
    elsewhere.run(|| ip("link delete vm3"));
    switch.remove("vm3");
}

/// Taps vm1 and vm2 in br0 of a namespace of their own, attached beside those of a switch.
struct Elsewhere<'switch> {
    switch: &'switch Switch,
    namespace: Namespace,
    taps: [Tap; 2],
}

impl<'switch> Elsewhere<'switch> {
    fn new(switch: &'switch Switch) -> Self {
        let namespace = Namespace::create(&unique("tbtest-")).expect("a namespace");
        let taps = namespace.run(|| {
            lab::netns::disable_ipv6().expect("a quiet namespace");
            let taps = ["vm1", "vm2"].map(|name| Tap::open(name).expect("open a tap"));
            make(2, false);
            taps
        });
        let elsewhere = Self {
            switch,
            namespace,
            taps,
        };
        elsewhere.ok("attach vm1 vm2");
        elsewhere
    }

    fn ok(&self, words: &str) -> String {
        let state = self.switch.state();
        self.namespace.run(|| run(command_in(state, words)).success())
    }

    fn assert_passes(&self, past: bool) {
        let [vm1, vm2] = self.taps.each_ref();
        let state = self.switch.state();
        self.namespace.run(|| assert_passes(state, [vm1, vm2], past));
    }
}

impl Drop for Elsewhere<'_> {
    fn drop(&mut self) {
        self.ok("detach --all");
    }
}

fn bridges_of_one_name_in_two_namespaces_do_not_disturb_each_other() {
    let switch = bridged(2);
    let elsewhere = Elsewhere::new(&switch);
    let near: [&Tap; 2] = switch.taps();
    let far = elsewhere.taps.each_ref();
    // The taps have the same names and the same indexes.
    assert_eq!(near.map(Tap::ifindex), far.map(Tap::ifindex));
    introduce(&near);
    introduce(&far);
    assert_passes(switch.state(), near, false);
    elsewhere.assert_passes(true);
    switch.ok("attach --master br0");
    assert_passes(switch.state(), near, true);
    elsewhere.assert_passes(true);
    assert_silent(&near);
    assert_silent(&far);
    assert_eq!(forwarded(switch.state(), near[0], near[1]).iter().sum::<u64>(), 1);
    elsewhere.ok("detach --all");
    assert_passes(switch.state(), near, true);
    elsewhere.assert_passes(false);
    elsewhere.ok("attach vm1");
    switch.ok("detach --all");
    assert!(switch.state().exists());
    assert_passes(switch.state(), near, false);
    elsewhere.assert_passes(true);
}

fn the_fast_path_of_a_namespace_that_is_gone_is_cleared_away() {
    let switch = bridged(1);
    let state = switch.state();
    let namespace = Namespace::create(&unique("tbtest-")).expect("a namespace");
    namespace.run(|| {
        let _tap = Tap::open("vm1").expect("open a tap");
        make(1, false);
        run(command_in(state, "attach vm1")).success();
    });
    let left = folder(&switch);
    switch.ok("attach vm1");
    assert!(left.exists(), "somebody may still use it");
    drop(namespace);
    // The kernel takes its time.
    let deadline = Instant::now() + LIMIT;
    while left.exists() {
        assert!(Instant::now() < deadline, "{} after {LIMIT:?}", left.display());
        switch.ok("attach vm1");
    }
    switch.ok("detach --all");
    assert!(!state.exists());
}

fn no_frame_is_lost_doubled_or_overtaken_while_ports_are_attached_and_detached() {
    let switch = bridged(2);
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    // It says nothing more, and this may take longer than addresses last.
    bridge(&format!("fdb replace {} dev vm2 master static", text(mac(2))));
    let carries = |hook: Hook| {
        let before = forwarded(switch.state(), vm1, vm2)[hook as usize];
        let end = Instant::now() + LIMIT;
        while forwarded(switch.state(), vm1, vm2)[hook as usize] < before + 100 {
            assert!(Instant::now() < end, "no frames by {} in {LIMIT:?}", hook.name());
        }
    };
    under_load([vm1, vm2], || {
        for _ in 0..15 {
            switch.ok("attach vm1 vm2 --hook xdp");
            carries(Hook::Xdp);
            switch.ok("attach vm1 --hook tcx");
            carries(Hook::Tcx);
            switch.ok("attach vm1 --hook xdp");
            carries(Hook::Xdp);
            switch.ok("detach vm2");
            carries(Hook::Xdp);
            switch.ok("detach vm1");
        }
    });
    assert_silent(&[vm2]);
}

/// The bridge works, and has its ports past it after an attach.
#[track_caller]
fn assert_works(switch: &Switch, taps: &[&Tap; 3]) {
    drain(taps);
    introduce(taps);
    assert_passes(switch.state(), [taps[0], taps[1]], true);
    for tap in ["vm1", "vm2", "vm3"] {
        assert!(has_xdp(tap) && tcx(tap) == 1, "{tap}");
    }
}

fn a_killed_attach_is_undone_by_the_next_command() {
    let switch = bridged(3);
    let taps: [&Tap; 3] = switch.taps();
    let mut random = Random::new(11);
    for round in 0..12 {
        let new = round % 2 == 0;
        if !new {
            switch.ok("attach vm3 --hook xdp");
        }
        // Most of the time of a new one the verifier takes.
        let longest = if new { 600_000 } else { 60_000 };
        let time = Duration::from_micros(random.number() % longest);
        switch.kill_after("attach vm1 vm2 vm3 --hook xdp", time);
        match round % 4 {
            0 | 1 => {
                switch.ok("attach vm1 vm2 vm3 --hook xdp");
                assert_works(&switch, &taps);
            }
            2 => drop(switch.tapbridge("detach vm2")),
            _ => {}
        }
        switch.ok("detach --all");
        assert!(!switch.state().exists(), "round {round}, killed after {time:?}");
        assert!(
            !has_xdp("vm1") && tcx("vm1") == 0 && tcx("vm2") == 0,
            "round {round}, killed after {time:?}"
        );
    }
}

fn a_killed_detach_is_finished_by_the_next_command() {
    let switch = bridged(3);
    let taps: [&Tap; 3] = switch.taps();
    let mut random = Random::new(12);
    for round in 0..12 {
        switch.ok("attach vm1 vm2 vm3 --hook xdp");
        assert_works(&switch, &taps);
        let time = Duration::from_micros(random.number() % 60_000);
        let words = if round % 2 == 0 {
            "detach --all"
        } else {
            "detach vm2 vm1"
        };
        switch.kill_after(words, time);
        // Whatever state it was killed in, frames get through.
        drain(&taps);
        introduce(&taps);
        if round % 3 != 0 {
            continue;
        }
        switch.ok("detach --all");
        assert!(!switch.state().exists(), "round {round}, killed after {time:?}");
        assert!(
            !has_xdp("vm1") && tcx("vm1") == 0,
            "round {round}, killed after {time:?}"
        );
    }
}

/// Frames and bytes that a device has received, as `ip -s link` tells them.
fn received(device: &str) -> (u64, u64) {
    let shown: Value = serde_json::from_str(&ip(&format!("-s -j link show dev {device}"))).expect("JSON");
    let received = &shown[0]["stats64"]["rx"];
    let number = |key: &str| received[key].as_u64().expect("a number");
    (number("packets"), number("bytes"))
}

fn every_frame_of_a_port_is_counted_where_it_went() {
    let mut switch = bridged(4);
    ip("link set vm4 nomaster");
    {
        let [vm1, vm2, vm3, _] = switch.taps();
        introduce(&[vm1, vm2, vm3]);
        switch.ok("attach vm1 vm2 --hook xdp");
        let before = ["vm1", "vm2"].map(received);
        assert_passes_by(switch.state(), [vm1, vm2], Hook::Xdp);
        assert_passes_by(switch.state(), [vm1, vm3], Hook::Xdp);
        switch.ok("attach vm1 --hook tcx");
        assert_passes_by(switch.state(), [vm1, vm2], Hook::Tcx);
        introduce(&[vm1, vm2, vm3]);
        let unknown = Flow::tcp(2, 9).frame(b"who is that?");
        send(vm2, &unknown);
        for tap in [vm1, vm3] {
            assert_receives(tap, &unknown);
        }
        let (header, frame) = segmented(&Flow::tcp(2, 1).frame(&payload(20_000)), 1400);
        send_with(vm2, &header, &frame);
        assert_receives_gso(vm1, &header, &frame);

        let bridge = switch.stats();
        assert_eq!(bridge.bridge.as_deref(), Some("br0"));
        for (name, (frames, bytes)) in ["vm1", "vm2"].into_iter().zip(before) {
            let after = received(name);
            let rx = bridge.port(name).rx;
            assert_eq!(rx.frames, after.0 - frames, "{name}: {bridge:#?}");
            assert_eq!(rx.bytes, after.1 - bytes, "{name}: {bridge:#?}");
        }
        let (xdp, tcx) = bridge.frames("vm1", "vm2");
        assert!(xdp > 0 && tcx > 0, "{bridge:#?}");
        let (past, third) = (bridge.frames("vm2", "vm1"), bridge.frames("vm1", "vm3"));
        assert_eq!(past, (0, 1), "{bridge:#?}");
        assert_eq!(bridge.port("vm1").tx.frames, 1, "{bridge:#?}");
        assert_eq!(bridge.port("vm2").tx.frames, xdp + tcx, "{bridge:#?}");
        let vm2 = bridge.port("vm2");
        assert_eq!(vm2.left_by_reason["group"], 1, "{bridge:#?}");
        assert_eq!(vm2.left_by_reason["destination_unknown"], 1, "{bridge:#?}");
        assert_eq!(vm2.passed_up_by_reason["generic"], 1, "{bridge:#?}");
        assert_eq!((vm2.gso_frames, vm2.bulk.frames), (1, 1), "{bridge:#?}");
        let table = switch.ok("stats");
        for words in [
            &["br0"][..],
            &["vm1", "vm3", "xdp", &third.0.to_string()],
            &["vm2", "destination_unknown", "1"],
        ] {
            let has = |line: &str| line.split_whitespace().collect::<Vec<_>>().starts_with(words);
            assert!(table.lines().any(has), "no {words:?} in\n{table}");
        }
    }
    // What went to a device that is no more has still been sent.
    let before = switch.stats();
    switch.remove("vm3");
    switch.ok("attach vm1");
    let after = switch.stats();
    assert_eq!(
        after.frames_to_gone("vm1"),
        before.frames("vm1", "vm3"),
        "{after:#?}"
    );
    assert_eq!(after.port("vm1").rx, before.port("vm1").rx, "{after:#?}");
    assert!(switch.ok("stats").contains("(gone)"));
}

fn statistics_of_one_bridge_are_those_of_its_ports() {
    let switch = bridged(4);
    ip("link add br1 up type bridge mcast_snooping 0");
    ip("link set vm3 master br1");
    ip("link set vm4 nomaster");
    switch.ok("attach vm1 vm2 vm3 vm4");
    ip("link set vm2 nomaster");
    let names = |statistics: &Value| -> Vec<Value> {
        let bridges = statistics["bridges"].as_array().expect("bridges");
        let told = bridges
            .iter()
            .map(|bridge| json!([bridge["bridge"], bridge["ports"][0]["ifname"]]));
        told.collect()
    };
    let all = switch.json("stats");
    assert_eq!(
        names(&all),
        [
            json!(["br0", "vm1"]),
            json!(["br1", "vm3"]),
            json!(["tapbridge", "vm4"]),
            json!([null, "vm2"])
        ]
    );
    let one = switch.json("stats --bridge br1");
    assert_eq!(names(&one), [json!(["br1", "vm3"])]);
    let own = switch.json("stats --bridge tapbridge");
    assert_eq!(names(&own), [json!(["tapbridge", "vm4"])]);
    let complaint = switch.fails("stats --bridge br2");
    assert!(complaint.contains("br2"), "{complaint}");
    ip("link set vm2 master br0");
}

fn what_is_half_made_is_made_anew_or_cleared_away() {
    let switch = bridged(2);
    let [vm1, vm2] = switch.taps();
    for missing in [fastpath::map::SETTINGS, fastpath::map::PORTS] {
        for words in ["attach vm1 vm2", "detach --all"] {
            switch.ok("attach vm1 vm2 --hook xdp");
            let folder = folder(&switch);
            fs::remove_file(folder.join(missing)).expect("unpin a map");
            if missing == fastpath::map::PORTS {
                // As `detach` takes it apart.
                fs::remove_file(folder.join(fastpath::map::SETTINGS)).expect("unpin a map");
            }
            switch.ok(words);
            if words.starts_with("attach") {
                introduce(&[vm1, vm2]);
                assert_passes(switch.state(), [vm1, vm2], true);
                switch.ok("detach --all");
            }
            assert!(!switch.state().exists(), "{words} without {missing}");
            assert!(!has_xdp("vm1") && tcx("vm1") == 0, "{words} without {missing}");
        }
    }
}
