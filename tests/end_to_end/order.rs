//! Frames of a flow arrive in the order in which they were sent, where the two hooks would take different ways.

use std::{fs, thread, time::Duration};

use lab::{Tap, VnetHeader};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use serde_json::{Value, json};
use tapbridge::kernel::sysfs::Sysfs;

use crate::support::{
    frames::{Flow, TCP_HEADERS, hello, partial, payload, segmented},
    linux_bridge::{next_tick, stop_learning},
    program::{LIMIT, happens},
    switch::Switch,
    wire::{assert_silent, drain, receive, send, send_with},
};

crate::tests![
    a_flow_stays_on_one_queue_of_a_tap_with_several_and_in_order,
    a_tap_that_has_one_queue_left_gets_native_frames,
    frames_of_a_tap_whose_frames_are_steered_stay_in_order,
];

const QUEUES: usize = 4;
/// A frame that comes at all has come by now.
const SILENCE: Duration = Duration::from_millis(200);

fn stay_on(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).expect("a CPU's number");
    sched_setaffinity(Pid::from_raw(0), &cpus).expect("stay on a CPU");
}

/// A small frame or one of several segments, whose payload begins with a number.
fn numbered(flow: Flow, number: u32, gso: bool) -> (VnetHeader, Vec<u8>) {
    let mut data = number.to_be_bytes().to_vec();
    data.extend(payload(if gso { 1500 } else { 40 }));
    let frame = flow.frame(&data);
    if gso {
        segmented(&frame, 500)
    } else {
        partial(&frame)
    }
}

fn number(frame: &[u8]) -> u32 {
    let number = frame[TCP_HEADERS..].first_chunk().expect("a number");
    u32::from_be_bytes(*number)
}

/// The numbers of so many frames from a station that a queue receives, in order, and no others.
#[track_caller]
fn received(queue: &Tap, station: u8, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let (_, frame) = receive(queue);
        if frame[11] == station {
            numbers.push(number(&frame));
        }
    }
    assert_silent(&[queue]);
    numbers
}

/// vm1 and vm2 send, vm3 has several queues.
fn several_queues() -> (Switch, Vec<Tap>) {
    let mut switch = Switch::detached(2);
    switch.add(Tap::builder("vm3").multi_queue());
    let [_, _, vm3] = switch.taps();
    let more = (1..QUEUES).map(|_| vm3.another_queue().expect("another queue"));
    let more = more.collect();
    switch.attach_all("xdp");
    switch.introduce();
    ["vm1", "vm2"].into_iter().for_each(stop_learning);
    (switch, more)
}

fn a_flow_stays_on_one_queue_of_a_tap_with_several_and_in_order() {
    const FRAMES: u32 = 200;
    let (switch, more) = several_queues();
    let [vm1, vm2, vm3] = switch.taps();
    let queues: Vec<&Tap> = [vm3].into_iter().chain(&more).collect();
    drain(&queues);
    // Each sender changes the CPU with every frame, as the thread of a VMM may.
    thread::scope(|scope| {
        for (tap, station) in [(vm1, 1), (vm2, 2)] {
            scope.spawn(move || {
                for index in 0..FRAMES {
                    stay_on((index as usize + usize::from(station)) % 2);
                    let (header, frame) = numbered(Flow::tcp(station, 3), index, index % 3 == 2);
                    send_with(tap, &header, &frame);
                }
            });
        }
    });
    let stats = switch.stats();
    let all: Vec<Vec<(u8, u32)>> = queues
        .iter()
        .map(|queue| {
            let mut frames = Vec::new();
            while let Some((_, frame)) = queue.receive(SILENCE).expect("receive") {
                frames.push((frame[11], number(&frame)));
            }
            frames
        })
        .collect();
    for station in [1, 2] {
        let by_queue: Vec<Vec<u32>> = all
            .iter()
            .map(|frames| {
                frames
                    .iter()
                    .filter(|frame| frame.0 == station)
                    .map(|frame| frame.1)
                    .collect()
            })
            .filter(|numbers: &Vec<u32>| !numbers.is_empty())
            .collect();
        assert_eq!(
            by_queue,
            [(0..FRAMES).collect::<Vec<_>>()],
            "station {station}: {stats:#?}"
        );
    }
    for port in ["vm1", "vm2"] {
        let (xdp, tcx) = stats.frames(port, "vm3");
        assert_eq!((xdp, tcx), (0, u64::from(FRAMES)), "{stats:#?}");
        assert!(
            stats.port(port).passed_up_by_reason["target_queues"] > 0,
            "{stats:#?}"
        );
    }
}

/// The reasons that `show` gives for a port.
fn obstacles(switch: &Switch, port: &str) -> Vec<Value> {
    let shown = switch.shown(port);
    let obstacles = shown["obstacles"].as_array().expect("obstacles");
    obstacles
        .iter()
        .map(|obstacle| obstacle["reason"].clone())
        .collect()
}

fn a_tap_that_has_one_queue_left_gets_native_frames() {
    let (switch, more) = several_queues();
    let [vm1, _, vm3] = switch.taps();
    assert_eq!(obstacles(&switch, "vm3"), [json!("target_queues")]);
    assert_eq!(obstacles(&switch, "vm1"), [Value::Null; 0]);
    let shown = switch.ok("show");
    assert!(shown.contains("  vm3: has 4 queues, "), "{shown}");
    let (header, frame) = numbered(Flow::tcp(1, 3), 7, false);
    send_with(vm1, &header, &frame);
    assert_eq!(switch.stats().frames("vm1", "vm3"), (0, 1));
    drop(more);
    // Not at once: a process that another thread starts has the queues until it executes its program.
    let alone = happens(LIMIT, || obstacles(&switch, "vm3").is_empty());
    assert!(alone, "vm3 has several queues after {LIMIT:?}");
    drain(&[vm3]);
    next_tick();
    send_with(vm1, &header, &frame);
    assert_eq!(received(vm3, 1, 1), [7]);
    assert_eq!(switch.stats().frames("vm1", "vm3"), (1, 1));
}

fn frames_of_a_tap_whose_frames_are_steered_stay_in_order() {
    const FRAMES: u32 = 400;
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    ["vm1", "vm2"].into_iter().for_each(stop_learning);
    let sysfs = Sysfs::open().expect("mount sysfs");
    let cpus = sysfs.path("class/net/vm1/queues/rx-0/rps_cpus");
    let steer = |mask: &str| fs::write(&cpus, mask).expect("write rps_cpus");
    assert_eq!(obstacles(&switch, "vm1"), [Value::Null; 0]);
    steer("2");
    assert_eq!(obstacles(&switch, "vm1"), [json!("rps")]);
    assert_eq!(obstacles(&switch, "vm2"), [Value::Null; 0]);
    // In a thread of its own, which is moved.
    thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(0);
            for index in 0..FRAMES {
                let (header, frame) = numbered(Flow::tcp(1, 2), index, index % 2 == 1);
                send_with(vm1, &header, &frame);
            }
        });
    });
    assert_eq!(received(vm2, 1, FRAMES as usize), (0..FRAMES).collect::<Vec<_>>());
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, u64::from(FRAMES)), "{stats:#?}");
    assert!(stats.port("vm1").passed_up_by_reason["rps"] > 0, "{stats:#?}");
    // The other way nothing is steered, and this one no longer either.
    send(vm2, &Flow::tcp(2, 1).frame(b"12345"));
    steer("0");
    next_tick();
    send(vm1, &Flow::tcp(1, 2).frame(b"12345"));
    let stats = switch.stats();
    assert_eq!(
        (stats.frames("vm2", "vm1").0, stats.frames("vm1", "vm2").0),
        (1, 1),
        "{stats:#?}"
    );
    drain(&[vm1, vm2]);
    send(vm1, &hello(1));
}
