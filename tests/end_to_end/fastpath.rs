//! Ports of a Linux bridge that is accelerated where it stands.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    process::Command,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use bridge_common::{Hook, forwarding::Reason, port::HookMode};
use lab::Tap;
use nix::sys::{
    pthread::{pthread_kill, pthread_self},
    signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};
use serde_json::json;
use tapbridge::{
    fastpath::{FastPath, Wish},
    kernel::netlink::{Link, Netlink},
    state::State,
};

use crate::support::{
    frames::{Flow, Network, Transport, mac, partial, payload, segmented, text},
    linux_bridge::{introduce, linux_bridge, next_tick, stop_learning},
    program::{bridge, ip, run, tc},
    switch::Switch,
    wire::{assert_receives, assert_receives_gso, assert_receives_with, assert_silent, send, send_with},
};

crate::tests![
    what_the_bridge_would_send_to_one_port_goes_past_it,
    what_br_netfilter_would_let_pass_goes_past_it,
    what_rules_look_at_stays_with_the_bridge,
    the_bridges_own_entries_are_shown_with_those_that_are_fast,
    all_ports_of_a_bridge_are_attached_and_detached_by_its_name,
    what_keeps_frames_from_going_past_the_bridge_is_shown,
    of_ipv6_only_icmpv6_stays_with_a_bridge_that_answers_solicitations,
    signals_keep_no_program_from_being_loaded,
];

/// Those that need ebtables.
pub const EBTABLES_TESTS: &[crate::Test] = &[(
    "chains_that_ebtables_leaves_keep_frames_with_the_bridge",
    chains_that_ebtables_leaves_keep_frames_with_the_bridge,
)];

/// Two taps of a Linux bridge.
pub struct Bridged {
    switch: Switch,
    fast: RefCell<FastPath>,
    links: BTreeMap<String, Link>,
}

impl Bridged {
    pub fn new(taps: usize, netfilter: bool) -> Self {
        let switch = linux_bridge(taps, netfilter);
        let locked = State::new(switch.state()).lock().expect("the state");
        let fast = FastPath::open_or_create(&locked).expect("the fast path");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let links = runtime
            .block_on(async { Netlink::connect()?.links().await })
            .expect("the devices");
        Self {
            switch,
            fast: RefCell::new(fast),
            links: links.into_iter().map(|link| (link.name.clone(), link)).collect(),
        }
    }

    pub fn taps<const N: usize>(&self) -> [&Tap; N] {
        self.switch.taps()
    }

    /// The taps, each of which the bridge knows.
    fn introduced<const N: usize>(&self) -> [&Tap; N] {
        let taps = self.switch.taps();
        introduce(&taps);
        taps
    }

    pub fn attach(&self, tap: &str, mode: HookMode) {
        self.fast
            .borrow_mut()
            .attach(&self.links[tap], mode)
            .expect("attach");
    }

    fn bypass(&self, tap: &Tap, bypass: bool) {
        let wish = Wish {
            bypass_netfilter: Some(bypass),
            ..Wish::default()
        };
        let changed = self.fast.borrow_mut().attach(&self.links[tap.name()], wish);
        assert!(changed.expect("a port"));
    }

    pub fn forwarded(&self, from: &Tap, to: &Tap) -> [u64; 2] {
        let paths = self.fast.borrow().paths().expect("paths");
        let path = paths
            .iter()
            .find(|(path, _)| path.from == from.ifindex() && path.to == to.ifindex());
        path.map_or([0; 2], |(_, counters)| {
            Hook::ALL.map(|hook| counters.via[hook as usize].frames)
        })
    }

    pub fn left(&self, port: &Tap, hook: Hook, reason: Reason) -> u64 {
        let counters = self.fast.borrow().counters(port.ifindex()).expect("counters");
        counters.left[hook as usize][reason as usize]
    }
}

fn nft(commands: &str) {
    let nft = Command::new("nft").arg(commands).status();
    assert!(nft.is_ok_and(|status| status.success()), "nft {commands}");
}

fn ebtables(words: &str) {
    let mut command = Command::new("ebtables-nft");
    command.args(words.split_whitespace());
    run(command).success();
}

impl Drop for Bridged {
    fn drop(&mut self) {
        let mut fast = self.fast.borrow_mut();
        for (ifindex, _) in fast.ports().into_iter().flatten() {
            let _ = fast.detach(ifindex);
        }
        let _ = fast.remove();
    }
}

fn what_the_bridge_would_send_to_one_port_goes_past_it() {
    let bridged = Bridged::new(3, false);
    for (tap, mode) in [
        ("vm1", HookMode::Xdp),
        ("vm2", HookMode::Tcx),
        ("vm3", HookMode::Xdp),
    ] {
        bridged.attach(tap, mode);
    }
    let [vm1, vm2, vm3] = bridged.introduced();
    for tap in ["vm1", "vm2"] {
        stop_learning(tap);
    }

    let (header, frame) = partial(&Flow::tcp(1, 2).frame(b"small"));
    send_with(vm1, &header, &frame);
    assert_receives(vm2, &Flow::tcp(1, 2).frame(b"small"));
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 0]);
    // The other way there is no XDP, so the metadata stays.
    let (header, frame) = partial(&Flow::tcp(2, 1).frame(b"small"));
    send_with(vm2, &header, &frame);
    assert_receives_with(vm1, &header, &frame);
    assert_eq!(bridged.forwarded(vm2, vm1), [0, 1]);
    let (header, frame) = segmented(&Flow::tcp(1, 2).frame(&payload(60_000)), 1400);
    send_with(vm1, &header, &frame);
    assert_receives_gso(vm2, &header, &frame);
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 1]);
    assert_eq!(bridged.left(vm1, Hook::Xdp, Reason::Generic), 1);
    // Nobody knows the ninth one: the bridge floods.
    let unknown = Flow::tcp(1, 9).frame(b"who is that?");
    send(vm1, &unknown);
    assert_receives(vm2, &unknown);
    assert_receives(vm3, &unknown);
    assert_eq!(bridged.left(vm1, Hook::Tcx, Reason::DestinationUnknown), 1);
}

/// Where `br_netfilter` calls the rules of IP and there are none, it looks at headers.
fn what_br_netfilter_would_let_pass_goes_past_it() {
    let bridged = Bridged::new(2, true);
    bridged.attach("vm1", HookMode::Xdp);
    bridged.attach("vm2", HookMode::Tcx);
    let [vm1, vm2] = bridged.introduced();
    for tap in ["vm1", "vm2"] {
        stop_learning(tap);
    }
    let frame = Flow::udp(2, 1).frame(&[7; 26]);
    send(vm2, &frame);
    assert_receives(vm1, &frame);
    assert_eq!(bridged.forwarded(vm2, vm1), [0, 1]);
    let frame = Flow::udp(1, 2).frame(&[7; 26]);
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 0]);
    // It cuts off what lies behind the packet.
    let mut padded = frame.clone();
    padded.extend([0; 6]);
    send(vm1, &padded);
    assert_receives(vm2, &frame);
    assert_eq!(bridged.left(vm1, Hook::Tcx, Reason::Header), 1);
    // A header that is wrong it drops.
    let mut wrong = frame.clone();
    wrong[14 + 10] ^= 1;
    send(vm1, &wrong);
    assert_silent(&[vm2]);
    assert_eq!(bridged.left(vm1, Hook::Tcx, Reason::Header), 2);
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 0]);
}

fn what_rules_look_at_stays_with_the_bridge() {
    let bridged = Bridged::new(3, true);
    for tap in ["vm1", "vm2", "vm3"] {
        bridged.attach(tap, HookMode::Xdp);
    }
    let [vm1, vm2, vm3] = bridged.introduced();
    stop_learning("vm1");
    let table = "add table ip t; add chain ip t c { type filter hook forward priority 0 ; }; add rule ip t c udp dport 4000 drop";
    nft(table);
    let frames = [2, 3].map(|to| Flow::udp(1, to).frame(&[7; 26]));
    for (to, frame) in [(vm2, &frames[0]), (vm3, &frames[1])] {
        send(vm1, frame);
        assert_receives(to, frame);
        assert_eq!(bridged.forwarded(vm1, to), [0, 0]);
    }
    next_tick();
    // Rules pass by only what goes between two ports of which that has been said.
    for tap in [vm1, vm2] {
        bridged.bypass(tap, true);
    }
    for (to, frame, past) in [(vm2, &frames[0], [1, 0]), (vm3, &frames[1], [0, 0])] {
        send(vm1, frame);
        assert_receives(to, frame);
        assert_eq!(bridged.forwarded(vm1, to), past);
    }
    for tap in [vm1, vm2] {
        bridged.bypass(tap, false);
    }
    send(vm1, &frames[0]);
    assert_receives(vm2, &frames[0]);
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 0]);
    // Without a rule, and without the calls, they go past the bridge.
    nft("delete table ip t");
    next_tick();
    send(vm1, &frames[0]);
    assert_receives(vm2, &frames[0]);
    assert_eq!(bridged.forwarded(vm1, vm2), [2, 0]);
}

/// A chain is called whether it has rules or not; ebtables shows it in either case, and also where there is none.
fn chains_that_ebtables_leaves_keep_frames_with_the_bridge() {
    let bridged = Bridged::new(2, false);
    for tap in ["vm1", "vm2"] {
        bridged.attach(tap, HookMode::Xdp);
    }
    let [vm1, vm2] = bridged.introduced();
    stop_learning("vm1");
    let frame = Flow::udp(1, 2).frame(&[7; 26]);
    let mut past = 0;
    for (command, stays) in [
        ("ebtables-nft -L", false),
        ("ebtables-nft -A FORWARD -s 52:54:00:00:00:09 -j DROP", true),
        ("ebtables-nft -F", true),
        ("ebtables-nft -X", false),
        ("ebtables-nft -P FORWARD ACCEPT", true),
        ("nft delete table bridge filter", false),
        (
            "ebtables-nft -t nat -A POSTROUTING -s 52:54:00:00:00:09 -j ACCEPT",
            true,
        ),
        ("ebtables-nft -t nat -F", true),
        ("nft delete table bridge nat", false),
        // Of frames for the host alone.
        ("ebtables-nft -A INPUT -s 52:54:00:00:00:09 -j DROP", false),
    ] {
        shell(command);
        next_tick();
        send(vm1, &frame);
        assert_receives(vm2, &frame);
        past += u64::from(!stays);
        assert_eq!(bridged.forwarded(vm1, vm2), [past, 0], "{command}");
        let shown = bridged.switch.json("show")["bridges"][0]["obstacles"].take();
        let text = shown[0]["text"].as_str().unwrap_or_default();
        assert_eq!(text.contains("'ebtables -X'"), stays, "{command}: {text}");
    }
}

fn the_bridges_own_entries_are_shown_with_those_that_are_fast() {
    let bridged = Bridged::new(3, false);
    for tap in ["vm1", "vm2"] {
        bridged.attach(tap, HookMode::Xdp);
    }
    bridged.introduced::<3>();
    let shown = bridged.switch.json("fdb show");
    let mut again = bridged.switch.json("fdb show --bridge br0");
    // The seconds are different ones.
    for (entry, before) in again
        .as_array_mut()
        .expect("entries")
        .iter_mut()
        .zip(shown.as_array().expect("entries"))
    {
        if before["updated"].is_number() {
            entry["updated"] = before["updated"].clone();
        }
    }
    assert_eq!(again, shown);
    bridged.switch.fails("fdb show --bridge br9");
    let entries = shown.as_array().expect("entries");
    let of = |state: &str| {
        entries
            .iter()
            .filter(|entry| entry["state"] == *state)
            .collect::<Vec<_>>()
    };
    let learned = of("");
    assert_eq!(learned.len(), 3, "{shown}");
    for (number, entry) in (1..).zip(learned) {
        assert_eq!(entry["mac"], text(mac(number)));
        assert_eq!(entry["ifname"], format!("vm{number}"));
        assert_eq!((&entry["master"], &entry["fast"]), (&json!("br0"), &json!(true)));
        assert!(
            entry["updated"].as_u64().is_some_and(|seconds| seconds < 60),
            "{entry}"
        );
    }
    // What is for the host never goes past the bridge.
    assert!(
        of("permanent").iter().all(|entry| entry["fast"] == false),
        "{shown}"
    );
    assert!(of("permanent").len() >= 3, "{shown}");
}

fn all_ports_of_a_bridge_are_attached_and_detached_by_its_name() {
    let switch = linux_bridge(2, false);
    ip("link add v0 up type veth peer name v1");
    ip("link set v0 master br0");
    let attached = switch.json("attach --master br0 --hook xdp");
    let hooks: Vec<_> = attached["ports"]
        .as_array()
        .expect("ports")
        .iter()
        .map(|port| {
            (
                port["ifname"].clone(),
                port["master"].clone(),
                port["hooks"].clone(),
            )
        })
        .collect();
    let both = json!(["xdp", "tcx"]);
    for (tap, hooked) in [("vm1", &both), ("vm2", &both), ("v0", &json!(["tcx"]))] {
        assert!(
            hooks.contains(&(json!(tap), json!("br0"), hooked.clone())),
            "{attached}"
        );
    }
    let again = switch.json("attach vm1 vm2 v0");
    let changed = |port: &serde_json::Value| port["changed"] == true;
    assert!(
        !again["ports"].as_array().expect("ports").iter().any(changed),
        "{again}"
    );

    let taps = switch.taps::<2>();
    introduce(&taps);
    // The other end of the veth may have something to say of itself.
    let frame = Flow::tcp(1, 2).frame(b"past it");
    send(taps[0], &frame);
    assert_receives(taps[1], &frame);

    switch.fails("detach vm1 nosuch");
    assert_eq!(
        switch.json("show")["bridges"][0]["ports"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
    switch.ok("detach --master br0");
    assert!(
        !switch.state().exists(),
        "something is left in {}",
        switch.state().display()
    );
    let frame = Flow::tcp(2, 1).frame(b"through it");
    send(taps[1], &frame);
    assert_receives(taps[0], &frame);
}

fn what_keeps_frames_from_going_past_the_bridge_is_shown() {
    let switch = linux_bridge(2, true);
    switch.ok("attach --master br0 --hook xdp");
    introduce(&switch.taps::<2>());
    let told = || {
        let bridge = switch.json("show")["bridges"][0].take();
        let ports = bridge["ports"].as_array().expect("ports").clone();
        let all = std::iter::once(&bridge).chain(&ports);
        all.flat_map(|place| place["obstacles"].as_array().cloned().unwrap_or_default())
            .map(|obstacle| obstacle["reason"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(told(), none);
    for (make, unmake, reasons) in [
        (
            "tc qdisc add dev vm1 root tbf rate 1gbit burst 10kb latency 1ms",
            "tc qdisc del dev vm1 root",
            ["queueing"],
        ),
        (
            "ip link set br0 promisc on",
            "ip link set br0 promisc off",
            ["promiscuous"],
        ),
        (
            "nft add table ip t; nft add chain ip t c {type filter hook forward priority 0;}",
            "nft delete table ip t",
            ["bridge_filter"],
        ),
        (
            "nft add table bridge t; nft add chain bridge t c {type filter hook forward priority 0;}",
            "nft delete table bridge t",
            ["bridge_filter"],
        ),
    ] {
        for command in make.split("; ") {
            shell(command);
        }
        assert_eq!(told(), reasons, "{make}");
        shell(unmake);
        assert_eq!(told(), none, "{unmake}");
    }
}

/// Runs a command, which must succeed.
fn shell(command: &str) {
    let mut words = command.splitn(2, ' ');
    let (program, arguments) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match program {
        "nft" => nft(arguments),
        "ip" => drop(ip(arguments)),
        "ebtables-nft" => ebtables(arguments),
        _ => tc(arguments),
    }
}

fn of_ipv6_only_icmpv6_stays_with_a_bridge_that_answers_solicitations() {
    const NEXT_HEADER: usize = 14 + 6;
    let bridged = Bridged::new(2, false);
    bridge("link set dev vm2 neigh_suppress on");
    bridged.attach("vm1", HookMode::Xdp);
    let [vm1, vm2] = bridged.introduced();
    let datagram = Flow::new(1, 2, Network::V6, Transport::Udp).frame(&[7; 26]);
    // A datagram; ICMPv6; and what the bridge does not look behind (`br_handle_frame_finish`): options for the
    // destination.
    for (next, past, left) in [(17, 1, 0), (58, 1, 1), (60, 2, 1)] {
        let mut frame = datagram.clone();
        frame[NEXT_HEADER] = next;
        send(vm1, &frame);
        assert_receives(vm2, &frame);
        assert_eq!(bridged.forwarded(vm1, vm2).iter().sum::<u64>(), past, "{next}");
        for hook in Hook::ALL {
            assert_eq!(bridged.left(vm1, hook, Reason::NeighSuppress), left, "{next}");
        }
    }
}

/// The verifier gives a program up when a signal waits for the thread (`EAGAIN`): here one comes every 5 ms, and a
/// program takes longer.
fn signals_keep_no_program_from_being_loaded() {
    extern "C" fn ignore(_signal: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(ignore), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR2, &action) }.expect("a handler of SIGUSR2");
    let switch = linux_bridge(1, false);
    let loads = pthread_self();
    let (loaded, is_loaded) = mpsc::channel::<()>();
    let signals = thread::spawn(move || {
        let mut sent = 0;
        while is_loaded.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
            pthread_kill(loads, Signal::SIGUSR2).expect("the loading thread");
            sent += 1;
        }
        sent
    });
    let locked = State::new(switch.state()).lock().expect("the state");
    FastPath::open_or_create(&locked).expect("the fast path");
    drop(loaded);
    assert_ne!(signals.join().expect("the signals"), 0, "signals were sent");
}
