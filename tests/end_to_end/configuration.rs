//! `run` with a configuration: what it asks for is attached as it comes.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use lab::Tap;
use serde_json::{Value, json};

use super::attach::attach_xdp_of;
use crate::support::{
    frames::Flow,
    linux_bridge::{introduce, make},
    program::{happens, ip, lines, link, run, signal, wait},
    running::{LIMIT, Running},
    switch::{Switch, unique},
    wire::{assert_receives, send},
};

crate::tests![
    ports_are_attached_as_they_come,
    what_vanished_is_cleared_and_known_when_it_comes_again,
    taps_without_a_bridge_become_ports_of_the_one_that_is_made,
    one_that_can_not_be_attached_does_not_keep_others_from_it,
    a_rule_that_can_not_be_followed_keeps_no_other_from_it,
    what_was_said_later_counts,
    a_file_is_read_again_and_one_that_can_not_be_used_changes_nothing,
    check_says_what_would_change_and_changes_nothing,
    one_whose_output_nobody_reads_any_more_fails,
];

/// Run the binary as another user.
pub const UNPRIVILEGED_TESTS: &[crate::Test] = &[(
    "check_says_what_is_wrong_to_everybody",
    check_says_what_is_wrong_to_everybody,
)];

/// A configuration in a folder of its own.
pub struct File(tempfile::TempDir);

impl File {
    pub fn new(text: &str) -> Self {
        // That others may read, too.
        let open = fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().permissions(open).tempdir();
        let file = Self(folder.expect("a folder"));
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        fs::write(self.path(), text).expect("write the configuration");
    }

    pub fn path(&self) -> String {
        format!("{}/tapbridge.toml", self.0.path().display())
    }
}

/// Has a file followed, which is one that can be.
#[track_caller]
pub fn follow(switch: &Switch, file: &File) -> Running {
    let text = fs::read_to_string(file.path()).expect("read the configuration");
    let followed = match text.matches("[[bridge]]").count() {
        1 => "1 rule is followed".into(),
        rules => format!("{rules} rules are followed"),
    };
    let running = Running::saying(
        switch.command(&format!("run -j --config {}", file.path())),
        &format!("{}: {followed}", file.path()),
    );
    assert_eq!(
        running.complaint(),
        "watching the ports of '--hook auto'; Ctrl-C ends"
    );
    running
}

/// The next port that is attached: its name, bridge and hooks.
#[track_caller]
pub fn attached(running: &Running) -> [Value; 3] {
    let event = running.next();
    assert_eq!(event["event"], "attached", "{event}");
    ["ifname", "master", "hooks"].map(|key| event[key].clone())
}

pub fn port(name: &str) -> Tap {
    let tap = Tap::open(name).expect("open a tap");
    ip(&format!("link set {name} master br0 up"));
    tap
}

fn one_whose_output_nobody_reads_any_more_fails() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let mut command = switch.command(&format!("run --config {}", file.path()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("start tapbridge");
    drop(running.stdout.take());
    let complaints = lines(running.stderr.take());
    let tap = port("vnet0");
    let status = wait(&mut running, LIMIT).expect("it ends");
    let complaints: Vec<String> = complaints.iter().collect();
    assert_eq!(status.code(), Some(1), "{complaints:?}");
    let last = complaints.last().expect("a complaint");
    assert!(
        last.starts_with("tapbridge: standard output: whoever read it has ended"),
        "{complaints:?}"
    );
    // It is attached all the same.
    assert_eq!(switch.shown("vnet0")["attached"], true);
    drop(tap);
}

fn ports_are_attached_as_they_come() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"\nports = [\"vnet*\"]\nhook = \"xdp\"");
    let before = port("vnet0");
    let running = follow(&switch, &file);
    let told = |name: &str| [json!(name), json!("br0"), json!(["xdp", "tcx"])];
    assert_eq!(attached(&running), told("vnet0"));
    let _other = port("tap0");
    let after = port("vnet1");
    assert_eq!(attached(&running), told("vnet1"));
    introduce(&[&before, &after]);
    let frame = Flow::udp(1, 2).frame(b"past the bridge");
    let passes = || {
        send(&before, &frame);
        assert_receives(&after, &frame);
        switch.stats().ports.iter().any(|port| port.forwarded.frames > 0)
    };
    assert!(happens(LIMIT, passes), "nothing goes past the bridge");
    // What a command has changed is put right, a device that is made anew attached anew.
    switch.ok("detach vnet0");
    ip("link set vnet0 mtu 1400");
    assert_eq!(attached(&running), told("vnet0"));
    drop(after);
    let _again = port("vnet1");
    assert_eq!(attached(&running), told("vnet1"));
    // Moved out of the bridge, and into it.
    ip("link set vnet0 nomaster");
    ip("link set vnet0 name vm0");
    ip("link set vm0 master br0");
    // What comes next is the next that comes.
    let _last = port("vnet2");
    assert_eq!(attached(&running), told("vnet2"));
    assert!(running.stop("TERM").success());
    let names: Vec<_> = switch.stats().ports.into_iter().map(|port| port.ifname).collect();
    assert_eq!(names, ["vm0", "vnet1", "vnet2"], "it leaves all as it is");
}

fn what_vanished_is_cleared_and_known_when_it_comes_again() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let (stays, goes) = (port("vnet0"), port("vnet1"));
    switch.ok("attach vnet0");
    switch.ok("attach vnet1 --hook tcx");
    let running = follow(&switch, &file);
    drop(goes);
    let cleared = || {
        let names = switch.stats().ports.into_iter().map(|port| port.ifname);
        names.collect::<Vec<_>>() == ["vnet0"]
    };
    assert!(happens(LIMIT, cleared), "it is not cleared away");
    // Another one comes first.
    let _other = port("vnet2");
    assert_eq!(attached(&running)[0], "vnet2");
    let _again = port("vnet1");
    assert_eq!(attached(&running), [json!("vnet1"), json!("br0"), json!(["tcx"])]);
    drop(stays);
}

fn taps_without_a_bridge_become_ports_of_the_one_that_is_made() {
    let switch = Switch::detached(0);
    let name = unique("lab");
    let file = File::new(&format!(
        "[[bridge]]\nname = \"{name}\"\nmake = true\nports = [\"lab-*\"]"
    ));
    let running = follow(&switch, &file);
    let _taps = ["lab-1", "other", "lab-2"].map(|name| Tap::open(name).expect("open a tap"));
    for tap in ["lab-1", "lab-2"] {
        assert_eq!(
            attached(&running),
            [json!(tap), json!(name), json!(["xdp", "tcx"])]
        );
    }
    // When the bridge goes, another one is made.
    ip(&format!("link del {name}"));
    for tap in ["lab-1", "lab-2"] {
        assert_eq!(attached(&running)[..2], [json!(tap), json!(name)]);
    }
    assert!(running.stop("INT").success());
    switch.ok("detach --all");
    assert!(link(&name).is_none(), "it goes with its last port");
}

fn one_that_can_not_be_attached_does_not_keep_others_from_it() {
    // Its program is somebody else's where the other one is.
    let other = Switch::of(1);
    let switch = Switch::detached(0);
    make(0, false);
    let _ports = ["vnet0", "vnet1"].map(port);
    attach_xdp_of(other.state(), "vnet0");
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let running = Running::saying(
        switch.command(&format!("run --config {}", file.path())),
        &format!("{}: 1 rule is followed", file.path()),
    );
    let complaint = running.complaint();
    assert!(
        complaint.contains("vnet0") && complaint.ends_with("; trying again"),
        "{complaint}"
    );
    assert_eq!(running.line(), "br0: vnet1 is attached by xdp + tcx");
}

fn a_rule_that_can_not_be_followed_keeps_no_other_from_it() {
    let switch = Switch::detached(0);
    make(0, false);
    // A device that is no bridge has the name of the one that is to be made.
    ip("link add lab type veth peer name bal");
    let _alone = ["lab-1", "lab-2"].map(|name| Tap::open(name).expect("open a tap"));
    let file =
        File::new("[[bridge]]\nname = \"lab\"\nmake = true\nports = [\"lab-*\"]\n[[bridge]]\nname = \"br0\"");
    let running = Running::saying(
        switch.command(&format!("run --config {}", file.path())),
        &format!("{}: 2 rules are followed", file.path()),
    );
    let complaint = running.complaint();
    assert!(complaint.contains("lab: not a Linux bridge"), "{complaint}");
    // Once, for both.
    assert!(running.complaint().starts_with("watching"));
    let _port = port("vnet0");
    assert_eq!(running.line(), "br0: vnet0 is attached by xdp + tcx");
    let failing = switch.json("status")["failing"].clone();
    let names = failing
        .as_array()
        .into_iter()
        .flatten()
        .map(|failing| &failing["ifname"]);
    assert_eq!(names.collect::<Vec<_>>(), ["lab-1", "lab-2"]);
}

fn what_was_said_later_counts() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"");
    let tap = port("vnet0");
    switch.ok("attach vnet0 --hook tcx --bypass-netfilter");
    let running = follow(&switch, &file);
    drop(tap);
    let _again = port("vnet0");
    assert_eq!(attached(&running)[2], json!(["tcx"]));
    assert_eq!(switch.shown("vnet0")["bypass_netfilter"], true);
    switch.ok("attach vnet0 --hook xdp --no-bypass-netfilter");
    // It knows by then that it is there again.
    let _other = port("vnet1");
    assert_eq!(attached(&running)[0], "vnet1");
    switch.ok("detach vnet0");
    ip("link set vnet0 mtu 1400");
    assert_eq!(attached(&running)[2], json!(["xdp", "tcx"]));
    assert_eq!(switch.shown("vnet0")["bypass_netfilter"], false);
}

fn a_file_is_read_again_and_one_that_can_not_be_used_changes_nothing() {
    let switch = Switch::detached(0);
    make(0, false);
    let file = File::new("[[bridge]]\nname = \"br0\"\nports = [\"vnet0\"]");
    let running = follow(&switch, &file);
    file.write("[[bridge]]\nname = \"br0\"\nport = [\"vnet1\"]");
    signal(running.child(), "HUP");
    let complaint = running.complaint();
    let rule = "unknown field `port`, expected one of `name`, `ports`, `hook`, `bypass-netfilter`, `make`; did you mean \
                'ports'?; the rules stay as they were";
    let complaint: Value = serde_json::from_str(&complaint).expect("JSON");
    assert_eq!(
        complaint["error"]["message"],
        format!("{}:3:1: {rule}", file.path())
    );
    let _ports = ["vnet0", "vnet1"].map(port);
    assert_eq!(attached(&running)[0], "vnet0");
    file.write("[[bridge]]\nname = \"br0\"\nports = [\"vnet*\"]\nhook = \"tcx\"");
    signal(running.child(), "HUP");
    assert_eq!(
        running.complaint(),
        format!("{}: 1 rule is followed", file.path())
    );
    for tap in ["vnet0", "vnet1"] {
        assert_eq!(attached(&running), [json!(tap), json!("br0"), json!(["tcx"])]);
    }
    fs::remove_file(file.path()).expect("remove it");
    signal(running.child(), "HUP");
    let complaint = running.complaint();
    assert!(complaint.contains("there is no such file"), "{complaint}");
}

fn check_says_what_would_change_and_changes_nothing() {
    let switch = Switch::detached(0);
    make(0, false);
    let _ports = ["vnet0", "vnet1"].map(port);
    switch.ok("attach vnet0 --hook tcx");
    let file = File::new("[[bridge]]\nname = \"br0\"\nhook = \"auto\"\nbypass-netfilter = true");
    let path = file.path();
    assert_eq!(
        switch.ok(&format!("check {path}")),
        format!(
            "{path}: 1 rule\n~ br0: vnet0 --hook auto --bypass-netfilter\n+ br0: vnet1 --hook auto --bypass-netfilter\n"
        )
    );
    let step = |name: &str, action: &str| json!({ "ifname": name, "master": "br0", "action": action, "hook": "auto", "bypass_netfilter": true });
    assert_eq!(
        switch.json(&format!("check {path}")),
        json!({ "schema": 2, "path": path, "rules": 1, "steps": [step("vnet0", "change"), step("vnet1", "attach")], "idle": [] })
    );
    assert_eq!(switch.stats().ports.len(), 1);
    switch.ok("attach vnet0 vnet1 --hook auto --bypass-netfilter");
    assert_eq!(
        switch.ok(&format!("check {path}")),
        format!("{path}: 1 rule, and nothing to change\n")
    );
    file.write("[[bridge]]\nname = \"vribr0\"");
    assert_eq!(
        switch.ok(&format!("check {path}")),
        format!(
            "{path}: 1 rule, and nothing to change\nvribr0: no port that this rule is about is here now\n"
        )
    );
}

fn check_says_what_is_wrong_to_everybody() {
    let switch = Switch::detached(0);
    let file = File::new("[[bridge]]\nname = \"br0\"\nhook = \"xpd\"");
    let place = format!("{}:3:8: unknown variant `xpd`", file.path());
    assert!(switch.fails(&format!("check {}", file.path())).contains(&place));
    assert!(
        switch
            .fails(&format!("run --config {}", file.path()))
            .contains(&place)
    );
    let missing = switch.fails("check /nowhere/tapbridge.toml");
    assert!(
        missing.contains("/nowhere/tapbridge.toml: there is no such file"),
        "{missing}"
    );
    // Whoever may read the file need not be root.
    file.write("[[bridge]]\nname = \"br0\"");
    let mut other = Command::new("setpriv");
    other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let check = switch.command(&format!("check {}", file.path()));
    other.arg(check.get_program()).args(check.get_args());
    let said = run(other);
    assert_eq!(
        said.success(),
        format!("{}: 1 rule; root is told what it would change\n", file.path())
    );
}
