//! The command line itself: exit codes, what it says, what it refuses.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, process::CommandExt as _},
    },
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::output::on_terminal;
use crate::support::{
    frames::{Flow, hello, payload},
    linux_bridge::stop_learning,
    program::{LIMIT, Terminal, bridge, happens, lines, link, run, signal, wait},
    schema,
    switch::{Switch, TAPBRIDGE},
    wire::{drain, send},
};

crate::tests![
    wrong_usage_ends_with_two,
    names_that_can_not_be_a_bridges_are_refused,
    without_any_bridge_reading_succeeds_and_naming_one_fails,
    what_only_repeated_ip_and_bridge_names_their_commands,
    a_bpffs_that_would_vanish_is_not_mounted,
    where_no_bpffs_is_in_sight_it_says_so,
    a_state_folder_outside_a_bpffs_is_refused,
    the_state_folder_can_come_from_the_environment,
    tables_name_what_the_json_names,
    statistics_are_printed_again_and_again,
    on_a_terminal_a_long_command_says_how_far_it_has_come,
    errors_are_json_where_json_is_asked_for,
    in_a_user_namespace_it_says_what_is_missing,
    numbers_agree_with_their_nouns,
    rates_of_fractions_of_a_second_have_decimals,
    on_a_narrow_terminal_a_row_has_a_line_for_each_cell,
];

/// Those that another user than root starts.
pub const UNPRIVILEGED_TESTS: &[crate::Test] = &[(
    "without_the_capabilities_it_says_which_are_missing",
    without_the_capabilities_it_says_which_are_missing,
)];

/// Whether other users than its owner may execute the program; they may not where it was built with such a umask.
pub fn others_may_execute_it() -> bool {
    File::open(TAPBRIDGE)
        .and_then(|program| program.metadata())
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

fn wrong_usage_ends_with_two() {
    let switch = Switch::empty();
    for words in [
        "",
        "attach",
        "detach",
        "detach vm1 --all",
        "attach vm1 --hook generic",
        "set",
        "stats --watch 0",
        "stats --watch 0.09",
        "stats --watch 86401",
        "stats --watch 1e300",
        "stats --watch nan",
        "metrics --paths some",
        "metrics --paths -1",
        "metrics --format json",
        "run --metrics",
        "run --metrics host:9123",
        "run --metrics unix:",
        "run --metrics 65536",
        "run --metrics-paths 5",
        "fdb",
        "fdb add 52:54:00:00:00:01",
        "fdb add 52:54:00:00:00 --dev vm1",
        "nonsense",
    ] {
        let complaint = switch.tapbridge(words).failure(2);
        assert!(complaint.contains("--help"), "{words}: {complaint}");
    }
    assert!(switch.ok("--help").contains("attach"));
    assert!(switch.ok("--version").starts_with("tapbridge "));
}

fn names_that_can_not_be_a_bridges_are_refused() {
    let switch = Switch::detached(1);
    for name in [
        "..",
        ".",
        "a/b",
        "a:b",
        "br%d",
        "sixteen-letters-",
        "",
        "brücke",
        "a b",
    ] {
        let mut command = switch.command("attach vm1 --bridge");
        command.arg(name);
        let complaint = run(command).failure(1);
        let expected = format!("'{name}' can't be a bridge's name: use 1 to 15 letters");
        assert!(complaint.contains(&expected), "{complaint}");
        assert!(!switch.state().exists(), "{name}");
    }
    for name in ["fifteen-letters", "0", "_-_", "br.0"] {
        switch.ok(&format!("attach vm1 --bridge={name}"));
        assert_eq!(switch.stats().bridge.as_deref(), Some(name));
        switch.ok("detach vm1");
        assert!(link(name).is_none());
    }
}

fn without_any_bridge_reading_succeeds_and_naming_one_fails() {
    let switch = Switch::empty();
    for words in ["show", "stats", "metrics", "fdb show", "detach --all"] {
        switch.ok(words);
        switch.json(words);
    }
    for words in [
        "show --bridge nope",
        "stats --bridge nope",
        "metrics --bridge nope",
        "fdb show --bridge nope",
    ] {
        let complaint = switch.fails(words);
        assert!(
            complaint.contains("nope") && complaint.contains("'tapbridge show' lists"),
            "{words}: {complaint}"
        );
    }
    for (words, expected) in [
        ("detach vm1", "vm1: not attached; 'tapbridge show' lists"),
        (
            "detach --master nope",
            "nope: none of its ports is attached; 'tapbridge show' lists",
        ),
    ] {
        let complaint = switch.fails(words);
        assert!(complaint.contains(expected), "{words}: {complaint}");
    }
    assert!(!switch.state().exists());
}

fn what_only_repeated_ip_and_bridge_names_their_commands() {
    let switch = Switch::empty();
    for (words, command) in [
        (
            "fdb add 52:54:00:00:00:01 --vlan 7 --dev vm1",
            "'bridge fdb add 52:54:00:00:00:01 dev vm1 master static vlan 7'",
        ),
        (
            "fdb del 52:54:00:00:00:01",
            "'bridge fdb del 52:54:00:00:00:01 dev IFACE master'",
        ),
        ("fdb flush --dev vm1", "'bridge fdb flush dev vm1 master'"),
        ("fdb flush --bridge br1", "'bridge fdb flush dev br1'"),
        (
            "set --bridge br1 --ageing-time 30",
            "'ip link set dev br1 type bridge ageing_time 3000'",
        ),
    ] {
        let complaint = switch.fails(words);
        assert!(complaint.contains(command), "{words}: {complaint}");
    }
    assert!(!switch.state().exists());
}

fn without_the_capabilities_it_says_which_are_missing() {
    // The other user may not get at the folder that it lies in. A copy elsewhere could not be executed as long as a
    // process that another thread is starting has the descriptor that it was written by.
    let program = File::open(TAPBRIDGE).expect("open the binary");
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let outputs = [
        "show",
        "attach lo",
        "detach --all",
        "stats",
        "fdb show",
        "syscalls --pid 1",
    ]
    .map(|words| {
        let mut command = Command::new(&path);
        command
            .args(words.split_whitespace())
            .uid(65_534)
            .gid(65_534)
            .current_dir("/");
        run(command)
    });
    for output in outputs {
        let complaint = output.failure(1);
        let expected =
            "tapbridge: not permitted: tapbridge needs CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF; run it as root";
        assert!(complaint.contains(expected), "{complaint}");
    }
}

fn a_bpffs_that_would_vanish_is_not_mounted() {
    let switch = Switch::detached(1);
    let attach = format!("'{TAPBRIDGE}' --state '{}' attach vm1", switch.state().display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.arg(format!(
        "while umount /sys/fs/bpf 2>/dev/null; do :; done; {attach}"
    ));
    let complaint = run(command).failure(1);
    assert!(
        complaint.contains("/sys/fs/bpf: no bpffs is visible in this mount namespace"),
        "{complaint}"
    );
    assert!(
        complaint.contains("use 'tapbridge -n NAME' instead"),
        "{complaint}"
    );
}

fn where_no_bpffs_is_in_sight_it_says_so() {
    let switch = Switch::of(1);
    for words in [
        "show",
        "show --bridge tapbridge",
        "stats",
        "fdb show",
        "run",
        "detach vm1",
        "detach --all",
    ] {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]).arg(format!(
            "while umount /sys/fs/bpf 2>/dev/null; do :; done; '{TAPBRIDGE}' --state '{}' {words}",
            switch.state().display()
        ));
        let complaint = run(command).failure(1);
        assert!(
            complaint.contains("/sys/fs/bpf: no bpffs is visible in this mount namespace")
                && complaint.contains("use 'tapbridge -n NAME' instead"),
            "{words}: {complaint}"
        );
    }
    assert_eq!(switch.stats().ports.len(), 1);
}

fn a_state_folder_outside_a_bpffs_is_refused() {
    let around = tempfile::tempdir().expect("make a folder");
    let folder = around.path().join("state");
    let switch = Switch::detached(1);
    let mut command = Command::new(TAPBRIDGE);
    command.arg("--state").arg(&folder).args(["attach", "vm1"]);
    let complaint = run(command).failure(1);
    assert!(complaint.contains("no bpffs is mounted here"), "{complaint}");
    assert!(!folder.exists() && !switch.state().exists());
}

fn the_state_folder_can_come_from_the_environment() {
    let switch = Switch::detached(1);
    let mut command = Command::new(TAPBRIDGE);
    command
        .env("TAPBRIDGE_STATE", switch.state())
        .args(["attach", "vm1"]);
    run(command).success();
    assert_eq!(switch.stats().ports.len(), 1);
}

fn tables_name_what_the_json_names() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    assert_eq!(
        switch.ok("attach vm2 --hook tcx"),
        "vm2: attached to tapbridge (tcx)\n"
    );
    assert_eq!(
        switch.ok("attach vm1"),
        "vm1: was attached already to tapbridge (xdp + tcx)\n"
    );
    switch.introduce();
    stop_learning("vm1");
    bridge("fdb add 52:54:00:00:00:09 dev vm2 master static");
    send(vm1, &Flow::tcp(1, 2).frame(&payload(1000)));
    send(vm1, &Flow::udp(1, 2).from([0; 6]).frame(b""));
    drain(&[vm1, vm2]);
    let contains = |words: &str, expected: &[&str]| {
        let table = switch.ok(words);
        let squeezed: Vec<String> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for line in expected {
            assert!(
                squeezed.iter().any(|squeezed| squeezed == line),
                "no line '{line}' in\n{table}"
            );
        }
    };
    contains(
        "show",
        &[
            "tapbridge: 2 of 2 ports attached, made by 'attach': it goes with its last port",
            "PORT KIND HOOKS STATE MTU",
            "vm1 tap xdp + tcx up 1500",
            "vm2 tap tcx up 1500",
        ],
    );
    contains("fdb show", &["52:54:00:00:00:09 - vm2 tapbridge yes static"]);
    let table = switch.ok("fdb show");
    let learned = table.lines().find(|line| line.starts_with("52:54:00:00:00:01 "));
    let words: Vec<_> = learned.expect("vm1's station").split_whitespace().collect();
    // A busy machine may take seconds from one command to the next.
    assert_eq!(words[1..5], ["-", "vm1", "tapbridge", "yes"], "{table}");
    assert!(
        words[5].parse::<u32>().is_ok() && words[6..] == ["s", "ago"],
        "{table}"
    );
    let table = switch.ok("stats");
    for words in ["vm1", "vm2", "xdp", "1054", "invalid_source"] {
        assert!(table.contains(words), "no '{words}' in\n{table}");
    }
    assert_eq!(switch.ok("detach vm1"), "vm1: detached (out of tapbridge)\n");
}

fn statistics_are_printed_again_and_again() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    let mut command = switch.command("stats --watch 1 -j");
    let mut watch = command.stdout(Stdio::piped()).spawn().expect("start tapbridge");
    let lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let next = || {
        let line = receiver.recv_timeout(LIMIT);
        let line = line.unwrap_or_else(|error| panic!("no line within {LIMIT:?}: {error}"));
        let json: Value = serde_json::from_str(&line).expect("one document on one line");
        json["bridges"][0]["ports"][0]["rx"]["frames"].clone()
    };
    assert_eq!(next(), 0);
    send(vm1, &hello(1));
    // The next line may have been on its way before.
    assert!((0..60).any(|_| next() == 1), "the frame is in no line");
    watch.kill().expect("kill tapbridge");
    watch.wait().expect("wait for tapbridge");
    drop(receiver);
    let _ = reader.join().expect("the reader ends");
    drain(&[vm2]);
}

/// What a command says on a terminal that is stopped for more than a second when its first port has come or gone.
fn held_up(switch: &Switch, words: &str) -> String {
    let terminal = Terminal::new(80);
    let mut command = switch.command(words);
    command.stdout(Stdio::null()).stderr(terminal.end());
    let has_port = || link("vm1").is_some_and(|tap| !tap["xdp"].is_null());
    let before = has_port();
    let mut child = command.spawn().expect("start tapbridge");
    drop(command);
    assert!(
        happens(LIMIT, || has_port() != before),
        "{words}: no port within {LIMIT:?}"
    );
    signal(&child, "STOP");
    thread::sleep(Duration::from_millis(1200));
    signal(&child, "CONT");
    let status = wait(&mut child, LIMIT);
    assert!(
        status.is_some_and(|status| status.success()),
        "{words}: {status:?}"
    );
    terminal.said()
}

fn on_a_terminal_a_long_command_says_how_far_it_has_come() {
    const TAPS: usize = 20;
    let switch = Switch::detached(TAPS);
    let names: Vec<String> = (1..=TAPS).map(|number| format!("vm{number}")).collect();
    let attach = format!("attach {}", names.join(" "));
    let told = held_up(&switch, &attach);
    assert!(
        told.contains("attached ") && told.contains(&format!(" of {TAPS}")),
        "{told:?}"
    );
    let told = held_up(&switch, "detach --all");
    assert!(
        told.contains("detached ") && told.contains(&format!(" of {TAPS}")),
        "{told:?}"
    );
    // Not where its output is for programs.
    let told = held_up(&switch, &format!("{attach} -j"));
    assert_eq!(told, "");
}

fn errors_are_json_where_json_is_asked_for() {
    let switch = Switch::detached(1);
    for (words, code, message) in [
        ("-j attach vm9", 1, "vm9: no such network device"),
        ("detach vm1 --json", 1, "vm1: not attached"),
        (
            "show --bridge nope -j",
            1,
            "nope: no bridge of this name has attached ports",
        ),
        (
            "-j attach",
            2,
            "the following required arguments were not provided: <IFACE>...",
        ),
        (
            "stats --watch x --json",
            2,
            "invalid value 'x' for '--watch <SECONDS>': must be a number from 0.1 to 86400",
        ),
        ("-j nonsense", 2, "unrecognized subcommand 'nonsense'"),
        (
            "-j syscalls --pid 1 --bpftrace",
            2,
            "the argument '--bpftrace' cannot be used with '--json'",
        ),
    ] {
        let complaint = switch.tapbridge(words).failure(code);
        let error: Value =
            serde_json::from_str(&complaint).unwrap_or_else(|error| panic!("{words}: {error}: {complaint}"));
        let said = error["error"]["message"].as_str().unwrap_or_default();
        schema::check("error", &error);
        assert!(
            error["schema"] == 2 && said.contains(message),
            "{words}: {complaint}"
        );
    }
    // Help is none.
    assert!(switch.ok("attach --help -j").contains("--bypass-netfilter"));
}

fn in_a_user_namespace_it_says_what_is_missing() {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", TAPBRIDGE, "show"]);
    let complaint = run(command).failure(1);
    let expected = "tapbridge: not permitted: this is a user namespace, as rootless containers have one, and bpf(2) asks \
                    for CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF in the initial one; run tapbridge as root outside of it\n";
    assert_eq!(complaint, expected);
}

fn numbers_agree_with_their_nouns() {
    let switch = Switch::detached(2);
    switch.ok("attach vm1");
    assert!(switch.ok("show").starts_with("tapbridge: 1 of 1 port attached"));
    switch.ok("attach vm2");
    assert!(switch.ok("show").starts_with("tapbridge: 2 of 2 ports attached"));
}

fn rates_of_fractions_of_a_second_have_decimals() {
    let switch = Switch::of(2);
    switch.introduce();
    let [vm1, vm2] = switch.taps();
    let mut command = switch.command("stats --watch 0.2");
    let mut watch = command.stdout(Stdio::piped()).spawn().expect("start tapbridge");
    let printed = lines(watch.stdout.take());
    let mut rate = None;
    let deadline = Instant::now() + LIMIT;
    while rate.is_none() && Instant::now() < deadline {
        send(vm1, &Flow::udp(1, 2).frame(b"slowly"));
        drain(&[vm2]);
        let line = printed.recv_timeout(LIMIT).expect("a line");
        let words: Vec<&str> = line.split_whitespace().collect();
        // FROM TO VIA FRAMES BYTES FRAMES/S MBIT/S
        if let ["vm1", "vm2", _, _, _, frames, megabits] = words[..]
            && frames != "0"
        {
            rate = Some(megabits.to_owned());
        }
    }
    watch.kill().expect("kill tapbridge");
    watch.wait().expect("wait for tapbridge");
    let rate = rate.unwrap_or_else(|| panic!("no rate within {LIMIT:?}"));
    assert!(rate.starts_with("0.") && rate.len() == 4, "{rate}");
}

fn on_a_narrow_terminal_a_row_has_a_line_for_each_cell() {
    let switch = Switch::of(2);
    let narrow = on_terminal(&switch, 40, "stats");
    let lines: Vec<&str> = narrow.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() <= 40), "{narrow}");
    for line in ["  PORT        vm1", "  RX FRAMES   0", "  PORT        vm2"] {
        assert!(lines.contains(&line), "no line '{line}' in\n{narrow}");
    }
    let wide = on_terminal(&switch, 200, "stats");
    assert_eq!(wide, switch.ok("stats"), "as where there is no terminal");
}
