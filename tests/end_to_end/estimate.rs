//! `estimate`: it changes nothing, what it counts is what is sent, and what it says would become of frames does.

use std::{
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use lab::{Namespace, Tap, VnetHeader};
use serde_json::{Value, json};

use crate::support::{
    end::EndOnDrop,
    frames::{Flow, Mac, hello, partial, segmented},
    linux_bridge::{introduce, linux_bridge, stop_learning},
    program::{LIMIT, bridge, happens, ip, link, run, signal, tc},
    running::Running,
    schema,
    switch::Switch,
    wire::{drain, send_with},
};

crate::tests![
    watched_frames_arrive_as_they_do_unwatched_and_then_go_the_ways_that_were_foretold,
    what_attached_ports_do_is_told,
    what_the_holders_of_taps_take_is_told_without_and_with_the_programs,
    who_lets_go_of_a_tap_meanwhile_is_left_out,
    a_tap_whose_holder_is_elsewhere_is_named,
    a_port_whose_frames_all_stay_gains_nothing,
    a_program_that_would_be_in_the_way_is_seen,
    what_would_be_in_the_way_of_xdp_is_seen,
    ports_that_change_meanwhile_are_marked_and_those_attached_are_left_alone,
    killed_or_interrupted_it_leaves_nothing_behind,
    people_are_told_what_programs_are,
    what_can_not_be_watched_is_refused,
];

/// Those that need rules.
pub const FILTER_TESTS: &[crate::Test] = &[(
    "where_rules_of_ip_are_called_what_they_would_see_stays",
    where_rules_of_ip_are_called_what_they_would_see_stays,
)];

/// Those that need a bridge that filters VLANs.
pub const VLAN_TESTS: &[crate::Test] = &[(
    "where_vlans_are_filtered_xdp_carries_what_leaves_as_it_came",
    where_vlans_are_filtered_xdp_carries_what_leaves_as_it_came,
)];

/// Nobody has it.
const UNKNOWN: Mac = [2, 0, 0, 0, 0, 0x99];

/// What it says when frames are watched.
const WATCHING: &str = "watching frames… Ctrl-C ends it";

/// Starts it with these words, and waits until frames are watched.
#[track_caller]
fn watching(switch: &Switch, words: &str) -> Running {
    Running::saying(to_watch(switch, words), WATCHING)
}

fn to_watch(switch: &Switch, words: &str) -> Command {
    // Whoever ends it sooner has VMMs measured for longer than it would have needed.
    let time = if words.contains("--time") {
        ""
    } else {
        " --time 10"
    };
    switch.command(&format!("estimate {words}{time}"))
}

/// What it says when Ctrl-C has been pressed, a second after it has begun.
#[track_caller]
fn end(watching: &Running) -> Value {
    thread::sleep(Duration::from_secs(1));
    signal(watching.child(), "INT");
    let document = serde_json::from_str(&watching.line()).expect("a JSON document");
    schema::check("estimate", &document);
    document
}

fn bridge_address(bridge: &str) -> Mac {
    let link = link(bridge).expect("a bridge");
    let text = link["address"].as_str().expect("an address");
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).expect("a byte"))
        .collect();
    bytes.try_into().expect("six bytes")
}

/// Frames of all kinds from station 1: what XDP carries as it is and completed, what it leaves to tcx, and what stays with
/// the bridge.
fn frames(host: Mac) -> Vec<(VnetHeader, Vec<u8>)> {
    let whole = |frame: Vec<u8>| (VnetHeader::none(), frame);
    let mut frames = Vec::new();
    for length in [60, 128, 129, 900, 1514] {
        frames.push(whole(Flow::udp(1, 2).of_length(length)));
    }
    for length in [100, 1000, 1400, 1514] {
        frames.push(partial(&Flow::tcp(1, 2).of_length(length)));
    }
    for payload in [[b'1'; 40], [b'2'; 40], [b'3'; 40]] {
        frames.push(whole(Flow::udp(1, 3).without_checksum(&payload)));
    }
    for length in [5000, 60_000] {
        frames.push(segmented(&Flow::tcp(1, 2).of_length(length), 1400));
    }
    for to in [UNKNOWN, host] {
        for payload in [&b"first"[..], b"second"] {
            frames.push(whole(Flow::udp(1, 2).to(to).frame(payload)));
        }
    }
    frames.push(whole(hello(1)));
    frames
}

/// What would become of them, or becomes.
const BY_XDP: u64 = 5 + 4;
const BY_TCX: u64 = 3 + 2;
const LEFT: u64 = 2 + 2 + 1;

/// Sends them; answers with all that the other taps have received.
fn send_all(taps: [&Tap; 3], frames: &[(VnetHeader, Vec<u8>)]) -> Vec<Vec<(VnetHeader, Vec<u8>)>> {
    let mut received = vec![Vec::new(); taps.len()];
    for (header, frame) in frames {
        send_with(taps[0], header, frame);
        for (tap, received) in taps.iter().zip(&mut received) {
            // The bridge works inside the sender's system call.
            while let Some(frame) = tap.receive(Duration::ZERO).expect("receive") {
                received.push(frame);
            }
        }
    }
    received
}

#[track_caller]
fn port<'document>(document: &'document Value, name: &str) -> &'document Value {
    let ports = document["bridges"][0]["ports"].as_array().expect("ports");
    let port = ports.iter().find(|port| port["ifname"] == name);
    port.unwrap_or_else(|| panic!("no {name} in {document:#}"))
}

/// Frames from a port, past the bridge by each hook, and left.
fn counts(port: &Value) -> [u64; 4] {
    ["frames", "by_xdp", "by_tcx", "left"].map(|key| port[key].as_u64().expect("a count"))
}

fn watched_frames_arrive_as_they_do_unwatched_and_then_go_the_ways_that_were_foretold() {
    let switch = linux_bridge(3, false);
    let taps = switch.taps();
    introduce(&taps);
    // However long it takes, no frame is one by which the bridge is to see that the station is there.
    stop_learning("vm1");
    let frames = frames(bridge_address("br0"));
    let unwatched = send_all(taps, &frames);
    let watching = watching(&switch, "--master br0 -j");
    let watched = send_all(taps, &frames);
    assert!(watched == unwatched, "frames are others where they are watched");
    let document = end(&watching);

    let bridge = &document["bridges"][0];
    assert_eq!(
        (&bridge["bridge"], &bridge["confidence"]),
        (&json!("br0"), &json!("few_frames"))
    );
    let told = port(&document, "vm1");
    let expected = [frames.len() as u64, BY_XDP, BY_TCX, LEFT];
    assert_eq!(counts(told), expected, "{document:#}");
    assert_eq!(counts(bridge), expected, "{document:#}");
    assert_eq!(told["attached"], false);
    let bytes: usize = frames.iter().map(|(_, frame)| frame.len()).sum();
    assert_eq!(told["bytes"], bytes);
    let expected = json!({ "gso": 2, "to_128": 11, "to_512": 1, "to_1024": 2, "to_1518": 3 });
    assert_eq!(told["sizes"], expected);
    let left: Vec<_> = bridge["left_by_reason"]
        .as_array()
        .expect("reasons")
        .iter()
        .collect();
    let mut left: Vec<_> = left
        .into_iter()
        .map(|left| (left["reason"].as_str().expect("a name"), left["frames"].as_u64()))
        .collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            ("destination_unknown", Some(2)),
            ("group", Some(1)),
            ("host", Some(2))
        ]
    );
    let paths = json!([
        { "from": "vm1", "to": "vm2", "by_xdp": 9, "by_tcx": 2 },
        { "from": "vm1", "to": "vm3", "by_xdp": 0, "by_tcx": 3 },
    ]);
    assert_eq!(bridge["paths"], paths);

    switch.ok("attach --master br0 --hook xdp");
    let accelerated = send_all(taps, &frames);
    assert_eq!(
        accelerated.iter().map(Vec::len).collect::<Vec<_>>(),
        unwatched.iter().map(Vec::len).collect::<Vec<_>>()
    );
    let statistics = switch.json("stats");
    let bridge = &statistics["bridges"][0];
    let by = |via: &str| -> u64 {
        let paths = bridge["paths"].as_array().expect("paths").iter();
        let via = paths.filter(|path| path["via"] == via);
        via.map(|path| path["frames"].as_u64().expect("a count")).sum()
    };
    assert_eq!([by("xdp"), by("tcx")], [BY_XDP, BY_TCX], "{statistics:#}");
    let counted = &bridge["ports"][0];
    assert_eq!(
        counted["left_by_reason"],
        json!({ "destination_unknown": 2, "group": 1, "host": 2 })
    );
}

fn what_attached_ports_do_is_told() {
    let switch = linux_bridge(3, false);
    let taps = switch.taps();
    introduce(&taps);
    stop_learning("vm1");
    let frames = frames(bridge_address("br0"));
    switch.ok("attach vm1 --hook xdp");
    let watching = watching(&switch, "-j");
    send_all(taps, &frames);
    let document = end(&watching);
    let told = port(&document, "vm1");
    let expected = [frames.len() as u64, BY_XDP, BY_TCX, LEFT];
    assert_eq!(counts(told), expected, "{document:#}");
    assert_eq!(
        (&told["attached"], &told["hooks"]),
        (&json!(true), &json!(["xdp", "tcx"]))
    );
    assert_eq!(port(&document, "vm2")["attached"], false);
    // The program that looks is at no attached port, whose own would leave everything then.
    switch.stats().assert_conservation();
}

#[track_caller]
fn value(estimate: &Value) -> f64 {
    let value = if estimate.is_object() {
        &estimate["value"]
    } else {
        estimate
    };
    value.as_f64().unwrap_or_else(|| panic!("no number: {estimate}"))
}

/// What the holders of taps take with none attached, now, and with all attached, and what is saved.
fn taken(document: &Value) -> [f64; 4] {
    let vmms = &document["bridges"][0]["vmms"];
    ["bare", "cpus", "accelerated", "saves"].map(|key| value(&vmms[key]))
}

#[track_caller]
fn assert_equal(one: f64, other: f64, document: &Value) {
    // Each is told to a millionth.
    assert!((one - other).abs() < 3e-6, "{one} and {other}: {document:#}");
}

/// The process and the taps that it holds, of those that hold any.
fn holders(document: &Value) -> Value {
    let processes = document["bridges"][0]["vmms"]["processes"].as_array();
    let processes = processes.into_iter().flatten();
    processes
        .map(|process| json!([process["pid"], process["ports"]]))
        .collect()
}

fn what_the_holders_of_taps_take_is_told_without_and_with_the_programs() {
    let switch = linux_bridge(2, false);
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    stop_learning("vm1");
    let expected = json!([[std::process::id(), ["vm1", "vm2"]]]);
    let frame = Flow::udp(1, 2).frame(b"some work");
    // All the time: VMMs are measured before their frames are watched.
    let estimated = || {
        let ended = AtomicBool::new(false);
        let sending = EndOnDrop(&ended);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    send_with(vm1, &VnetHeader::none(), &frame);
                    drain(&[vm2]);
                }
            });
            let document = end(&watching(&switch, "--master br0 -j"));
            drop(sending);
            document
        })
    };

    let document = estimated();
    assert_eq!(holders(&document), expected, "{document:#}");
    let [bare, now, accelerated, saves] = taken(&document);
    assert_equal(bare, now, &document);
    // In each round of the trial it is less by what is saved then.
    assert!(
        saves > 0.0 && 0.0 < accelerated && accelerated < now,
        "{document:#}"
    );
    let observer = value(&document["bridges"][0]["frame_ns"]["observer"]);
    assert!(observer > 0.0, "{document:#}");

    switch.ok("attach --master br0 --hook xdp");
    let document = estimated();
    assert_eq!(holders(&document), expected, "{document:#}");
    let [bare, now, accelerated, saves] = taken(&document);
    assert_equal(accelerated, now, &document);
    assert!(saves > 0.0, "{document:#}");
    assert_equal(bare, now + saves, &document);
}

/// A process that holds a tap, and nothing else.
struct Holder(Child);

impl Holder {
    fn of(tap: &Tap) -> Self {
        let tap = tap.as_fd().try_clone_to_owned().expect("a descriptor");
        let mut sleep = Command::new("sleep");
        let sleep = sleep.arg("300").stdin(Stdio::from(tap));
        Self(sleep.spawn().expect("start sleep"))
    }

    fn end(&mut self) {
        self.0.kill().expect("kill sleep");
        self.0.wait().expect("wait for sleep");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn who_lets_go_of_a_tap_meanwhile_is_left_out() {
    let switch = linux_bridge(2, false);
    introduce(&switch.taps::<2>());
    let mut goes = Holder::of(switch.tap("vm1"));
    let stays = Holder::of(switch.tap("vm2"));
    let (own, stays_id) = (std::process::id(), stays.0.id());
    let watching = watching(&switch, "--master br0 -j");
    goes.end();
    let document = end(&watching);
    let mut expected = [
        (own, json!([own, ["vm1", "vm2"]])),
        (stays_id, json!([stays_id, ["vm2"]])),
    ];
    expected.sort_by_key(|(pid, _)| *pid);
    let expected: Value = expected.into_iter().map(|(_, holder)| holder).collect();
    assert_eq!(holders(&document), expected, "{document:#}");
    let bridge = &document["bridges"][0];
    assert_eq!(
        bridge["vmms_note"], "one that came or went meanwhile is left out",
        "{document:#}"
    );
    drop(stays);
}

fn a_tap_whose_holder_is_elsewhere_is_named() {
    let switch = linux_bridge(2, false);
    let here = Namespace::current().expect("this namespace");
    let words = format!(
        "-n {} estimate --master br0 --time 1 -j",
        here.handle_path().display()
    );
    // Until this is dropped no thread of this process is where its taps are.
    let elsewhere = Namespace::anonymous().expect("a namespace");
    let entered = elsewhere.enter().expect("enter it");
    let document = run(switch.command(&words)).json();
    drop(entered);
    schema::check("estimate", &document);
    let bridge = &document["bridges"][0];
    assert_eq!(bridge["vmms"], Value::Null, "{document:#}");
    assert_eq!(bridge["vmms_note"], "who holds vm1, vm2 is not in sight");
}

fn a_port_whose_frames_all_stay_gains_nothing() {
    let switch = linux_bridge(2, false);
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    let watching = watching(&switch, "--master br0 -j");
    for _ in 0..2000 {
        send_with(
            vm1,
            &VnetHeader::none(),
            &Flow::udp(1, 2).to(UNKNOWN).frame(b"to nobody"),
        );
        drain(&[vm2]);
    }
    let document = end(&watching);
    let told = port(&document, "vm1");
    assert_eq!(counts(told), [2000, 0, 0, 2000], "{document:#}");
    assert!(
        value(&told["saves"]) <= 0.0 && value(&told["ratio"]) >= 1.0,
        "{document:#}"
    );
    let [bare, _, accelerated, saves] = taken(&document);
    assert!(saves <= 0.0 && accelerated >= bare, "{document:#}");
}

fn nft(words: &str) {
    let mut nft = Command::new("nft");
    nft.arg(words);
    run(nft).success();
}

fn where_rules_of_ip_are_called_what_they_would_see_stays() {
    let switch = linux_bridge(2, true);
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    stop_learning("vm1");
    let foretell = || {
        let watching = watching(&switch, "--master br0 -j");
        send_with(vm1, &VnetHeader::none(), &Flow::udp(1, 2).frame(b"called for"));
        drain(&[vm2]);
        end(&watching)
    };
    let document = foretell();
    assert_eq!(counts(port(&document, "vm1")), [1, 1, 0, 0], "{document:#}");
    assert_eq!(document["bridges"][0]["idle_hooks"], json!([]), "{document:#}");
    nft("add table ip t; add chain ip t c {type filter hook forward priority 0;}");
    let document = foretell();
    nft("delete table ip t");
    assert_eq!(counts(port(&document, "vm1")), [1, 0, 0, 1], "{document:#}");
    let left = &document["bridges"][0]["left_by_reason"][0];
    assert_eq!(left["reason"], "bridge_filter", "{document:#}");
}

/// Of two access ports and a trunk.
fn where_vlans_are_filtered_xdp_carries_what_leaves_as_it_came() {
    let switch = linux_bridge(3, false);
    let [vm1, vm2, vm3] = switch.taps();
    ip("link set br0 type bridge vlan_filtering 1");
    bridge("vlan add dev vm3 vid 1 pvid");
    introduce(&[vm1, vm2]);
    send_with(vm3, &VnetHeader::none(), &hello(3));
    drain(&[vm1, vm2]);
    stop_learning("vm1");
    let send = || {
        for to in [2, 3] {
            send_with(vm1, &VnetHeader::none(), &Flow::udp(1, to).frame(b"in a VLAN"));
        }
        drain(&[vm2, vm3]);
    };
    let watching = watching(&switch, "--master br0 -j");
    send();
    let document = end(&watching);
    assert_eq!(counts(port(&document, "vm1")), [2, 1, 1, 0], "{document:#}");
    assert_eq!(document["bridges"][0]["idle_hooks"], json!([]), "{document:#}");
    switch.ok("attach --master br0 --hook xdp");
    send();
    let statistics = switch.json("stats");
    let paths = statistics["bridges"][0]["paths"].as_array().expect("paths");
    let mut via: Vec<_> = paths
        .iter()
        .map(|path| path["via"].as_str().expect("a hook"))
        .collect();
    via.sort_unstable();
    assert_eq!(via, ["tcx", "xdp"], "{statistics:#}");
}

fn a_program_that_would_be_in_the_way_is_seen() {
    let switch = linux_bridge(2, false);
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    stop_learning("vm1");
    let deadline = Instant::now() + LIMIT;
    let (other, watching) = loop {
        // Another one that looks is a program as any. On a busy machine one may be over before the other looks.
        let both = thread::scope(|scope| {
            let other = to_watch(&switch, "vm1 -j");
            let other = scope.spawn(|| Running::saying(other, WATCHING));
            let watching = watching(&switch, "--master br0 -j");
            (other.join().expect("it watches"), watching)
        });
        send_with(vm1, &VnetHeader::none(), &Flow::udp(1, 2).frame(b"met twice"));
        send_with(vm2, &VnetHeader::none(), &Flow::udp(2, 1).frame(b"met once"));
        if programs("vm1") == 2 {
            break both;
        }
        assert!(Instant::now() < deadline, "two never look at once");
    };
    for document in [end(&watching), end(&other)] {
        let told = port(&document, "vm1");
        assert_eq!(counts(told), [1, 0, 0, 1], "{document:#}");
        assert_eq!(told["obstacles"][0]["reason"], "ingress_filter", "{document:#}");
    }
    drain(&[vm1, vm2]);
}

fn what_would_be_in_the_way_of_xdp_is_seen() {
    let switch = linux_bridge(2, false);
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    stop_learning("vm1");
    tc("qdisc add dev vm2 root tbf rate 1gbit burst 10kb latency 1ms");
    let watching = watching(&switch, "--master br0 -j");
    send_with(vm1, &VnetHeader::none(), &Flow::udp(1, 2).frame(b"shaped"));
    let document = end(&watching);
    drain(&[vm2]);
    tc("qdisc del dev vm2 root");
    let told = port(&document, "vm1");
    assert_eq!(counts(told), [1, 0, 1, 0], "{document:#}");
    let obstacle = &told["obstacles"][0];
    assert_eq!(obstacle["reason"], "queueing", "{document:#}");
    let text = obstacle["text"].as_str().expect("words");
    assert!(text.contains("tc qdisc show dev vm2"), "{text}");
}

fn ports_that_change_meanwhile_are_marked_and_those_attached_are_left_alone() {
    let mut switch = linux_bridge(3, false);
    introduce(&switch.taps::<3>());
    let watching = watching(&switch, "--master br0 -j");
    switch.ok("attach vm1");
    switch.remove("vm3");
    let only_ours = || {
        SchedClassifier::query_tcx("vm1", TcAttachType::Ingress)
            .expect("programs")
            .1
            .len()
            == 1
    };
    assert!(happens(LIMIT, only_ours), "its own program keeps company");
    let document = end(&watching);
    let note = |name: &str| port(&document, name)["note"].as_str().map(str::to_owned);
    assert!(note("vm1").is_some() && note("vm3").is_some(), "{document:#}");
    assert_eq!(note("vm2"), None, "{document:#}");
}

/// How many there are at tcx.
fn programs(tap: &str) -> usize {
    let programs = SchedClassifier::query_tcx(tap, TcAttachType::Ingress);
    programs.expect("programs at tcx").1.len()
}

fn is_watched(tap: &str) -> bool {
    programs(tap) > 0
}

fn killed_or_interrupted_it_leaves_nothing_behind() {
    let switch = linux_bridge(2, false);
    for name in ["KILL", "TERM", "INT"] {
        let watching = watching(&switch, "--master br0");
        assert!(is_watched("vm1") && is_watched("vm2"));
        let status = watching.stop(name);
        // Within a second there is nothing to tell.
        let expected: &[_] = if name == "KILL" {
            &[None]
        } else {
            &[Some(0), Some(1)]
        };
        assert!(expected.contains(&status.code()), "{name}: {status}");
        // The kernel takes a program off some time after the last descriptor of its link is closed.
        assert!(
            happens(LIMIT, || !is_watched("vm1") && !is_watched("vm2")),
            "{name}: programs stay"
        );
    }
    assert!(!switch.state().exists());
}

fn people_are_told_what_programs_are() {
    let switch = linux_bridge(2, false);
    let [vm1, vm2] = switch.taps();
    introduce(&[vm1, vm2]);
    let watching = watching(&switch, "--master br0 --time 2");
    send_with(vm1, &VnetHeader::none(), &hello(1));
    let said: Vec<String> = (0..12).map(|_| watching.line()).collect();
    drain(&[vm2]);
    let watched = said[0].strip_prefix("br0: 2 ports, watched for ");
    let seconds = watched.and_then(|watched| watched.strip_suffix(" s")?.parse::<f64>().ok());
    // A busy machine watches for longer than was asked.
    assert!(seconds.is_some_and(|seconds| seconds >= 2.0), "{said:#?}");
    assert!(said[1].starts_with("  its VMMs (1 process) take "), "{said:#?}");
    assert!(said[2].starts_with("  with all attached "), "{said:#?}");
    assert!(said[5].contains("100 % stay with br0"), "{said:#?}");
    assert!(said[7].contains("too few frames (1);"), "{said:#?}");
    assert!(said[8].starts_with("  PORT"), "{said:#?}");
    assert!(said[11].starts_with("  STAYS"), "{said:#?}");
    let widest = said.iter().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{said:#?}");
}

fn what_can_not_be_watched_is_refused() {
    let switch = Switch::detached(1);
    for (words, complaint) in [
        ("nobody", "nobody: no such network device"),
        ("vm1", "vm1: can't be a port: it has no Linux bridge"),
        ("--master vm1", "vm1: not a Linux bridge"),
        ("--master nobody", "nobody: no such network device"),
        ("", "this network namespace: there are no ports"),
    ] {
        let said = switch.fails(&format!("estimate {words}"));
        assert!(said.contains(complaint), "{words}: {said}");
    }
    ip("link add br0 up type bridge");
    for (words, complaint) in [
        ("br0", "br0: can't be a port: it is a bridge"),
        ("--master br0", "br0: there are no ports"),
    ] {
        let said = switch.fails(&format!("estimate {words}"));
        assert!(said.contains(complaint), "{words}: {said}");
    }
    switch.tapbridge("estimate vm1 --time 0.5").failure(2);
    ip("link del br0");
}
