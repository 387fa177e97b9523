//! What `show`, `stats` and `fdb show` print, for people and for scripts.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use crate::support::{
    frames::{Flow, hello},
    linux_bridge::stop_learning,
    program::{LIMIT, Terminal, ip, lines, run, wait},
    switch::{BRIDGE, Switch, command_in},
    text::squeezed,
    wire::{drain, send},
};

crate::tests![
    a_port_can_be_asked_about_by_any_of_its_names,
    brief_has_a_line_of_the_same_columns_for_each_port,
    an_option_that_would_do_nothing_is_refused,
    colours_are_those_that_were_asked_for,
    ports_are_sorted_by_what_was_asked_for,
    rates_of_ports_are_printed_again_and_again,
    show_is_printed_again_and_again,
    details_tell_apart_who_has_sent,
    tables_fit_80_columns_and_are_whole_in_40,
    every_command_has_examples_and_the_exit_codes_are_told,
    on_a_terminal_a_command_that_waits_says_that_it_is_at_work,
];

/// What a command says on a terminal of so many columns.
pub fn on_terminal(switch: &Switch, columns: u16, words: &str) -> String {
    let terminal = Terminal::new(columns);
    let mut command = switch.command(words);
    command.stdout(terminal.end());
    let mut child = command.spawn().expect("start tapbridge");
    drop(command);
    let status = wait(&mut child, LIMIT);
    assert!(
        status.is_some_and(|status| status.success()),
        "{words}: {status:?}"
    );
    terminal.said().replace("\r\n", "\n")
}

fn a_port_can_be_asked_about_by_any_of_its_names() {
    let mut switch = Switch::of(3);
    ip("link property add dev vm1 altname first-of-three");
    for words in ["vm1", "first-of-three"] {
        let shown = switch.json(&format!("show {words}"));
        let ports = shown["bridges"][0]["ports"].as_array().expect("ports");
        assert!(ports.len() == 1 && ports[0]["ifname"] == "vm1", "{shown}");
    }
    let text = switch.ok("show vm1 vm3");
    assert!(
        text.starts_with("tapbridge: made by 'attach'") && text.contains("vm3") && !text.contains("vm2"),
        "{text}"
    );
    switch.introduce();
    stop_learning("vm1");
    let [vm1, vm2, vm3] = switch.taps();
    for to in [2, 3] {
        send(vm1, &Flow::udp(1, to).frame(b"past it"));
    }
    drain(&[vm1, vm2, vm3]);
    let stats = switch.json("stats first-of-three");
    assert_eq!(
        stats["bridges"][0]["ports"].as_array().map(Vec::len),
        Some(1),
        "{stats}"
    );
    assert_eq!(
        stats["bridges"][0]["paths"].as_array().map(Vec::len),
        Some(2),
        "{stats}"
    );
    let stats = switch.json("stats vm3");
    let paths = stats["bridges"][0]["paths"].as_array().expect("paths");
    assert!(paths.len() == 1 && paths[0]["to"] == "vm3", "{stats}");
    for words in ["show vm9", "stats vm9", "stats vm1 vm9"] {
        let complaint = switch.fails(words);
        assert!(
            complaint.contains("vm9: not attached; 'tapbridge show' lists"),
            "{complaint}"
        );
    }
    // One that is gone, by the name that it had.
    switch.remove("vm2");
    assert_eq!(switch.json("show vm2")["bridges"][0]["ports"][0]["state"], "gone");
}

fn brief_has_a_line_of_the_same_columns_for_each_port() {
    let switch = Switch::of(2);
    switch.ok("attach vm2 --hook tcx --bypass-netfilter");
    ip("link set vm2 down");
    let shown = [
        "vm1 tapbridge up tap xdp+tcx xdp 1500 - -",
        "vm2 tapbridge down tap tcx tcx 1500 bypass -",
    ];
    for words in ["-br show", "show --brief"] {
        assert_eq!(squeezed(&switch.ok(words)), shown.join("\n"), "{words}");
    }
    ip("link set vm2 up");
    ip("link set tapbridge promisc on");
    switch.introduce();
    let line = squeezed(&switch.ok("-br show vm1"));
    assert_eq!(line, "vm1 tapbridge up tap xdp+tcx xdp 1500 - promiscuous");
    ip("link set tapbridge promisc off");
    let bytes = hello(1).len();
    let lines = squeezed(&switch.ok("-br stats"));
    assert_eq!(
        lines,
        format!("vm1 tapbridge 1 {bytes} 0 1 0 1 0\nvm2 tapbridge 1 {bytes} 0 1 0 1 0")
    );
    // Without ports there are no lines.
    switch.ok("detach --all");
    for words in ["-br show", "-br stats"] {
        assert_eq!(switch.ok(words), "");
    }
}

fn an_option_that_would_do_nothing_is_refused() {
    let switch = Switch::empty();
    for (words, complaint) in [
        (
            "-br attach vm1",
            "'--brief' can be used with 'show' and 'stats' only",
        ),
        ("-br show -j", "'--brief' cannot be used with '--json'"),
        (
            "metrics -j --format openmetrics",
            "'--format', which is about the text, cannot be used with '--json'",
        ),
    ] {
        let said = switch.tapbridge(words).failure(2);
        assert!(said.contains(complaint), "{words}: {said}");
    }
    // Behind -- it is a name.
    let complaint = switch.fails("detach -- -br");
    assert!(complaint.contains("-br: not attached"), "{complaint}");
}

fn colours_are_those_that_were_asked_for() {
    const NAME: &str = "\x1b[36mvm1\x1b[0m";
    let switch = Switch::of(1);
    for words in ["show", "stats", "fdb show"] {
        let plain = switch.ok(words);
        assert!(!plain.contains('\x1b'), "{words}: {plain}");
        for option in ["-c", "--color", "-c=always", "--color=always"] {
            let painted = switch.ok(&format!("{option} {words}"));
            assert!(painted.contains(NAME), "{option} {words}: {painted:?}");
            let bare = ["\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[31m", "\x1b[0m"]
                .iter()
                .fold(painted, |text, escape| text.replace(escape, ""));
            // Seconds may have gone by.
            if words != "fdb show" {
                assert_eq!(bare, plain, "{option} {words}");
            }
        }
        for option in ["-c=never", "-c=auto"] {
            assert!(
                !switch.ok(&format!("{option} {words}")).contains('\x1b'),
                "{option}"
            );
        }
        assert!(on_terminal(&switch, 200, &format!("-c=auto {words}")).contains(NAME));
        assert!(
            on_terminal(&switch, 20, &format!("{words} -c=auto")).contains(NAME),
            "upright"
        );
        assert!(!on_terminal(&switch, 200, words).contains('\x1b'));
    }
    assert!(switch.ok("-c show").contains("\x1b[32mup\x1b[0m"));
    ip("link set vm1 down");
    assert!(switch.ok("-c show").contains("\x1b[31mdown\x1b[0m"));
    let terminal = Terminal::new(80);
    let mut command = switch.command("-c=auto show");
    command.env("NO_COLOR", "1").stdout(terminal.end());
    let mut child = command.spawn().expect("start tapbridge");
    drop(command);
    assert!(wait(&mut child, LIMIT).is_some_and(|status| status.success()));
    assert!(!terminal.said().contains('\x1b'));
    assert_eq!(switch.tapbridge("--color=sometimes show").code(), Some(2));
    switch.json("-c show");
}

fn ports_are_sorted_by_what_was_asked_for() {
    let switch = Switch::of(3);
    switch.introduce();
    stop_learning("vm1");
    let [vm1, vm2, vm3] = switch.taps();
    // vm3 sends most frames, vm2 most bytes; vm1 gets most, and has most left.
    for _ in 0..9 {
        send(vm3, &Flow::udp(3, 1).frame(b"short"));
    }
    for _ in 0..3 {
        send(vm2, &Flow::tcp(2, 1).of_length(1400));
    }
    for _ in 0..4 {
        send(vm1, &Flow::udp(1, 9).frame(b"to nobody"));
    }
    drain(&[vm1, vm2, vm3]);
    for (key, order) in [
        ("name", ["vm1", "vm2", "vm3"]),
        ("frames", ["vm3", "vm1", "vm2"]),
        ("bytes", ["vm2", "vm3", "vm1"]),
        ("left", ["vm1", "vm2", "vm3"]),
    ] {
        let stats = switch.json(&format!("stats --sort {key}"));
        let ports = stats["bridges"][0]["ports"].as_array().expect("ports");
        let names: Vec<_> = ports.iter().filter_map(|port| port["ifname"].as_str()).collect();
        assert_eq!(names, order, "{key}: {stats:#}");
        let brief = switch.ok(&format!("-br stats --sort {key}"));
        let first: Vec<_> = brief.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(first, order, "{key}");
    }
    let sent = switch.json("stats --sort sent");
    assert_eq!(sent["bridges"][0]["ports"][0]["ifname"], "vm1", "{sent:#}");
    let paths = switch.json("stats --sort frames")["bridges"][0]["paths"].take();
    assert_eq!(
        (&paths[0]["from"], &paths[1]["from"]),
        (&"vm3".into(), &"vm2".into()),
        "{paths}"
    );
    let paths = switch.json("stats --sort bytes")["bridges"][0]["paths"].take();
    assert_eq!(paths[0]["from"], "vm2", "{paths}");
}

fn rates_of_ports_are_printed_again_and_again() {
    let switch = Switch::of(2);
    switch.introduce();
    stop_learning("vm1");
    let [vm1, vm2] = switch.taps();
    let mut command = switch.command("stats --watch 0.5 --sort rate");
    let mut watch = command.stdout(Stdio::piped()).spawn().expect("start tapbridge");
    let printed = lines(watch.stdout.take());
    let deadline = Instant::now() + LIMIT;
    let mut rates = None;
    let mut is_of_rates = false;
    while rates.is_none() && Instant::now() < deadline {
        send(vm1, &Flow::udp(1, 2).frame(b"steadily"));
        drain(&[vm2]);
        let Ok(line) = printed.recv_timeout(Duration::from_millis(1)) else {
            continue;
        };
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["PORT", "RX", next, ..] => is_of_rates = next == "FRAMES/S",
            // PORT RX FRAMES/S RX MBIT/S LEFT/S TX FRAMES/S DROPPED/S
            ["vm1", frames, megabits, left, sent, dropped] if is_of_rates && frames != "0" => {
                rates = Some((megabits.to_owned(), [left, sent, dropped].map(str::to_owned)));
            }
            _ => {}
        }
    }
    watch.kill().expect("kill tapbridge");
    watch.wait().expect("wait for tapbridge");
    let (megabits, rest) = rates.unwrap_or_else(|| panic!("no rate within {LIMIT:?}"));
    assert!(megabits.contains('.'), "{megabits}");
    assert_eq!(rest, ["0", "0", "0"], "vm1 gets nothing");
}

fn show_is_printed_again_and_again() {
    let switch = Switch::of(1);
    let mut command = switch.command("show --watch 0.5 -j");
    let mut watch = command.stdout(Stdio::piped()).spawn().expect("start tapbridge");
    let printed = lines(watch.stdout.take());
    let next = || {
        let line = printed.recv_timeout(LIMIT).expect("a line");
        let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        json["bridges"][0]["ports"][0]["hook"].clone()
    };
    assert_eq!(next(), "xdp");
    switch.ok("attach vm1 --hook tcx");
    assert!((0..100).any(|_| next() == "tcx"), "the change is in no line");
    watch.kill().expect("kill tapbridge");
    watch.wait().expect("wait for tapbridge");
    assert_eq!(switch.tapbridge("show --watch 0").code(), Some(2));
}

fn details_tell_apart_who_has_sent() {
    let switch = Switch::of(2);
    switch.introduce();
    stop_learning("vm1");
    let [vm1, vm2] = switch.taps();
    send(vm1, &Flow::udp(1, 2).frame(b"past it"));
    drain(&[vm1, vm2]);
    let plain = switch.ok("stats");
    assert!(
        !plain.contains("CHECKSUMS") && !plain.contains("LEFT TO TCX AT"),
        "{plain}"
    );
    let text = squeezed(&switch.ok("stats -d"));
    for line in [
        "PORT RX FRAMES RX BYTES PAST IT LEFT TO IT TX FRAMES DROPPED",
        "PORT TX PAST IT TX BY IT GSO BULK PASSED UP CHECKSUMS",
        "vm2 1 1 0 0 1 0",
        "LEFT TO TCX AT REASON FRAMES",
        "vm2 group 1",
    ] {
        assert!(text.lines().any(|said| said == line), "no '{line}' in\n{text}");
    }
}

fn tables_fit_80_columns_and_are_whole_in_40() {
    let switch = Switch::of(2);
    switch.ok("attach vm2 --bypass-netfilter --hook auto");
    switch.introduce();
    stop_learning("vm1");
    let [vm1, vm2] = switch.taps();
    for _ in 0..1000 {
        send(vm1, &Flow::udp(1, 2).frame(b"wide numbers"));
        drain(&[vm2]);
    }
    for words in ["show", "stats", "stats -d", "fdb show"] {
        let wide = on_terminal(&switch, 80, words);
        let is_table = |line: &&str| line.starts_with("  ") || line.starts_with("MAC");
        assert!(
            wide.lines()
                .filter(is_table)
                .all(|line| line.chars().count() <= 80),
            "{words}:\n{wide}"
        );
        // As tables, not row by row.
        let head = wide.lines().find(is_table).expect("a head");
        assert!(head.split_whitespace().count() > 3, "{words}:\n{wide}");
        let narrow = on_terminal(&switch, 40, words);
        let is_short =
            |line: &str| line.chars().count() <= 40 || line.starts_with("tapbridge:") || line.contains("run");
        assert!(narrow.lines().all(is_short), "{words}:\n{narrow}");
    }
    assert!(switch.ok("show").contains("NETFILTER"));
    switch.ok("attach vm2 --no-bypass-netfilter");
    assert!(!switch.ok("show").contains("NETFILTER"), "nothing to say");
}

fn every_command_has_examples_and_the_exit_codes_are_told() {
    let switch = Switch::empty();
    let help = switch.ok("--help");
    assert!(
        help.contains("Exit codes:\n  0  it is done\n  1  it failed"),
        "{help}"
    );
    for words in [
        "attach",
        "run",
        "check",
        "status",
        "config dump",
        "detach",
        "estimate",
        "show",
        "fdb show",
        "stats",
        "monitor",
        "upgrade",
        "syscalls",
    ] {
        let help = switch.ok(&format!("{words} --help"));
        let examples = help.split_once("Examples:\n").map(|(_, examples)| examples);
        let examples = examples.unwrap_or_else(|| panic!("{words} has no examples: {help}"));
        assert!(examples.contains(&format!("tapbridge {words}")), "{help}");
        let narrow = examples.lines().all(|line| line.chars().count() < 80);
        assert!(narrow, "{words}: wider than a page of a manual: {examples}");
    }
}

fn on_a_terminal_a_command_that_waits_says_that_it_is_at_work() {
    let switch = Switch::of(1);
    // As another command that is at work.
    let lock = std::fs::File::open(switch.state()).expect("open the state folder");
    lock.lock().expect("lock the state folder");
    for words in ["upgrade", "detach vm1"] {
        let mut terminal = Terminal::new(80);
        let mut command = command_in(switch.state(), words);
        command.stdout(Stdio::null()).stderr(terminal.end());
        let mut child = command.spawn().expect("start tapbridge");
        drop(command);
        terminal.says("… 1 s");
        child.kill().expect("kill tapbridge");
        child.wait().expect("wait for tapbridge");
    }
    drop(lock);
    run(command_in(switch.state(), "show")).success();
    assert_eq!(switch.stats().bridge.as_deref(), Some(BRIDGE));
}
