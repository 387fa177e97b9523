//! `run` with a configuration while taps come and go by the hundred, while it is killed, and while it hears nothing: what the
//! other ports carry is not touched by it, and nothing is left behind.
//!
//! Taps come and go for five seconds, or for `TAPBRIDGE_HOTPLUG_SECONDS`.

use std::{
    env,
    fmt::Write as _,
    fs, mem,
    path::Path,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use lab::Tap;
use serde_json::{Value, json};

use super::{
    behind_our_back::detach,
    configuration::{File, attached, follow, port},
    run::send_until_change,
};
use crate::support::{
    end::EndOnDrop,
    frames::{Flow, mac, partial, text},
    linux_bridge::{introduce, make},
    load::talk,
    program::{bridge, happens, ip, run, signal, tc},
    random::Random,
    running::Running,
    sniffer::Sniffer,
    statistics::Bridge,
    switch::Switch,
    wire::send,
};

crate::tests![
    a_hundred_taps_come_and_go_and_nothing_is_lost_or_left,
    a_killed_one_loses_nothing_and_the_next_goes_on,
    one_that_could_not_be_told_all_looks_at_all,
    a_program_that_was_taken_off_comes_back_while_much_is_told_of,
    hooks_follow_what_is_put_in_the_way_behind_its_back,
];

const SECONDS: u64 = 5;
const VISITORS: usize = 100;
/// KiB that the lists of a hundred devices may take; what stayed of every device would be more after ten minutes.
const MARGIN: u64 = 12 * 1024;
/// By then a machine under load has done what it was told of.
const SOON: Duration = Duration::from_mins(1);

fn seconds() -> Duration {
    let wished = env::var("TAPBRIDGE_HOTPLUG_SECONDS").ok();
    Duration::from_secs(wished.map_or(SECONDS, |wished| {
        wished.parse().expect("TAPBRIDGE_HOTPLUG_SECONDS: a number")
    }))
}

/// Stations whose taps stay: one talks to another, and others to the third.
struct Talkers {
    taps: [Tap; 3],
}

impl Talkers {
    /// As ports of br0, known to it.
    fn new(switch: &Switch) -> Self {
        let taps = ["keep1", "keep2", "keep3"].map(port);
        switch.ok("attach keep1 keep2 keep3");
        introduce(&taps.each_ref());
        for (tap, station) in taps.iter().zip(1..) {
            // Whatever time it takes, and whoever talks.
            let address = text(mac(station));
            bridge(&format!("fdb replace {address} dev {} master static", tap.name()));
        }
        Self { taps }
    }

    /// The first talks to the second.
    fn talk(&self, end: &AtomicBool) -> u32 {
        let [from, to, _] = &self.taps;
        talk(from, to, end)
    }
}

/// Does something while they talk, nothing of which may be lost, doubled or overtaken, and all of which is counted.
#[track_caller]
fn beside<T>(switch: &Switch, talkers: &Talkers, work: impl FnOnce() -> T) -> T {
    let counted = || {
        let bridges = switch.all_stats();
        let of_br0 = |bridge: &&Bridge| bridge.bridge.as_deref() == Some("br0");
        bridges.iter().find(of_br0).expect("br0").port("keep1").rx.frames
    };
    let before = counted();
    let end = AtomicBool::new(false);
    let (result, sent) = thread::scope(|scope| {
        let ended = EndOnDrop(&end);
        let talk = scope.spawn(|| talkers.talk(&end));
        let result = work();
        drop(ended);
        (result, talk.join().expect("every frame arrives, in order"))
    });
    assert_eq!(counted(), before + u64::from(sent));
    assert!(sent > 100, "{sent} frames");
    result
}

/// What a process has of the machine: descriptors, and KiB of memory.
fn held(process: u32) -> (usize, u64) {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).expect("descriptors");
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a status");
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let memory = memory.and_then(|memory| memory.trim().strip_suffix(" kB"));
    (
        descriptors.count(),
        memory.expect("VmRSS").trim().parse().expect("a number"),
    )
}

/// What is pinned, by name.
fn pins(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("pins").flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn attached_ports(switch: &Switch) -> usize {
    let ports = switch.all_shown();
    ports.iter().filter(|port| port["attached"] == true).count()
}

fn a_hundred_taps_come_and_go_and_nothing_is_lost_or_left() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let talkers = Talkers::new(&switch);
    let running = follow(&switch, &file);
    let process = running.child().id();
    let folder = switch.folder().expect("something pinned");
    let mut random = Random::new(1);
    let mut visitors: Vec<Option<Tap>> = (0..VISITORS).map(|_| None).collect();
    let mut churn = |time: Duration, least: usize| {
        let end = Instant::now() + time;
        let mut came = 0;
        while Instant::now() < end || came < least {
            let place = usize::try_from(random.number() % 100).expect("small");
            if visitors[place].take().is_none() {
                let tap = port(&format!("vnet{place}"));
                // It says something, whether it is attached by then or not.
                send(&tap, &Flow::udp(9, 3).frame(b"here I am"));
                visitors[place] = Some(tap);
                came += 1;
            }
        }
        visitors.fill_with(|| None);
        came
    };
    let settled = || attached_ports(&switch) == 3 && pins(&folder).iter().all(|name| !name.contains('~'));
    beside(&switch, &talkers, || churn(Duration::ZERO, 10));
    assert!(happens(SOON, settled), "ports stay that are gone");
    let mut before = held(process);
    // Whoever asks it how it goes is one descriptor for a moment.
    let steady = || {
        let now = held(process);
        now.0 == mem::replace(&mut before, now).0
    };
    assert!(happens(SOON, steady), "its descriptors change all the time");
    let pinned = pins(&folder);
    let came = beside(&switch, &talkers, || churn(seconds(), VISITORS));
    assert!(happens(SOON, settled), "ports stay that are gone");
    assert_eq!(pins(&folder), pinned, "of {came} taps something stays pinned");
    let mut after = held(process);
    let closed = || {
        after = held(process);
        after.0 == before.0
    };
    assert!(happens(SOON, closed), "of {came} taps descriptors stay open");
    assert!(
        after.1 < before.1 + MARGIN,
        "{after:?} after {before:?} KiB, after {came} taps"
    );
    println!(
        "{came} taps came and went; KiB of run: {} before, {} after",
        before.1, after.1
    );
    assert_eq!(switch.json("status")["failing"], json!([]));
    assert!(running.stop("TERM").success());
}

fn a_killed_one_loses_nothing_and_the_next_goes_on() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let talkers = Talkers::new(&switch);
    let mut random = Random::new(2);
    beside(&switch, &talkers, || {
        for round in 0..20 {
            let running = follow(&switch, &file);
            let taps = ["vnet0", "vnet1", "vnet2"].map(port);
            thread::sleep(Duration::from_micros(random.number() % 60_000));
            assert!(!running.stop("KILL").success());
            // Whatever comes next copes, and the next one finishes it.
            match round % 3 {
                0 => drop(switch.json("show")),
                1 => drop(switch.json("stats")),
                _ => {}
            }
            let running = follow(&switch, &file);
            let all = || attached_ports(&switch) == 6;
            assert!(happens(SOON, all), "round {round}: {}", switch.json("show"));
            assert!(!running.stop("KILL").success());
            drop(taps);
        }
    });
    let running = follow(&switch, &file);
    let settled = || attached_ports(&switch) == 3;
    assert!(happens(SOON, settled), "ports stay that are gone");
    drop(running);
}

fn one_that_could_not_be_told_all_looks_at_all() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let talkers = Talkers::new(&switch);
    let running = follow(&switch, &file);
    // Far more than its socket has room for.
    let mut lines = String::new();
    for mtu in 1000..3000 {
        let _ = writeln!(lines, "link set keep1 mtu {mtu}");
    }
    let batch = tempfile::NamedTempFile::new().expect("a file");
    fs::write(&batch, lines).expect("write commands");
    let change = || {
        let mut command = std::process::Command::new("ip");
        command.arg("-batch").arg(batch.path());
        run(command).success();
    };
    signal(running.child(), "STOP");
    change();
    let tap = port("vnet0");
    change();
    signal(running.child(), "CONT");
    assert_eq!(attached(&running)[0], "vnet0");
    // Entries of the forwarding database, 20,000 at once, are none of its business.
    let mut lines = String::new();
    for number in 0..20_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let _ = writeln!(
            lines,
            "fdb replace 52:54:02:{a:02x}:{b:02x}:{c:02x} dev vnet0 master static"
        );
    }
    fs::write(&batch, lines).expect("write commands");
    let mut command = std::process::Command::new("bridge");
    command.arg("-batch").arg(batch.path());
    beside(&switch, &talkers, || run(command).success());
    let _other = port("vnet1");
    assert_eq!(attached(&running)[0], "vnet1");
    drop(tap);
    assert!(running.stop("TERM").success());
}

fn a_program_that_was_taken_off_comes_back_while_much_is_told_of() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let _taps = ["vnet0", "vnet1"].map(port);
    let running = follow(&switch, &file);
    for _ in 0..2 {
        attached(&running);
    }
    detach(&switch.pin("vnet0", "xdp"));
    let mut mtu = 1000;
    let mut told = None;
    let comes_back = || {
        mtu += 1;
        ip(&format!("link set vnet1 mtu {mtu}"));
        thread::sleep(Duration::from_millis(50));
        told = running.change();
        told.is_some()
    };
    assert!(happens(SOON, comes_back), "it does not come back");
    let told = told.expect("something");
    assert_eq!(
        (&told["event"], &told["ifname"], &told["hooks"]),
        (&json!("attached"), &json!("vnet0"), &json!(["xdp", "tcx"]))
    );
}

/// The hooks that it changes to, on traffic of short frames.
#[track_caller]
fn change(running: &Running, [from, to]: [&Tap; 2]) -> Value {
    let short = partial(&Flow::tcp(1, 2).frame(b"ack"));
    let change = send_until_change(running, from, to, &short);
    assert_eq!(change["ifname"], from.name(), "{change}");
    change["hooks"].clone()
}

fn hooks_follow_what_is_put_in_the_way_behind_its_back() {
    let switch = Switch::with_hook(2, "auto");
    let taps = switch.taps::<2>();
    switch.introduce();
    let running = Running::start(&switch);
    // A shaper at the target, and who listens there.
    tc("qdisc add dev vm2 root tbf rate 10gbit burst 1mb latency 1s");
    assert_eq!(change(&running, taps), json!(["tcx"]));
    tc("qdisc del dev vm2 root");
    assert_eq!(change(&running, taps), json!(["xdp", "tcx"]));
    let listener = Sniffer::open("vm2");
    assert_eq!(change(&running, taps), json!(["tcx"]));
    drop(listener);
    assert_eq!(change(&running, taps), json!(["xdp", "tcx"]));
    assert!(running.stop("TERM").success());
}
