//! The frame pump between a host's namespace and a guest's, with real TCP through it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use lab::{
    Namespace, Offloads, Tap,
    pump::{self, Report},
};

use crate::Test;

pub const TESTS: &[Test] = &[
    (
        "tcp_crosses_the_pump_in_large_segments",
        tcp_crosses_in_large_segments,
    ),
    (
        "without_offloads_every_frame_fits_the_mtu",
        without_offloads_every_frame_fits,
    ),
    (
        "frames_for_a_tap_that_is_down_are_counted_as_dropped",
        frames_for_a_tap_that_is_down_are_dropped,
    ),
    (
        "the_pump_ends_when_a_tap_is_removed",
        the_pump_ends_when_a_tap_is_removed,
    ),
];

const BYTES: usize = 8 << 20;
const HOST: &str = "10.0.0.1";
const GUEST: &str = "10.0.0.2";

/// A host and a guest, each with its end of the pump.
struct Pair {
    host: Namespace,
    guest: Namespace,
    tap: Tap,
    card: Tap,
}

impl Pair {
    fn new(offloads: Offloads) -> Self {
        let [(host, tap), (guest, card)] = [("vm1", HOST), ("g0", GUEST)].map(|(name, address)| {
            let namespace = Namespace::anonymous().expect("namespace");
            let tap = namespace.run(|| {
                let tap = Tap::builder(name).offloads(offloads).open().expect("open a tap");
                tap.up().expect("tap up");
                let address = format!("{address}/24");
                let ip = Command::new("ip")
                    .args(["address", "add", &address, "dev", name])
                    .status();
                assert!(ip.expect("run ip").success());
                tap
            });
            (namespace, tap)
        });
        Self {
            host,
            guest,
            tap,
            card,
        }
    }

    /// Pumps while `work` goes on.
    fn pump_during(&self, work: impl FnOnce()) -> Report {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let pump = scope.spawn(|| pump::run(&self.tap, &self.card, || stop.load(Ordering::Relaxed)));
            work();
            stop.store(true, Ordering::Relaxed);
            pump.join()
                .expect("no panic in the pump")
                .expect("both taps are there")
        })
    }

    /// The guest sends [`BYTES`] bytes to the host, which checks them.
    fn transfer(&self) {
        let data: Vec<u8> = (0u8..=250).cycle().take(BYTES).collect();
        let listener = self.host.run(|| TcpListener::bind((HOST, 0))).expect("listen");
        let address = listener.local_addr().expect("an address");
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = self.guest.run(|| TcpStream::connect(address)).expect("connect");
                stream.write_all(&data).expect("send");
            });
            let mut received = Vec::new();
            listener
                .accept()
                .expect("accept")
                .0
                .read_to_end(&mut received)
                .expect("receive");
            assert!(
                received == data,
                "{} bytes came, not those that were sent",
                received.len()
            );
        });
    }
}

fn tcp_crosses_in_large_segments() {
    let pair = Pair::new(Offloads::All);
    let report = pair.pump_during(|| pair.transfer());
    let to_host = report.to_host;
    assert!(to_host.bytes > BYTES as u64);
    assert!(
        to_host.bytes / to_host.frames > 1514,
        "segments stay whole: {report:?}"
    );
    assert_eq!((to_host.dropped, report.to_guest.dropped), (0, 0));
    assert_eq!(to_host.writev, to_host.frames);
    assert!(to_host.read >= to_host.writev && report.ppoll > 0);
}

fn without_offloads_every_frame_fits() {
    let pair = Pair::new(Offloads::None);
    let to_host = pair.pump_during(|| pair.transfer()).to_host;
    assert!(to_host.bytes <= to_host.frames * 1514);
    assert!(to_host.frames > BYTES as u64 / 1460);
}

fn frames_for_a_tap_that_is_down_are_dropped() {
    let pair = Pair::new(Offloads::All);
    pair.tap.down().expect("tap down");
    let report = pair.pump_during(|| {
        let connect =
            || TcpStream::connect_timeout(&format!("{HOST}:1").parse().unwrap(), Duration::from_secs(3));
        pair.guest.run(connect).expect_err("nobody answers");
    });
    assert_eq!(report.to_host.frames, 0);
    assert!(report.to_host.dropped > 0, "{report:?}");
}

fn the_pump_ends_when_a_tap_is_removed() {
    let pair = Pair::new(Offloads::All);
    thread::scope(|scope| {
        let pump = scope.spawn(|| pump::run(&pair.tap, &pair.card, || false));
        let delete = ["link", "delete", "dev", "vm1"];
        let ip = pair.host.run(|| Command::new("ip").args(delete).status());
        assert!(ip.expect("run ip").success());
        pump.join()
            .expect("no panic in the pump")
            .expect_err("a tap is gone");
    });
}
