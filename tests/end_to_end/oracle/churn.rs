//! Entries, ports and taps come and go while two stations talk to each other on both CPUs: no frame of theirs may come
//! anywhere else.

use std::{
    fmt::Write as _,
    fs,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use bridge_common::{Hook, port::HookMode};
use lab::Tap;
use tempfile::NamedTempFile;

use super::{
    Alive,
    rig::{Manner, Rig},
    seconds,
    testbed::Testbed,
    traffic::{self, Kind},
};
use crate::support::{
    end::EndOnDrop,
    frames::{BROADCAST, mac, text},
    program::{ip, run},
};

crate::tests![no_frame_goes_astray_while_entries_and_ports_come_and_go];

const SECONDS: u64 = 3;
/// So many that the table grows and shrinks again.
const ENTRIES: u32 = 3000;
/// A guest that comes and goes.
const VISITOR: u8 = 5;

#[derive(Default)]
struct Counts {
    right: AtomicU64,
    astray: AtomicU64,
}

fn no_frame_goes_astray_while_entries_and_ports_come_and_go() {
    let testbed = Testbed::take();
    let rig = Rig::new(&testbed, Manner::Xdp);
    let end = Instant::now() + Duration::from_secs(seconds(SECONDS));
    let (over, counts) = (AtomicBool::new(false), Counts::default());
    let batches = [Batch::new("replace"), Batch::new("del")];
    let mut tables = 0;
    let [vm1, vm2, vm3] = [1, 2, 3].map(|number| rig.tap(number));
    thread::scope(|scope| {
        scope.spawn(|| talk(vm1, 1, 2, &counts, &over));
        scope.spawn(|| talk(vm2, 2, 1, &counts, &over));
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                hear(vm3, 3, Duration::from_millis(10), &counts);
            }
        });
        let fill = scope.spawn(|| {
            let mut filled = 0;
            while !over.load(Ordering::Relaxed) {
                batches.iter().for_each(Batch::run);
                filled += 1;
            }
            filled
        });
        let stop = EndOnDrop(&over);
        let mut alive = Alive::new();
        while Instant::now() < end {
            alive.tell("no_frame_goes_astray goes on");
            visit(&rig, &testbed, &counts);
            for change in ["nomaster", "master br0", "down", "up"] {
                ip(&format!("link set vm4 {change}"));
            }
        }
        drop(stop);
        tables = fill.join().expect("changes of the database");
    });
    let past = rig.forwarded(1, 2);
    drop(rig);
    let [right, astray] = [&counts.right, &counts.astray].map(|count| count.load(Ordering::Relaxed));
    assert_eq!(
        astray, 0,
        "of {right}, with {tables} changes of the whole database"
    );
    assert!(tables > 0 && right > 0, "{tables}, {right}");
    assert!(past.iter().all(|frames| *frames > 0), "{:?}: {past:?}", Hook::ALL);
    testbed.give_back();
}

/// Sends to one station, and sometimes to the one that comes and goes.
fn talk(tap: &Tap, from: u8, to: u8, counts: &Counts, over: &AtomicBool) {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let to = if number % 16 == 0 { VISITOR } else { to };
        let kind = if number % 8 == 1 {
            Kind::Segmented
        } else {
            Kind::Partial
        };
        let (header, frame) = traffic::frame(kind, mac(from), mac(to), number);
        // Full queues are nobody's fault.
        let _ = tap.send(&header, &frame);
        hear(tap, from, Duration::ZERO, counts);
    }
}

/// Takes what waits at a tap, and counts what two stations say that always talk.
fn hear(tap: &Tap, station: u8, patience: Duration, counts: &Counts) {
    while let Some((_, frame)) = tap.receive(patience).expect("receive") {
        let for_talkers = [1, 2].iter().any(|talker| frame[..6] == mac(*talker));
        let count = match frame[..6] == mac(station) {
            true => &counts.right,
            false if for_talkers => &counts.astray,
            false => continue,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A guest comes, talks, and goes.
fn visit(rig: &Rig<'_>, testbed: &Testbed, counts: &Counts) {
    let name = format!("vm{VISITOR}");
    let tap = Tap::builder(&name).open().expect("open a tap");
    ip(&format!("link set {name} master br0 up"));
    rig.attach(&name, HookMode::Xdp);
    for (number, to) in (0..200).zip([BROADCAST, mac(1), mac(2)].into_iter().cycle()) {
        let (header, frame) = traffic::frame(Kind::Partial, mac(VISITOR), to, number);
        let _ = tap.send(&header, &frame);
        hear(&tap, VISITOR, Duration::ZERO, counts);
    }
    let ifindex = tap.ifindex();
    drop(tap);
    testbed.fast.borrow_mut().detach(ifindex).expect("detach");
}

/// A file of commands for `bridge -batch`.
struct Batch(NamedTempFile);

impl Batch {
    fn new(verb: &str) -> Self {
        let file = NamedTempFile::new().expect("make a file");
        let mut lines = String::new();
        for number in 0..ENTRIES {
            let [.., high, low] = number.to_be_bytes();
            let address = text([0x52, 0x54, 1, 0, high, low]);
            let _ = writeln!(lines, "fdb {verb} {address} dev vm3 master static");
        }
        fs::write(&file, lines).expect("write commands");
        Self(file)
    }

    fn run(&self) {
        let mut command = Command::new("bridge");
        command.arg("-batch").arg(self.0.path());
        run(command).success();
    }
}
