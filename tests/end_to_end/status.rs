//! What `run` tells of itself: to whoever asks, and to a service manager. And what is attached, as a configuration.

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener},
    },
    process::Command,
    time::Duration,
};

use lab::Tap;
use serde_json::{Value, json};
use tapbridge::common::fastpath::VERSION;

use super::{
    attach::attach_xdp_of,
    configuration::{File, attached, port},
};
use crate::support::{
    earlier::set_version,
    linux_bridge::make,
    program::{happens, ip, run, signal},
    running::{LIMIT, Running},
    switch::{Switch, unique},
};

crate::tests![
    status_says_what_it_does_and_what_it_did,
    without_one_status_fails,
    a_second_one_is_told_who_is_there,
    a_service_manager_is_told,
    a_service_without_a_file_is_not_ended_by_a_reload,
    somebody_elses_process_is_not_believed,
    what_can_not_be_read_is_not_written_down,
    what_is_attached_can_be_written_down_and_followed,
];

/// Run the binary as another user.
pub const UNPRIVILEGED_TESTS: &[crate::Test] = &[("everybody_may_ask", everybody_may_ask)];

fn status_says_what_it_does_and_what_it_did() {
    // Its program is somebody else's.
    let other = Switch::of(1);
    let switch = Switch::detached(0);
    make(0, false);
    let _ports = ["vnet0", "vnet1"].map(port);
    attach_xdp_of(other.state(), "vnet1");
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let running = Running::saying(
        switch.command(&format!("run -j --config {}", file.path())),
        &format!("{}: 1 rule is followed", file.path()),
    );
    assert_eq!(attached(&running)[0], "vnet0");
    let ports = || switch.json("status")["ports"] == 1;
    assert!(happens(LIMIT, ports), "no port is counted");
    let status = switch.json("status");
    assert_eq!(
        (&status["schema"], &status["pid"]),
        (&json!(2), &json!(running.child().id()))
    );
    let config = &status["config"];
    assert_eq!(
        [&config["path"], &config["rules"], &config["rejected"]],
        [&json!(file.path()), &json!(1), &Value::Null]
    );
    let failing = &status["failing"];
    assert_eq!(failing[0]["ifname"], "vnet1", "{status}");
    let cause = failing[0]["message"].as_str().expect("why");
    assert!(
        cause.starts_with("vnet1: attach xdp: another XDP program"),
        "{cause}"
    );
    assert!(failing[0]["retry"].as_u64().is_some_and(|seconds| seconds <= 10));
    let events = |status: &Value| -> Vec<String> {
        let events = status["last"].as_array().expect("events").iter();
        events
            .map(|event| event["event"].as_str().unwrap_or_default().into())
            .collect()
    };
    assert_eq!(events(&status), ["following", "attached", "failed"], "{status}");
    assert_eq!(
        status["last"][1]["message"],
        "br0: vnet0 is attached by xdp + tcx"
    );
    // What it complained of, and a file that can't be used.
    file.write("[[bridge]]\nnane = \"br0\"");
    signal(running.child(), "HUP");
    let rejected = || switch.json("status")["config"]["rejected"].is_string();
    assert!(happens(LIMIT, rejected), "the file is not read again");
    let said = switch.ok("status");
    for words in [
        format!("process {}, tapbridge ", running.child().id()),
        format!("follows {}: 1 rule, read at ", file.path()),
        "which can't be used as it is now".into(),
        "did you mean 'name'?".into(),
        "  br0: vnet0 is attached by xdp + tcx".into(),
        "vnet1: attach xdp: another XDP program".into(),
    ] {
        assert!(said.contains(&words), "{words}: {said}");
    }
}

fn without_one_status_fails() {
    let switch = Switch::detached(0);
    let said = switch.fails("status");
    assert!(
        said.contains("tapbridge run: is not running in this network namespace"),
        "{said}"
    );
    let running = Running::start(&switch);
    assert_eq!(switch.json("status")["config"], Value::Null);
    assert!(!running.stop("KILL").success());
    assert!(switch.fails("status").contains("is not running"));
}

fn a_second_one_is_told_who_is_there() {
    let switch = Switch::detached(0);
    let running = Running::start(&switch);
    let said = switch.fails("run");
    let process = format!("process {}", running.child().id());
    assert!(said.contains(&process), "{said}");
}

fn everybody_may_ask() {
    let switch = Switch::detached(0);
    let _running = Running::start(&switch);
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let status = switch.command("status");
    other.arg(status.get_program()).args(status.get_args());
    assert!(run(other).success().contains("follows no configuration"));
}

/// What is told next, and is one of these.
#[track_caller]
fn told(manager: &UnixDatagram, wanted: &[&str]) -> String {
    let mut buffer = [0; 4096];
    for _ in 0..1000 {
        let length = manager
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("none of {wanted:?} is told in {LIMIT:?}: {error}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if wanted.iter().any(|wanted| text.starts_with(wanted)) {
            return text;
        }
    }
    panic!("none of {wanted:?} in a thousand messages");
}

fn a_service_manager_is_told() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut command = switch.command(&format!("run --config {}", file.path()));
    command.env("NOTIFY_SOCKET", &path);
    let period = Duration::from_millis(900);
    command.env("WATCHDOG_USEC", period.as_micros().to_string());
    command.stdout(std::process::Stdio::null());
    let running = Running::saying(command, &format!("{}: 1 rule is followed", file.path()));
    let all = ["READY=1", "RELOADING=1", "STATUS=", "STOPPING=1"];
    assert_eq!(told(&manager, &all), "READY=1\n");
    assert_eq!(told(&manager, &all), "STATUS=ports attached: 0\n");
    let tap = port("vnet0");
    assert_eq!(told(&manager, &all), "STATUS=ports attached: 1\n");
    for _ in 0..3 {
        assert_eq!(told(&manager, &["WATCHDOG=1"]), "WATCHDOG=1\n");
    }
    signal(running.child(), "HUP");
    let reloading = told(&manager, &all);
    let (_, since) = reloading.split_once("\nMONOTONIC_USEC=").expect("since when");
    assert!(since.trim().parse::<u64>().is_ok(), "{reloading}");
    assert_eq!(told(&manager, &all), "READY=1\n");
    assert_eq!(told(&manager, &all), "STATUS=ports attached: 1\n");
    file.write("[[bridge]]");
    signal(running.child(), "HUP");
    assert!(told(&manager, &all).starts_with("RELOADING=1"));
    let rejected = told(&manager, &all);
    assert!(rejected.starts_with("READY=1\nSTATUS="), "{rejected}");
    assert!(rejected.contains("missing field `name`"), "{rejected}");
    drop(tap);
    assert!(running.stop("TERM").success());
    assert_eq!(told(&manager, &["STOPPING=1"]), "STOPPING=1\n");
}

fn a_service_without_a_file_is_not_ended_by_a_reload() {
    let switch = Switch::detached(0);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(LIMIT)).expect("a limit");
    let mut command = switch.command("run");
    command.env("NOTIFY_SOCKET", &path);
    let running = Running::of(command);
    signal(running.child(), "HUP");
    let complaint = running.complaint();
    assert!(
        complaint.contains("was started without a configuration"),
        "{complaint}"
    );
    assert!(switch.ok("status").contains("follows no configuration"));
    assert!(running.stop("TERM").success());
}

/// Listens as another user.
fn impostor(name: &str) -> UnixListener {
    const SAME: libc::uid_t = libc::uid_t::MAX;
    let become_user = |user: libc::uid_t| {
        // SAFETY: the call takes three numbers. It changes who the calling thread is, and no other.
        let changed = unsafe { libc::syscall(libc::SYS_setresuid, SAME, user, SAME) };
        assert_eq!(changed, 0, "{}", std::io::Error::last_os_error());
    };
    become_user(65534);
    let address = SocketAddr::from_abstract_name(name).expect("a name");
    let listener = UnixListener::bind_addr(&address);
    become_user(0);
    listener.expect("listen")
}

fn somebody_elses_process_is_not_believed() {
    let switch = Switch::detached(0);
    let listener = impostor(&format!("tapbridge-run:{}", switch.state().display()));
    for words in ["status", "run"] {
        let said = switch.fails(words);
        assert!(
            said.contains("of user 65534") && said.contains("is not trusted"),
            "{said}"
        );
    }
    assert_eq!(switch.json("show")["running"], false);
    drop(listener);
    assert!(Running::start(&switch).stop("TERM").success());
}

fn what_can_not_be_read_is_not_written_down() {
    let switch = Switch::detached(0);
    make(0, false);
    let _tap = port("vnet0");
    switch.ok("attach vnet0");
    let folder = switch.folder().expect("something pinned");
    set_version(&folder, VERSION + 1);
    let said = switch.fails("config dump");
    assert!(
        said.contains("was made by a tapbridge with layout version"),
        "{said}"
    );
    set_version(&folder, VERSION);
    assert!(switch.ok("config dump").contains("br0"));
}

fn what_is_attached_can_be_written_down_and_followed() {
    let switch = Switch::detached(0);
    make(0, false);
    let taps = ["vnet0", "vnet1", "vnet2"].map(port);
    let name = unique("own");
    let alone = ["web[0]", "web1"].map(|name| Tap::open(name).expect("open a tap"));
    ip("link add up0 type veth peer name up1");
    ip("link set up0 master br0 up");
    switch.ok("attach vnet0 up0");
    switch.ok("attach vnet1 --hook tcx --bypass-netfilter");
    switch.ok(&format!("attach web[0] web1 --bridge {name}"));
    let show = || {
        let mut shown = switch.json("show");
        shown["running"].take();
        shown
    };
    let before = show();
    let file = File::new(&switch.ok("config dump"));
    let path = file.path();
    let said = switch.ok(&format!("check {path}"));
    assert!(said.contains("and nothing to change"), "{said}");
    switch.ok("detach --all");
    let rules = said
        .split_once(": ")
        .and_then(|(_, rest)| rest.split_once(','))
        .expect("rules")
        .0;
    assert_eq!(rules, "3 rules");
    let running = Running::saying(
        switch.command(&format!("run -j --config {path}")),
        &format!("{path}: {rules} are followed"),
    );
    let mut names: Vec<_> = (0..5).map(|_| attached(&running)[0].clone()).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, ["up0", "vnet0", "vnet1", "web1", "web[0]"]);
    assert_eq!(show(), before);
    assert!(running.stop("TERM").success());
    // Of ports that are alike the bridge alone is named.
    switch.ok("detach --all");
    drop((taps, alone));
    let _taps = ["vnet3", "vnet4"].map(port);
    switch.ok("attach --master br0");
    let dumped = switch.json("config dump");
    assert_eq!(
        dumped["configuration"]
            .as_str()
            .and_then(|text| text.split_once("\n\n"))
            .map(|(_, rules)| rules),
        Some("[[bridge]]\nname = \"br0\"\nhook = \"auto\"\n")
    );
}
