//! What others do to ports: it is shown, with the way out, and attaching again is that way.

use std::{ffi::CString, fs, io, os::unix::ffi::OsStrExt as _, path::Path, process};

use aya::programs::{SchedClassifier, TcAttachType};
use lab::{Namespace, Tap};
use nix::unistd::gettid;
use serde_json::{Value, json};

use super::attach::attach_xdp_of;
use crate::support::{
    frames::Flow,
    linux_bridge::{next_tick, stop_learning},
    program::{LIMIT, happens, ip, link},
    switch::{Switch, unique},
    wire::{assert_receives, assert_silent, send},
};

crate::tests![
    a_detached_program_is_shown_and_attached_again,
    a_removed_pin_is_shown_and_the_program_attached_again,
    an_xdp_program_that_took_the_place_of_ours_is_left_alone,
    a_device_that_has_the_name_of_a_vanished_port_can_take_its_place,
    a_port_in_another_network_namespace_is_shown_and_can_come_back,
    a_promiscuous_port_that_comes_back_is_given_back_as_it_was,
    a_port_that_was_taken_out_of_its_bridge_is_shown_and_put_there_again,
];

/// What `show` says is wrong with a port, in JSON and in the table.
#[track_caller]
fn assert_problem(switch: &Switch, port: &str, problem: &str, words: &str) {
    let shown = switch.shown(port);
    let found = &shown["problems"][0];
    assert_eq!(found["problem"], problem, "{shown}");
    let text = found["text"].as_str().unwrap_or_default();
    assert!(text.contains(words), "{text}");
    let table = switch.ok("show");
    let line = format!("  {port}: {text}");
    assert!(
        table.lines().any(|shown| shown == line),
        "no '{line}' in\n{table}"
    );
}

/// Nothing is wrong with a port, which has these hooks.
#[track_caller]
fn assert_sound(switch: &Switch, port: &str, hook: &str, hooks: &Value) {
    let shown = switch.shown(port);
    assert_eq!(
        (&shown["problems"], &shown["hook"], &shown["hooks"]),
        (&json!([]), &json!(hook), hooks),
        "{shown}"
    );
}

/// `BPF_LINK_DETACH`, as any tool may do it.
pub fn detach(link: &Path) {
    #[repr(C)]
    struct Attributes {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let path = CString::new(link.as_os_str().as_bytes()).expect("a path");
    let mut get = Attributes {
        path: path.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: BPF_OBJ_GET (7) reads a path, which outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, 7, &raw mut get, size_of::<Attributes>()) };
    assert!(fd >= 0, "{}: {}", link.display(), io::Error::last_os_error());
    let mut fd = u32::try_from(fd).expect("a descriptor");
    // SAFETY: BPF_LINK_DETACH (34) reads a descriptor, which is ours.
    let detached = unsafe { libc::syscall(libc::SYS_bpf, 34, &raw mut fd, size_of::<u32>()) };
    assert_eq!(detached, 0, "{}", io::Error::last_os_error());
    // SAFETY: it is ours, and nobody uses it any more.
    unsafe { libc::close(fd.cast_signed()) };
}

/// A frame from vm1 to vm2 arrives, and is counted as the `count`-th.
#[track_caller]
fn assert_forwards(switch: &Switch, taps: [&Tap; 2], count: u64) {
    let frame = Flow::udp(1, 2).frame(b"as before");
    next_tick();
    send(taps[0], &frame);
    assert_receives(taps[1], &frame);
    let (xdp, tcx) = switch.stats().frames("vm1", "vm2");
    assert_eq!(xdp + tcx, count, "what was counted stays");
}

fn a_detached_program_is_shown_and_attached_again() {
    let switch = Switch::of(2);
    let taps: [&Tap; 2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let both = json!(["xdp", "tcx"]);
    let mut count = 0;
    for (detached, left) in [
        (&["tcx"][..], json!(["xdp"])),
        (&["xdp"], json!(["tcx"])),
        (&["xdp", "tcx"], json!([])),
    ] {
        for hook in detached {
            detach(&switch.pin("vm1", hook));
        }
        let words = format!(
            "has no {} program any more: somebody detached it, or removed its pin; 'tapbridge attach vm1' attaches it again",
            detached[0]
        );
        assert_problem(&switch, "vm1", "detached", &words);
        assert_eq!(switch.shown("vm1")["hooks"], left);
        assert_sound(&switch, "vm2", "xdp", &both);
        assert_eq!(switch.json("attach vm1 vm2")["ports"][0]["changed"], true);
        assert_sound(&switch, "vm1", "xdp", &both);
        assert!(!link("vm1").expect("a tap")["xdp"].is_null());
        count += 1;
        assert_forwards(&switch, taps, count);
        assert_eq!(switch.json("attach vm1 vm2")["ports"][0]["changed"], false);
    }
    // What is not asked for any more need not come back.
    detach(&switch.pin("vm1", "xdp"));
    switch.ok("attach vm1 --hook tcx");
    assert_sound(&switch, "vm1", "tcx", &json!(["tcx"]));
    assert!(link("vm1").expect("a tap")["xdp"].is_null());
    assert_forwards(&switch, taps, count + 1);
}

fn a_removed_pin_is_shown_and_the_program_attached_again() {
    let switch = Switch::of(2);
    let taps: [&Tap; 2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let tcx = || SchedClassifier::query_tcx("vm1", TcAttachType::Ingress).expect("list tcx programs");
    for (hook, count) in [("tcx", 1), ("xdp", 2)] {
        fs::remove_file(switch.pin("vm1", hook)).expect("remove a pin");
        let gone = || match hook {
            "tcx" => tcx().1.is_empty(),
            _ => link("vm1").expect("a tap")["xdp"].is_null(),
        };
        assert!(happens(LIMIT, gone), "{hook} is attached {LIMIT:?} later");
        assert_problem(
            &switch,
            "vm1",
            "detached",
            &format!("has no {hook} program any more: somebody detached it, or removed its pin"),
        );
        switch.ok("attach vm1");
        assert_sound(&switch, "vm1", "xdp", &json!(["xdp", "tcx"]));
        assert_forwards(&switch, taps, count);
    }
}

fn an_xdp_program_that_took_the_place_of_ours_is_left_alone() {
    let switch = Switch::of(2);
    detach(&switch.pin("vm1", "xdp"));
    attach_xdp_of(switch.state(), "vm1");
    let id = link("vm1").expect("a tap")["xdp"]["prog"]["id"].clone();
    let complaint = switch.fails("attach vm1");
    assert!(
        complaint.contains(&format!(
            "vm1: attach xdp: another XDP program is attached (id {id}"
        )),
        "{complaint}"
    );
    ip("link set dev vm1 xdp off");
    switch.ok("attach vm1");
    assert_sound(&switch, "vm1", "xdp", &json!(["xdp", "tcx"]));
}

fn a_device_that_has_the_name_of_a_vanished_port_can_take_its_place() {
    let mut switch = Switch::of(3);
    switch.ok("attach vm2 --hook tcx");
    switch.introduce();
    stop_learning("vm1");
    {
        let [vm1, vm2, _] = switch.taps();
        assert_forwards(&switch, [vm1, vm2], 1);
    }
    switch.remove("vm2");
    assert_eq!(switch.shown("vm2")["state"], "gone");
    assert_eq!(switch.shown("vm2")["problems"], json!([]), "nothing but gone");
    switch.add(Tap::builder("vm2"));
    let words = "is gone, and another device has its name; 'tapbridge attach vm2' attaches that one";
    assert_problem(&switch, "vm2", "replaced", words);
    let attached = switch.json("attach vm2");
    assert_eq!(attached["ports"][0]["changed"], true);
    assert_sound(&switch, "vm2", "tcx", &json!(["tcx"]));
    assert_eq!(
        switch.stats().port("vm2").rx.frames,
        0,
        "what another device sent is not its"
    );
    let [vm1, vm3, vm2] = switch.taps();
    // Where the other was, nobody knows where this one is.
    send(vm1, &Flow::udp(1, 2).frame(b"to all"));
    assert_receives(vm2, &Flow::udp(1, 2).frame(b"to all"));
    assert_receives(vm3, &Flow::udp(1, 2).frame(b"to all"));
    send(vm2, &Flow::udp(2, 1).frame(b"here now"));
    assert_receives(vm1, &Flow::udp(2, 1).frame(b"here now"));
    assert_forwards(&switch, [vm1, vm2], 1);
    assert_silent(&[vm1, vm2, vm3]);
    // Hooks that are asked for go before those that were.
    switch.remove("vm3");
    switch.add(Tap::builder("vm3"));
    switch.ok("attach vm3 --hook tcx");
    assert_sound(&switch, "vm3", "tcx", &json!(["tcx"]));
}

/// Moves a device into another network namespace.
fn send_away(device: &str, elsewhere: &Namespace) {
    let path = elsewhere.path().expect("a named namespace");
    ip(&format!("link set dev {device} netns {}", path.display()));
}

/// Moves a device back into the calling thread's namespace.
fn fetch_back(device: &str, elsewhere: &Namespace) {
    let here = format!("/proc/{}/task/{}/ns/net", process::id(), gettid());
    elsewhere.run(|| ip(&format!("link set dev {device} netns {here}")));
    ip(&format!("link set dev {device} up"));
}

fn a_port_in_another_network_namespace_is_shown_and_can_come_back() {
    let switch = Switch::of(2);
    switch.ok("attach vm2 --hook tcx");
    let taps: [&Tap; 2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    assert_forwards(&switch, taps, 1);
    let elsewhere = Namespace::create(&unique("tbtest-")).expect("a namespace");
    send_away("vm2", &elsewhere);
    assert_problem(
        &switch,
        "vm2",
        "moved",
        "'tapbridge detach vm2' takes them off it",
    );
    fetch_back("vm2", &elsewhere);
    assert_problem(
        &switch,
        "vm2",
        "no_bridge",
        "'tapbridge attach vm2' makes it a port of one again",
    );
    switch.ok("attach vm2");
    assert_sound(&switch, "vm2", "tcx", &json!(["tcx"]));
    switch.introduce();
    assert_forwards(&switch, taps, 2);
    // The way out where it is not to come back.
    send_away("vm2", &elsewhere);
    switch.ok("detach vm2");
    let programs = || SchedClassifier::query_tcx("vm2", TcAttachType::Ingress).expect("list tcx programs");
    assert!(elsewhere.run(|| programs().1.is_empty()));
    fetch_back("vm2", &elsewhere);
}

fn a_promiscuous_port_that_comes_back_is_given_back_as_it_was() {
    let switch = Switch::detached(1);
    ip("link add port0 up type veth peer name host0");
    let promiscuity = || link("port0").expect("a veth")["promiscuity"].clone();
    switch.ok("attach port0 vm1");
    let elsewhere = Namespace::create(&unique("tbtest-")).expect("a namespace");
    send_away("port0", &elsewhere);
    fetch_back("port0", &elsewhere);
    switch.ok("attach port0");
    assert_eq!(promiscuity(), 1);
    switch.ok("detach port0");
    assert_eq!(promiscuity(), 0);
}

fn a_port_that_was_taken_out_of_its_bridge_is_shown_and_put_there_again() {
    let switch = Switch::of(2);
    let taps: [&Tap; 2] = switch.taps();
    ip("link set dev vm2 nomaster");
    let words = "is no port of a bridge now, so that nothing is done to its frames";
    assert_problem(&switch, "vm2", "no_bridge", words);
    assert_eq!(switch.json("attach vm2")["ports"][0]["changed"], true);
    assert_sound(&switch, "vm2", "xdp", &json!(["xdp", "tcx"]));
    switch.introduce();
    stop_learning("vm1");
    assert_forwards(&switch, taps, 1);
}
