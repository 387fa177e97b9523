//! Metrics: what they say is what the statistics say, and who may scrape them from where.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{TcpListener, TcpStream},
    os::{
        fd::AsRawFd as _,
        unix::{fs::MetadataExt as _, net::UnixListener},
    },
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use aya::programs::{SchedClassifier, TcAttachType};
use lab::{Namespace, Tap};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use serde_json::json;
use tapbridge::common::fastpath::map;

use crate::support::{
    end::EndOnDrop,
    frames::Flow,
    http,
    linux_bridge::{make, stop_learning},
    load::talk,
    metrics::Samples,
    program::{happens, ip, run, signal},
    running::{LIMIT, Running},
    switch::{BRIDGE, Switch, command_in},
    wire::{drain, send},
};

crate::tests![
    the_metrics_are_what_the_statistics_say,
    two_scrapes_beside_traffic_add_up,
    counters_never_become_less_while_others_come_and_go,
    a_scrape_says_that_it_was_not_all,
    a_scrape_says_what_others_have_done_to_a_port,
    paths_are_told_of_as_far_as_is_asked_for,
    without_any_bridge_there_are_metrics_too,
    a_page_is_had_by_tcp_in_the_format_that_is_asked_for,
    a_socket_is_replaced_if_nobody_listens_and_goes_with_run,
    an_address_that_can_not_be_had_is_refused_before_anything_is_followed,
    one_that_is_refused_serves_nothing,
    clients_that_say_nothing_hold_up_nobody,
];

const ADDRESS: &str = "127.0.0.1:9123";

fn metrics(switch: &Switch) -> Samples {
    Samples::of(&switch.ok("metrics"))
}

#[track_caller]
fn scrape() -> Samples {
    Samples::of(&http::page(ADDRESS, "/metrics"))
}

/// `run` with these words too, which answers scrapes there.
fn serving(switch: &Switch, words: &str, at: &str) -> Running {
    let running = Running::saying(
        switch.command(&format!("run -j {words}")),
        &format!("metrics are at {at}"),
    );
    let mut said = running.complaint();
    if said.ends_with("followed") {
        said = running.complaint();
    }
    assert_eq!(said, "watching the ports of '--hook auto'; Ctrl-C ends");
    running
}

fn serving_tcp(switch: &Switch, words: &str) -> Running {
    let words = format!("--metrics :9123 {words}");
    serving(switch, &words, &format!("http://{ADDRESS}/metrics"))
}

/// Sends so many frames from a station to another, all of which arrive.
fn send_frames(from: (&Tap, u8), to: (&Tap, u8), frames: usize) {
    for _ in 0..frames {
        send(from.0, &Flow::udp(from.1, to.1).frame(b"past the bridge"));
        assert_eq!(to.0.drain().expect("receive"), 1);
    }
}

fn the_metrics_are_what_the_statistics_say() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    send_frames((vm1, 1), (vm2, 2), 7);
    send(vm1, &Flow::tcp(1, 9).of_length(104));
    drain(&[vm2, vm3]);
    let stats = switch.stats();
    let samples = metrics(&switch);
    for port in &stats.ports {
        let of = |name: &str| {
            samples.value(&format!(
                "port_{name}_total{{bridge=\"{BRIDGE}\",device=\"{}\"}}",
                port.ifname
            ))
        };
        for (name, number) in [
            ("receive_frames", port.rx.frames),
            ("receive_bytes", port.rx.bytes),
            ("forwarded_frames", port.forwarded.frames),
            ("forwarded_bytes", port.forwarded.bytes),
            ("left_bytes", port.left.bytes),
            ("transmit_frames", port.tx.frames),
            ("transmit_bytes", port.tx.bytes),
            ("device_transmit_frames", port.tx.frames + port.tx_by_bridge),
            ("transmit_dropped", port.tx_dropped),
            ("bulk_frames", port.bulk.frames),
            ("gso_frames", port.gso_frames),
            ("checksums_completed", port.checksums_completed),
            ("hook_changes", 0),
        ] {
            assert_eq!(of(name), number, "{name} of {}", port.ifname);
        }
        for (reason, frames) in &port.left_by_reason {
            let name = format!(
                "left_frames_total{{bridge=\"{BRIDGE}\",device=\"{}\",reason=\"{reason}\"}}",
                port.ifname
            );
            assert_eq!(samples.value(&name), *frames);
        }
    }
    for path in &stats.paths {
        let of = |name: &str| {
            let to = path.to.as_deref().unwrap_or_default();
            samples.value(&format!(
                "path_{name}_total{{bridge=\"{BRIDGE}\",from=\"{}\",to=\"{to}\",via=\"{}\"}}",
                path.from, path.via
            ))
        };
        assert_eq!((of("frames"), of("bytes")), (path.frames, path.bytes));
    }
    assert!(!stats.paths.is_empty() && samples.value("paths_omitted") == 0);
    for (name, value) in [("scrape_complete", 1), ("run_active", 0), ("ports", 3)] {
        assert_eq!(samples.value(name), value, "{name}");
    }
    // The other format and the JSON say the same.
    let other = Samples::of(&switch.ok("metrics --format openmetrics"));
    assert!(other.counters().eq(samples.counters()));
    let families = switch.json("metrics");
    let ports = families["families"].as_array().expect("families").iter();
    let mut ports = ports.filter(|family| family["name"] == "tapbridge_ports");
    assert_eq!(
        ports.next().map(|family| &family["samples"]),
        Some(&json!([{ "labels": {}, "value": 3 }]))
    );
    assert!(
        switch
            .fails("metrics --bridge br9")
            .contains("br9: no bridge of this name")
    );
}

fn two_scrapes_beside_traffic_add_up() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let running = serving_tcp(&switch, "");
    let before = scrape();
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let traffic = scope.spawn(|| u64::from(talk(vm1, vm2, &stop)));
        let end = EndOnDrop(&stop);
        for _ in 0..10 {
            scrape();
        }
        drop(end);
        traffic.join().expect("frames go on")
    });
    let after = scrape();
    let of = |name: &str, device: &str| {
        let name = format!("port_{name}_frames_total{{bridge=\"{BRIDGE}\",device=\"{device}\"}}");
        after.value(&name) - before.value(&name)
    };
    assert_eq!(of("receive", "vm1"), sent);
    assert_eq!(of("forwarded", "vm1"), sent);
    assert_eq!(of("transmit", "vm2"), sent);
    assert_eq!(after.value("run_active"), 1);
    // As the command says that was there before.
    let stats = switch.stats();
    let received = format!("port_receive_frames_total{{bridge=\"{BRIDGE}\",device=\"vm1\"}}");
    assert_eq!(after.value(&received), stats.port("vm1").rx.frames);
    assert!(running.stop("TERM").success());
}

/// Where a port goes, what it has sent becomes what ports that are no more have sent, path by path.
fn counters_never_become_less_while_others_come_and_go() {
    const TAPS: usize = 24;
    let switch = Switch::of(TAPS);
    let taps: [&Tap; TAPS] = switch.taps();
    let [leaver, others @ ..] = taps;
    switch.introduce();
    stop_learning("vm1");
    let _running = serving_tcp(&switch, "--metrics-paths all");
    let stop = AtomicBool::new(false);
    let namespace = Namespace::current().expect("the namespace");
    thread::scope(|scope| {
        let scrapes = scope.spawn(|| {
            let _entered = namespace.enter().expect("enter");
            let mut before = scrape();
            let mut scrapes = 0;
            while !stop.load(Ordering::Relaxed) {
                let now = scrape();
                for (name, value) in before.counters() {
                    // Of the one that goes, and of paths, which it takes with it, nothing is promised.
                    if name.contains("\"vm1\"") || name.starts_with("tapbridge_path_") {
                        continue;
                    }
                    let later = now.value(name.trim_start_matches("tapbridge_"));
                    assert!(later >= value, "{name}: {value}, then {later}");
                }
                before = now;
                scrapes += 1;
            }
            scrapes
        });
        let end = EndOnDrop(&stop);
        for _ in 0..40 {
            for (other, number) in others.iter().zip(2..) {
                send(leaver, &Flow::udp(1, number).frame(b"past the bridge"));
                drain(&[other]);
            }
            switch.ok("detach vm1");
            switch.ok("attach vm1");
        }
        drop(end);
        assert!(scrapes.join().expect("all counters become more") > 10);
    });
}

fn a_scrape_says_that_it_was_not_all() {
    let switch = Switch::of(2);
    assert_eq!(metrics(&switch).value("scrape_complete"), 1);
    let folder = switch.folder().expect("something pinned");
    // Somebody moves counters, and has been stopped.
    let lock = File::open(&folder).expect("open the folder");
    lock.lock().expect("lock the folder");
    let samples = metrics(&switch);
    assert_eq!((samples.value("scrape_complete"), samples.value("ports")), (0, 2));
    drop(lock);
    fs::create_dir(switch.state().join("other")).expect("make a folder");
    let samples = metrics(&switch);
    assert_eq!(
        (
            samples.value("scrape_complete"),
            samples.value("unreadable_entries")
        ),
        (1, 1)
    );
    fs::remove_dir(switch.state().join("other")).expect("remove a folder");
    fs::remove_file(folder.join(map::PATHS)).expect("remove a pin");
    let samples = metrics(&switch);
    for (name, value) in [("scrape_complete", 0), ("unreadable_entries", 1), ("ports", 0)] {
        assert_eq!(samples.value(name), value, "{name}");
    }
}

fn a_scrape_says_what_others_have_done_to_a_port() {
    let mut switch = Switch::of(3);
    fs::remove_file(switch.pin("vm1", "tcx")).expect("remove a pin");
    let gone = || {
        let attached = SchedClassifier::query_tcx("vm1", TcAttachType::Ingress);
        attached.expect("ask").1.is_empty()
    };
    assert!(happens(LIMIT, gone), "the program stays");
    ip("link set vm2 nomaster");
    switch.remove("vm3");
    let samples = metrics(&switch);
    for (bridge, device, problem) in [
        (BRIDGE, "vm1", "detached"),
        ("", "vm2", "no_bridge"),
        ("", "vm3", "gone"),
    ] {
        let name = format!("port_problem{{bridge=\"{bridge}\",device=\"{device}\",problem=\"{problem}\"}}");
        assert_eq!(samples.value(&name), 1);
    }
    let hook = |hook: &str| {
        samples.value(&format!(
            "port_hook{{bridge=\"{BRIDGE}\",device=\"vm1\",hook=\"{hook}\"}}"
        ))
    };
    assert_eq!((hook("tcx"), hook("xdp")), (0, 1));
    assert_eq!(samples.count("port_transmit_dropped_total"), 2);
}

fn paths_are_told_of_as_far_as_is_asked_for() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    for port in ["vm1", "vm2", "vm3"] {
        stop_learning(port);
    }
    send_frames((vm1, 1), (vm2, 2), 3);
    send_frames((vm2, 2), (vm3, 3), 2);
    send_frames((vm3, 3), (vm1, 1), 1);
    for (asked, told, omitted, frames) in [
        ("all", 3, 0, 0),
        ("3", 3, 0, 0),
        ("1", 1, 2, 3),
        ("none", 0, 3, 6),
    ] {
        let samples = Samples::of(&switch.ok(&format!("metrics --paths {asked}")));
        assert_eq!(samples.count("path_frames_total"), told, "{asked}");
        assert_eq!(samples.count("path_bytes_total"), told, "{asked}");
        assert_eq!(
            (
                samples.value("paths"),
                samples.value("paths_omitted"),
                samples.value("paths_omitted_frames")
            ),
            (3, omitted, frames),
            "{asked}"
        );
    }
    let running = serving_tcp(&switch, "--metrics-paths 2");
    assert_eq!(scrape().count("path_frames_total"), 2);
    assert!(running.stop("INT").success());
}

fn without_any_bridge_there_are_metrics_too() {
    let switch = Switch::empty();
    let samples = metrics(&switch);
    for (name, value) in [("scrape_complete", 1), ("ports", 0), ("paths", 0)] {
        assert_eq!(samples.value(name), value, "{name}");
    }
    let running = serving_tcp(&switch, "");
    assert_eq!(scrape().value("run_active"), 1);
    assert!(running.stop("TERM").success());
    assert!(!switch.state().exists());
}

fn a_page_is_had_by_tcp_in_the_format_that_is_asked_for() {
    let switch = Switch::of(1);
    let running = serving_tcp(&switch, "");
    let old = http::tcp(ADDRESS, "GET /metrics");
    assert_eq!(old.status, 200);
    assert!(
        old.head.contains("\r\ncontent-type: text/plain; version=0.0.4"),
        "{old:?}"
    );
    assert!(!old.body.contains("# EOF"));
    let new = http::tcp(ADDRESS, "GET /metrics\nAccept: application/openmetrics-text");
    assert!(
        new.head
            .contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0"),
        "{new:?}"
    );
    assert!(new.body.ends_with("\n# EOF\n"));
    assert!(
        Samples::of(&new.body)
            .counters()
            .eq(Samples::of(&old.body).counters())
    );
    let head = http::tcp(ADDRESS, "HEAD /metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("\r\ncontent-length: "), "{head:?}");
    for (request, status) in [
        ("GET /", 404),
        ("GET /metrics/", 404),
        ("GET /metrics?name=x", 200),
        ("POST /metrics", 405),
        ("DELETE /metrics", 405),
        ("POST /", 404),
        ("nonsense", 400),
    ] {
        assert_eq!(http::tcp(ADDRESS, request).status, status, "{request}");
    }
    assert!(running.stop("TERM").success());
    assert!(TcpStream::connect(ADDRESS).is_err(), "it still listens");
}

fn a_socket_is_replaced_if_nobody_listens_and_goes_with_run() {
    let switch = Switch::of(1);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("metrics.sock");
    let words = format!("--metrics unix:{}", path.display());
    let running = serving(&switch, &words, &path.display().to_string());
    let mode = fs::metadata(&path).expect("the socket").mode();
    assert_eq!(mode & 0o777, 0o660);
    let answer = http::unix(&path, "GET /metrics");
    assert_eq!(Samples::of(&answer.body).value("ports"), 1);
    assert!(!running.stop("KILL").success());
    assert!(path.exists());
    let running = serving(&switch, &words, &path.display().to_string());
    assert_eq!(http::unix(&path, "GET /metrics").status, 200);
    assert!(running.stop("TERM").success());
    assert!(!path.exists(), "it is left behind");
    // Somebody else listens, or it is something else.
    let other = UnixListener::bind(&path).expect("listen");
    let complaint = switch.fails(&format!("run {words}"));
    assert!(
        complaint.contains(&format!(
            "unix:{}: listen for scrapes: another process listens there; end who has it, or name another",
            path.display()
        )),
        "{complaint}"
    );
    assert!(path.exists());
    drop(other);
    fs::remove_file(&path).expect("remove a socket");
    fs::write(&path, "precious").expect("write a file");
    let complaint = switch.fails(&format!("run {words}"));
    assert!(
        complaint.contains("a file is there that is no socket"),
        "{complaint}"
    );
    assert_eq!(fs::read_to_string(&path).expect("the file"), "precious");
    let complaint = switch.fails("run --metrics unix:/nowhere/metrics.sock");
    assert!(
        complaint.contains("make the folder, or name another path"),
        "{complaint}"
    );
}

fn an_address_that_can_not_be_had_is_refused_before_anything_is_followed() {
    let switch = Switch::detached(1);
    make(1, false);
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("tapbridge.toml");
    fs::write(&config, "[[bridge]]\nname = \"br0\"").expect("write a configuration");
    let _other = TcpListener::bind(ADDRESS).expect("listen");
    for (address, expected) in [
        (
            ADDRESS,
            "Address already in use (os error 98); end who has it, or name another",
        ),
        (
            "192.0.2.1:9123",
            "Cannot assign requested address (os error 99); name an address that this network namespace has",
        ),
    ] {
        let complaint = switch.fails(&format!("run --metrics {address} --config {}", config.display()));
        let expected = format!("{address}: listen for scrapes: {expected}");
        assert!(complaint.contains(&expected), "{complaint}");
        let mut json = command_in(switch.state(), "run -j --metrics");
        json.arg(address);
        let complaint = run(json).failure(1);
        let complaint: serde_json::Value = serde_json::from_str(&complaint).expect("JSON");
        assert!(complaint["error"]["message"].is_string(), "{complaint}");
    }
    assert!(!switch.state().exists(), "something is attached");
}

fn one_that_is_refused_serves_nothing() {
    let switch = Switch::detached(1);
    // Has the name, and answers nobody: as one that has just begun.
    let begun = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .expect("a socket");
    let name = format!("tapbridge-run:{}", switch.state().display());
    let address = UnixAddr::new_abstract(name.as_bytes()).expect("a short name");
    bind(begun.as_raw_fd(), &address).expect("bind");
    let complaint = switch.fails("run --metrics 9123");
    assert!(
        complaint.contains("another 'tapbridge run' looks after"),
        "{complaint}"
    );
    assert!(!complaint.contains("metrics are at"), "{complaint}");
}

fn clients_that_say_nothing_hold_up_nobody() {
    // More than are served at a time.
    const SILENT: usize = 40;
    let switch = Switch::detached(0);
    make(0, false);
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("tapbridge.toml");
    fs::write(&config, "[[bridge]]\nname = \"br0\"").expect("write a configuration");
    let running = serving_tcp(&switch, &format!("--config {}", config.display()));
    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|number| {
            let mut stream = TcpStream::connect(ADDRESS).expect("connect");
            if number % 2 == 0 {
                stream.write_all(b"GET /metr").expect("say half of it");
            }
            stream
        })
        .collect();
    // Ports are attached meanwhile, and whoever asks is answered.
    let tap = Tap::open("vnet0").expect("open a tap");
    ip("link set vnet0 master br0 up");
    assert_eq!(running.next()["ifname"], "vnet0");
    assert_eq!(scrape().value("ports"), 1);
    drop((silent, tap));
    signal(running.child(), "HUP");
    assert!(running.complaint().ends_with("1 rule is followed"));
    assert!(running.stop("TERM").success());
}
