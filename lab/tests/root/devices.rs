//! Taps and namespaces on the real kernel.

use std::{
    os::fd::AsFd,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use etherparse::PacketBuilder;
use lab::{Namespace, Offloads, Tap, VnetHeader, netns, tap::MAX_FRAME};

use crate::{PATIENCE, Test};

const SILENCE: Duration = Duration::from_millis(100);

pub const TESTS: &[Test] = &[
    (
        "a_frame_sent_to_one_tap_crosses_a_linux_bridge_to_the_other",
        a_frame_crosses_a_linux_bridge,
    ),
    (
        "large_segments_cross_a_linux_bridge_whole",
        large_segments_cross_whole,
    ),
    (
        "a_tap_without_offloads_receives_a_large_segment_cut_up",
        a_large_segment_is_cut_up,
    ),
    (
        "a_tap_that_is_down_refuses_frames",
        a_tap_that_is_down_refuses_frames,
    ),
    ("a_tap_goes_with_its_value", a_tap_goes_with_its_value),
    (
        "a_persistent_tap_survives_its_vmm_and_goes_with_its_guard",
        a_persistent_tap_survives_its_vmm,
    ),
    (
        "a_tap_is_closed_once_nobody_holds_it",
        a_tap_is_closed_once_nobody_holds_it,
    ),
    (
        "a_thread_leaves_its_private_namespace_with_the_guard",
        a_thread_leaves_its_private_namespace,
    ),
    (
        "a_command_runs_in_the_namespace_and_keeps_the_mounts",
        a_command_keeps_the_mounts,
    ),
    (
        "a_named_namespace_goes_with_its_guard",
        a_named_namespace_goes_with_its_guard,
    ),
];

/// Two taps, `a` and `b`, on a Linux bridge in the calling thread's namespace.
fn bridged(a: Offloads, b: Offloads) -> (Tap, Tap) {
    let [a, b] = [("a", a), ("b", b)].map(|(name, offloads)| {
        let tap = Tap::builder(name).offloads(offloads).open().expect("open a tap");
        tap.up().expect("tap up");
        tap
    });
    ip("link add br0 type bridge stp_state 0 mcast_snooping 0");
    for port in ["a", "b"] {
        ip(&format!("link set dev {port} master br0"));
    }
    ip("link set br0 up");
    (a, b)
}

pub fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("run ip");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn exists(interface: &str) -> bool {
    Command::new("ip")
        .args(["link", "show", interface])
        .output()
        .expect("run ip")
        .status
        .success()
}

pub fn udp_frame(payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(1, 2);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).expect("build a frame");
    frame
}

/// Headers of Ethernet and IP, with an address family's own lengths.
#[derive(Clone, Copy)]
enum Ip {
    V4 = 34,
    V6 = 54,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const PAYLOAD: usize = 60_000;

/// A segment far longer than the MTU, to be cut every 1400 bytes. Its checksum holds the pseudo-header's sum.
fn large_segment(ip: Ip, protocol: u8) -> (VnetHeader, Vec<u8>) {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let builder = match ip {
        Ip::V4 => ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
        Ip::V6 => ethernet.ipv6([0xfd; 16], [0xfc; 16], 64),
    };
    let mut frame = Vec::new();
    let payload = vec![0x5a; PAYLOAD];
    match protocol {
        TCP => builder.tcp(1, 2, 0, 1024).write(&mut frame, &payload),
        _ => builder.udp(1, 2).write(&mut frame, &payload),
    }
    .expect("build a frame");

    let start = ip as u16;
    let header = match (ip, protocol) {
        (Ip::V4, TCP) => VnetHeader::gso_tcpv4(start, start + 20, 1400),
        (Ip::V6, TCP) => VnetHeader::gso_tcpv6(start, start + 20, 1400),
        _ => VnetHeader::gso_udp_l4(start, start + 8, 1400),
    };
    let checksum = usize::from(start + header.csum_offset);
    let sum = sum_of_pseudo_header(ip, protocol, &frame);
    frame[checksum..checksum + 2].copy_from_slice(&sum.to_be_bytes());
    (header, frame)
}

fn sum_of_pseudo_header(ip: Ip, protocol: u8, frame: &[u8]) -> u16 {
    let start = ip as usize;
    let addresses = match ip {
        Ip::V4 => &frame[26..start],
        Ip::V6 => &frame[22..start],
    };
    let length = u16::try_from(frame.len() - start).expect("at most 64 KiB");
    fold(&[addresses, &[0, protocol], &length.to_be_bytes()].concat())
}

/// The ones' complement sum of 16-bit words.
fn fold(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

fn a_frame_crosses_a_linux_bridge() {
    let _private = netns::enter_private().expect("private namespace");
    let (a, b) = bridged(Offloads::All, Offloads::All);
    let frame = udp_frame(b"hello");
    a.send(&VnetHeader::none(), &frame).expect("send");
    let (header, received) = b.receive(PATIENCE).expect("receive").expect("a frame");
    assert_eq!(received, frame);
    assert!(!header.needs_checksum());
    assert_eq!(
        b.receive(SILENCE).expect("receive"),
        None,
        "a private namespace is silent"
    );
}

fn large_segments_cross_whole() {
    let _private = netns::enter_private().expect("private namespace");
    let (a, b) = bridged(Offloads::All, Offloads::All);
    for (ip, protocol) in [(Ip::V4, TCP), (Ip::V6, TCP), (Ip::V4, UDP), (Ip::V6, UDP)] {
        let (header, frame) = large_segment(ip, protocol);
        assert!(frame.len() < MAX_FRAME);
        a.send(&header, &frame).expect("send");
        let (received, data) = b.receive(PATIENCE).expect("receive").expect("a frame");
        assert_eq!(data, frame);
        assert_eq!((received.gso_type, received.gso_size), (header.gso_type, 1400));
        assert!(received.needs_checksum());
    }
}

fn a_large_segment_is_cut_up() {
    let _private = netns::enter_private().expect("private namespace");
    let (a, b) = bridged(Offloads::All, Offloads::None);
    let (header, frame) = large_segment(Ip::V4, TCP);
    a.send(&header, &frame).expect("send");
    let mut payload = 0;
    while payload < PAYLOAD {
        let (header, part) = b.receive(PATIENCE).expect("receive").expect("another part");
        assert_eq!(header, VnetHeader::none());
        assert!(part.len() <= 1514);
        let pseudo = sum_of_pseudo_header(Ip::V4, TCP, &part).to_be_bytes();
        assert_eq!(
            fold(&[&pseudo, &part[Ip::V4 as usize..]].concat()),
            0xffff,
            "a complete checksum"
        );
        payload += part.len() - 54;
    }
    assert_eq!(payload, PAYLOAD);
    assert_eq!(
        b.receive(SILENCE).expect("receive"),
        None,
        "no more than was sent"
    );
}

fn a_tap_that_is_down_refuses_frames() {
    let _private = netns::enter_private().expect("private namespace");
    let tap = Tap::open("a").expect("open a tap");
    tap.send(&VnetHeader::none(), &udp_frame(b"up"))
        .expect("send while up");
    tap.down().expect("tap down");
    let error = tap
        .send(&VnetHeader::none(), &udp_frame(b"down"))
        .expect_err("send while down");
    assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
}

fn a_tap_goes_with_its_value() {
    let _private = netns::enter_private().expect("private namespace");
    let tap = Tap::builder("tap%d").mtu(9000).open().expect("open a tap");
    assert_eq!(tap.name(), "tap0");
    assert!(tap.ifindex() > 1);
    assert!(exists("tap0"));
    drop(tap);
    assert!(!exists("tap0"));
}

fn a_persistent_tap_survives_its_vmm() {
    let namespace = Namespace::anonymous().expect("namespace");
    let there = || namespace.run(|| exists("a"));
    let tap = namespace
        .run(|| Tap::builder("a").persistent().open())
        .expect("open a tap");
    let ifindex = tap.ifindex();
    let idle = tap.close().expect("close");
    assert!(there());
    let tap = idle.open().expect("open again");
    assert_eq!(tap.ifindex(), ifindex, "the same device");
    drop(tap.close().expect("close"));
    assert!(!there());
}

fn a_tap_is_closed_once_nobody_holds_it() {
    let namespace = Namespace::anonymous().expect("namespace");
    let tap = namespace.run(|| {
        let tap = Tap::builder("a").persistent().open().expect("open a tap");
        tap.up().expect("up");
        tap
    });
    // As a process does that is being started meanwhile.
    let copy = tap.as_fd().try_clone_to_owned().expect("copy the descriptor");
    let held = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(250));
            held.store(false, Ordering::SeqCst);
            drop(copy);
        });
        let _idle = tap.close().expect("close");
        assert!(!held.load(Ordering::SeqCst));
    });
}

fn a_thread_leaves_its_private_namespace() {
    let current = || std::fs::read_link("/proc/thread-self/ns/net").expect("read the namespace's link");
    let before = current();
    let private = netns::enter_private().expect("private namespace");
    assert_ne!(current(), before);
    drop(private);
    assert_eq!(current(), before);
}

fn a_command_keeps_the_mounts() {
    let namespace = Namespace::anonymous().expect("namespace");
    let _tap = namespace.run(|| Tap::open("a")).expect("open a tap");
    let shell = ["-c", "ip link show dev a && readlink /proc/self/ns/mnt"];
    let output = namespace
        .command("sh")
        .expect("command")
        .args(shell)
        .output()
        .expect("run sh");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mounts = std::fs::read_link("/proc/self/ns/mnt").expect("read the namespace's link");
    assert!(text.ends_with(&format!("{}\n", mounts.display())), "{text}");
}

fn a_named_namespace_goes_with_its_guard() {
    let name = format!("tblab-{}-test", std::process::id());
    let namespace = Namespace::create(&name).expect("namespace");
    let path = namespace.path().expect("a named namespace has a path");
    assert!(path.exists());
    drop(namespace);
    assert!(!path.exists());
}
