//! Each document that a command prints is as its schema says, and nothing is in the schemas that no command prints.

use std::{collections::BTreeSet, fs};

use lab::{Tap, netns};
use serde_json::{Value, json};

use crate::support::{
    caller::{Caller, Plan},
    counting::Counting,
    frames::{Flow, hello, segmented},
    linux_bridge::stop_learning,
    program::{ip, run, tc},
    running::Running,
    schema,
    switch::{Switch, command_in},
    wire::{drain, send, send_with},
};

crate::tests![
    every_schema_is_one_of_a_command_and_describes_all_that_it_allows,
    documents_of_all_commands_are_as_their_schemas_say_and_the_schemas_say_no_more,
    a_document_with_another_key_is_not_as_its_schema_says,
];

/// What is met elsewhere, by tests that check the schemas too.
const ELSEWHERE: [(&str, &[&str]); 7] = [
    // state.rs: what older versions and killed commands have left.
    ("detach", &[".cleared[].name", ".cleared[].reason"]),
    // estimate.rs: frames that are watched.
    (
        "estimate",
        &[
            ".bridges[].left_by_reason[].frames",
            ".bridges[].left_by_reason[].ports",
            ".bridges[].left_by_reason[].reason",
            ".bridges[].left_by_reason[].text",
            ".bridges[].paths[].by_tcx",
            ".bridges[].paths[].by_xdp",
            ".bridges[].paths[].from",
            ".bridges[].paths[].to",
            ".bridges[].ports[].note",
            ".bridges[].ports[].obstacles[].reason",
            ".bridges[].ports[].obstacles[].text",
            ".bridges[].ports[].sizes.gso",
            ".bridges[].ports[].sizes.longer",
            ".bridges[].ports[].sizes.to_1024",
            ".bridges[].ports[].sizes.to_128",
            ".bridges[].ports[].sizes.to_1518",
            ".bridges[].ports[].sizes.to_512",
            ".bridges[].vmms_note",
        ],
    ),
    // fastpath_vlan.rs: a bridge that filters VLANs.
    ("fdb-show", &["[].vlan"]),
    // status.rs: what could not be done.
    (
        "status",
        &[
            ".config.rejected",
            ".failing[].ifname",
            ".failing[].message",
            ".failing[].retry",
        ],
    ),
    // run.rs: hooks that follow traffic, and pins that vanish.
    (
        "run",
        &[
            ".bulk_bytes",
            ".bulk_frames",
            ".frames",
            ".hook_changes",
            ".interval_ms",
            ".passed_up",
            ".ports",
            ".reason",
            ".xdp_costs_ns",
            ".xdp_saves_ns",
        ],
    ),
    // monitor.rs: what a monitor misses.
    ("monitor", &[".events"]),
    ("show", &[".bridges[].ports[].hook_changed"]),
];

fn every_schema_is_one_of_a_command_and_describes_all_that_it_allows() {
    let expected = [
        "attach",
        "check",
        "config-dump",
        "detach",
        "error",
        "estimate",
        "fdb-show",
        "metrics",
        "monitor",
        "run",
        "show",
        "stats",
        "status",
        "syscalls",
        "upgrade",
    ];
    assert_eq!(schema::names(), expected);
    assert_eq!(schema::files(), expected);
    for name in expected {
        assert!(!schema::of(name).properties().is_empty(), "{name}");
    }
}

fn a_document_with_another_key_is_not_as_its_schema_says() {
    let switch = Switch::of(1);
    let mut document = switch.json("show");
    document["bridges"][0]["ports"][0]["colour"] = json!("blue");
    let complaints = schema::complaints("show", &document);
    assert!(complaints.concat().contains("colour"), "{complaints:?}");
}

/// Documents, by the names of their schemas.
#[derive(Default)]
struct Met(Vec<(String, Value)>);

impl Met {
    /// Runs a command that prints one.
    #[track_caller]
    fn run(&mut self, switch: &Switch, words: &str) -> Value {
        let document = switch.json(words);
        self.0.push((schema::of_words(words), document.clone()));
        document
    }

    /// Runs a command that fails.
    #[track_caller]
    fn fail(&mut self, switch: &Switch, words: &str) {
        let output = switch.tapbridge(&format!("{words} -j"));
        assert!(!output.status.success(), "{output}");
        let last = output.stderr.lines().last().expect("a line");
        let document = serde_json::from_str(last).unwrap_or_else(|error| panic!("{output}: {error}"));
        schema::check("error", &document);
        self.0.push(("error".into(), document));
    }

    /// The next line of a command that goes on.
    #[track_caller]
    fn next(&mut self, name: &str, running: &Running) -> Value {
        let document = running.next();
        self.0.push((name.into(), document.clone()));
        document
    }

    /// Nothing is in the schemas that no document has.
    fn assert_complete(&self) {
        for name in schema::names() {
            let schema = schema::of(&name);
            let mut properties = schema.properties();
            for (_, document) in self.0.iter().filter(|(of, _)| *of == name) {
                for met in schema.properties_in(document) {
                    properties.remove(&met);
                }
            }
            let elsewhere = ELSEWHERE.iter().find(|(of, _)| *of == name);
            let elsewhere: BTreeSet<_> = elsewhere.map_or(&[][..], |(_, paths)| paths).iter().collect();
            let unmet: Vec<_> = properties
                .iter()
                .filter(|path| !elsewhere.contains(&&***path))
                .collect();
            assert!(
                unmet.is_empty(),
                "no document has these of schemas/{name}.json: {unmet:?}"
            );
        }
    }
}

fn documents_of_all_commands_are_as_their_schemas_say_and_the_schemas_say_no_more() {
    let mut met = Met::default();
    let mut switch = Switch::detached(3);
    let around = tempfile::tempdir().expect("make a folder");
    // Left by a namespace that is gone.
    {
        let _gone = netns::enter_private().expect("a private namespace");
        let tap = Tap::open("old").expect("open a tap");
        run(command_in(switch.state(), "attach old")).success();
        drop(tap);
    }
    ip("link add br9 up type bridge");
    ip("link add lonely type veth peer name its-peer");
    let monitor = Running::saying(
        switch.command("monitor -j"),
        "watching the ports of this network namespace; Ctrl-C ends",
    );
    let attached = met.run(&switch, "attach vm1 lonely vm2 vm3 --master br9 --hook xdp");
    assert!(attached["cleared"][0]["name"].is_string(), "{attached}");
    for _ in 0..4 {
        met.next("monitor", &monitor);
    }
    traffic(&switch);
    met.next("monitor", &monitor);
    met.run(&switch, "fdb show");

    // A rule that is about nobody, ports that it changes and one that it attaches.
    met.run(&switch, "detach lonely");
    switch.ok("detach vm2");
    let config = around.path().join("tapbridge.toml");
    let rules = "[[bridge]]\nname = \"nobody\"\n[[bridge]]\nname = \"tapbridge\"\nports = [\"vm*\"]\nhook = \"auto\"\n\
                 bypass-netfilter = true\nmake = true\n";
    fs::write(&config, rules).expect("write a configuration");
    let check = met.run(&switch, &format!("check {}", config.display()));
    assert_eq!(check["steps"].as_array().map(Vec::len), Some(3), "{check}");
    switch.ok("attach vm2");

    let then = around.path().join("then");
    fs::write(&then, met.run(&switch, "stats").to_string()).expect("write statistics");
    let since = met.run(&switch, &format!("stats --since {}", then.display()));
    assert_eq!(since["since"]["attached_later"], json!([]), "{since}");
    met.run(&switch, "stats --reset");
    met.run(&switch, "stats");
    met.run(&switch, "show");
    met.run(&switch, "metrics");
    met.run(&switch, "estimate --time 1");
    met.run(&switch, "upgrade");
    met.run(&switch, "config dump");

    ip("link set vm1 nomaster");
    fs::create_dir_all(switch.state().join("foreign/folder")).expect("make a folder");
    for words in ["show", "stats"] {
        let document = met.run(&switch, words);
        assert!(document["unreadable"][0]["error"].is_string(), "{document}");
    }
    obstacles(&mut met, &switch);
    // What is in the way is told with the way out.
    while !met.next("monitor", &monitor)["text"].is_string() {}
    switch.remove("vm2");
    met.run(&switch, "detach vm2");

    let run_command = switch.command(&format!("run -j --config {}", config.display()));
    let running = Running::saying(
        run_command,
        &format!("{}: 2 rules are followed", config.display()),
    );
    met.next("run", &running);
    met.run(&switch, "status");
    assert!(running.stop("TERM").success());

    let mut caller = Caller::start(&Plan::default());
    let counting = Counting::start(&format!("--pid {} -j", caller.pid()));
    caller.release();
    let counted: Value = serde_json::from_str(&counting.output()).expect("a document");
    schema::check("syscalls", &counted);
    met.0.push(("syscalls".into(), counted));

    met.fail(&switch, "attach nobody");
    met.fail(&switch, "stats --sort rate");
    assert!(monitor.stop("TERM").success());
    let all = switch.tapbridge("detach --all -j");
    let lines: Vec<Value> = all
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let [detached] = &lines[..] else { panic!("{all}") };
    schema::check("detach", detached);
    met.0.push(("detach".into(), detached.clone()));
    fs::remove_dir_all(switch.state().join("foreign")).expect("remove a folder");
    drop(switch);
    met.assert_complete();
}

/// Frames past the bridge by both hooks and in bulk, and one that is left.
fn traffic(switch: &Switch) {
    let taps = switch.taps::<3>();
    switch.introduce();
    stop_learning("vm1");
    send(taps[0], &Flow::udp(1, 2).frame(b"past it"));
    let (header, frame) = segmented(&Flow::tcp(1, 2).of_length(30_000), 1400);
    send_with(taps[0], &header, &frame);
    send(taps[0], &hello(1));
    drain(&taps);
}

/// What keeps frames from going past the bridge, of it and of a port.
fn obstacles(met: &mut Met, switch: &Switch) {
    // Those that are ports now make themselves known.
    switch.introduce();
    tc("qdisc add dev vm3 root tbf rate 1gbit burst 10kb latency 1ms");
    let document = met.run(switch, "show");
    assert!(document.to_string().contains("queueing"), "{document}");
    tc("qdisc del dev vm3 root");
    ip("link set tapbridge promisc on");
    let document = met.run(switch, "show");
    assert_eq!(
        document["bridges"][0]["obstacles"][0]["reason"], "promiscuous",
        "{document}"
    );
    send(switch.tap("vm3"), &Flow::udp(3, 2).frame(b"not past it"));
    drain(&[switch.tap("vm2")]);
    ip("link set tapbridge promisc off");
}
