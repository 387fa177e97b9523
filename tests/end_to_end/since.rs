//! Statistics since a moment: since a document was printed, or since a baseline.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    earlier::overwrite,
    frames::{Flow, hello},
    linux_bridge::stop_learning,
    program::ip,
    statistics::{Bridge, Statistics},
    switch::Switch,
    wire::{drain, receive, send},
};

crate::tests![
    since_a_document_only_what_came_later_is_counted,
    a_baseline_lasts_until_it_is_forgotten,
    a_baseline_outlives_an_upgrade_and_goes_with_the_last_port,
    a_port_that_is_attached_anew_counts_since_then,
    paths_to_devices_that_are_gone_are_not_counted_again,
    documents_that_can_not_be_used_are_refused,
    a_baseline_that_can_not_be_used_is_in_the_way_only_where_it_counts,
    rates_since_a_document_are_printed,
    what_can_not_be_said_together_is_wrong_usage,
];

/// Two taps that know each other.
fn introduced() -> Switch {
    let switch = Switch::of(2);
    switch.introduce();
    stop_learning("vm1");
    switch
}

/// So many frames from vm1 to vm2, all of which arrive.
fn pass(switch: &Switch, frames: usize) {
    let (vm1, vm2) = (switch.tap("vm1"), switch.tap("vm2"));
    for _ in 0..frames {
        send(vm1, &Flow::udp(1, 2).frame(b"counted"));
        receive(vm2);
    }
}

/// What these words print.
#[track_caller]
fn statistics(switch: &Switch, words: &str) -> Statistics {
    let statistics: Statistics = serde_json::from_value(switch.json(words)).expect("statistics");
    statistics.bridges.iter().for_each(Bridge::assert_conservation);
    statistics
}

/// Frames that vm1 has sent to vm2, by these words.
#[track_caller]
fn passed(switch: &Switch, words: &str) -> u64 {
    let all = statistics(switch, words);
    let bridge = &all.bridges[0];
    let (xdp, tcx) = bridge.frames("vm1", "vm2");
    assert_eq!(bridge.port("vm1").rx.frames, xdp + tcx, "{all:#?}");
    assert_eq!(bridge.port("vm2").tx.frames, xdp + tcx, "{all:#?}");
    xdp + tcx
}

/// A file with what these words print.
fn printed(switch: &Switch, words: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("make a folder");
    let file = folder.path().join("then");
    fs::write(&file, switch.json(words).to_string()).expect("write statistics");
    let path = file.display().to_string();
    (folder, path)
}

fn since_a_document_only_what_came_later_is_counted() {
    let switch = introduced();
    pass(&switch, 3);
    let (_folder, then) = printed(&switch, "stats");
    let none = statistics(&switch, &format!("stats --since {then}"));
    assert_eq!(none.bridges[0].port("vm1").rx.frames, 0, "{none:#?}");
    assert!(none.bridges[0].paths.is_empty(), "{none:#?}");
    pass(&switch, 5);
    assert_eq!(passed(&switch, &format!("stats --since {then}")), 5);
    let since = statistics(&switch, &format!("stats --since {then}"))
        .since
        .expect("since");
    let document: Value = serde_json::from_str(&fs::read_to_string(&then).expect("read")).expect("JSON");
    assert_eq!(document["time"], since.time);
    assert!(!since.baseline && since.attached_later.is_empty(), "{since:?}");
    let now = statistics(&switch, &format!("stats --since {then}"));
    let interval = now.uptime_ms - document["uptime_ms"].as_u64().expect("a time");
    assert_eq!(now.since.expect("since").interval_ms, interval);
    assert_eq!(document["boot"], now.boot);
    // The counters themselves went on, and what was left before is not left again.
    let all = statistics(&switch, "stats");
    assert!(
        all.since.is_none() && all.bridges[0].port("vm1").left("group") == 1,
        "{all:#?}"
    );
    let later = statistics(&switch, &format!("stats --since {then}"));
    assert_eq!(later.bridges[0].port("vm1").left("group"), 0);
    assert_eq!(later.bridges[0].port("vm2").tx_by_bridge, 0);
}

fn a_baseline_lasts_until_it_is_forgotten() {
    let switch = introduced();
    pass(&switch, 3);
    // It prints what there was.
    let until = statistics(&switch, "stats --reset");
    assert!(
        until.since.is_none() && until.bridges[0].frames("vm1", "vm2").0 == 3,
        "{until:#?}"
    );
    pass(&switch, 2);
    assert_eq!(passed(&switch, "stats"), 2);
    let since = statistics(&switch, "stats").since.expect("since");
    assert!(since.baseline && since.time == until.time, "{since:?}");
    // Said to people and scripts too.
    let words = format!("since {}, the baseline: ", since.time);
    assert!(switch.ok("stats").starts_with(&words));
    let brief = switch.tapbridge("-br stats");
    assert!(
        brief.stderr.starts_with(&words) && !brief.stdout.contains("since"),
        "{brief}"
    );
    // Another begins anew, and tells what was since the one before.
    let until = statistics(&switch, "stats --reset");
    assert_eq!(until.bridges[0].frames("vm1", "vm2").0, 2, "{until:#?}");
    pass(&switch, 1);
    assert_eq!(passed(&switch, "stats vm1 vm2"), 1);
    assert_eq!(switch.all_stats()[0].frames("vm1", "vm2").0, 1);
    // A document that counts since the baseline can be counted from too.
    let (_folder, then) = printed(&switch, "stats");
    pass(&switch, 4);
    assert_eq!(passed(&switch, &format!("stats --since {then}")), 4);
    assert_eq!(passed(&switch, "stats"), 5);
    // All that was counted is still known.
    let all = statistics(&switch, "stats --since attach");
    assert!(
        all.since.is_none() && all.bridges[0].frames("vm1", "vm2").0 == 10,
        "{all:#?}"
    );
    let all = statistics(&switch, "stats --no-reset");
    assert!(
        all.since.is_none() && all.bridges[0].frames("vm1", "vm2").0 == 10,
        "{all:#?}"
    );
    // From a baseline that is gone nobody can count.
    let complaint = switch.fails(&format!("stats --since {then}"));
    assert!(complaint.contains("which is no baseline any more"), "{complaint}");
}

fn a_baseline_outlives_an_upgrade_and_goes_with_the_last_port() {
    let switch = introduced();
    pass(&switch, 3);
    switch.ok("stats --reset");
    pass(&switch, 1);
    switch.ok("upgrade");
    assert_eq!(passed(&switch, "stats"), 1);
    switch.ok("detach vm1 vm2");
    assert!(!switch.state().exists());
    switch.attach_all("xdp");
    let anew = statistics(&switch, "stats");
    assert!(anew.since.is_none(), "{anew:#?}");
    // Without any port there is nothing to begin anew.
    switch.ok("detach --all");
    assert_eq!(switch.json("stats --reset")["bridges"], serde_json::json!([]));
    assert!(!switch.state().exists());
}

fn a_port_that_is_attached_anew_counts_since_then() {
    let switch = introduced();
    pass(&switch, 3);
    switch.ok("stats --reset");
    let (_folder, then) = printed(&switch, "stats --since attach");
    // More than before, so that nothing has gone back.
    switch.ok("detach vm1");
    switch.ok("attach vm1 --hook xdp");
    stop_learning("vm1");
    send(switch.tap("vm1"), &hello(1));
    drain(&switch.taps::<2>());
    pass(&switch, 7);
    for words in ["stats".to_owned(), format!("stats --since {then}")] {
        let all = statistics(&switch, &words);
        let (xdp, tcx) = all.bridges[0].frames("vm1", "vm2");
        let port = all.bridges[0].port("vm1");
        assert_eq!((xdp + tcx + port.left.frames, port.rx.frames), (8, 8), "{all:#?}");
        assert_eq!(all.since.expect("since").attached_later, ["vm1"]);
    }
    let words = switch.ok("stats");
    assert!(
        words.contains("\nsince they were attached, which was later: vm1\n"),
        "{words}"
    );
    // Of one that is not asked for it is not said.
    assert!(!switch.ok("stats vm2").contains("which was later"));
}

fn paths_to_devices_that_are_gone_are_not_counted_again() {
    let mut switch = introduced();
    pass(&switch, 3);
    switch.ok("stats --reset");
    pass(&switch, 2);
    switch.remove("vm2");
    // A command finds that it is gone.
    ip("link add other type veth peer name its-peer");
    switch.ok("attach other");
    let stats = statistics(&switch, "stats");
    let bridge = &stats.bridges[0];
    assert_eq!(bridge.frames_to_gone("vm1"), (2, 0), "{stats:#?}");
    assert_eq!(bridge.port("vm1").forwarded.frames, 2, "{stats:#?}");
    switch.ok("detach other");
    ip("link del other");
}

fn documents_that_can_not_be_used_are_refused() {
    let switch = introduced();
    let folder = tempfile::tempdir().expect("make a folder");
    let file = folder.path().join("then");
    let path = file.display();
    for (text, cause) in [
        ("", "EOF while parsing"),
        ("rx 5", "expected value at line 1 column 1"),
        ("{}", "missing field `schema`"),
        (
            r#"{"schema":1,"time":"","boot":"","uptime_ms":1,"since":null,"bridges":[]}"#,
            "its schema is 1, and this tapbridge has 2",
        ),
    ] {
        fs::write(&file, text).expect("write a file");
        let complaint = switch.fails(&format!("stats --since {path}"));
        let expected = format!("tapbridge: {path}: can't be used: {cause}");
        assert!(
            complaint.starts_with(&expected) && complaint.contains("that 'tapbridge stats -j' has printed"),
            "{complaint}"
        );
    }
    let complaint = switch.tapbridge("stats --since /nonexistent -j").failure(1);
    let error: Value = serde_json::from_str(&complaint).expect("JSON");
    crate::support::schema::check("error", &error);
    assert!(
        complaint.contains("/nonexistent: read: No such file"),
        "{complaint}"
    );
    // What was printed on another machine, or before this one was started, is of other attachments.
    let mut document = switch.json("stats");
    document["boot"] = "another".into();
    fs::write(&file, document.to_string()).expect("write a file");
    let all = statistics(&switch, &format!("stats --since {path}"));
    assert_eq!(all.since.expect("since").attached_later, ["vm1", "vm2"]);
}

fn a_baseline_that_can_not_be_used_is_in_the_way_only_where_it_counts() {
    const COMPLAINT: &str = "the baseline of statistics can't be used: ";
    let switch = introduced();
    let (_before, since_attach) = printed(&switch, "stats");
    switch.ok("stats --reset");
    let (_after, since_baseline) = printed(&switch, "stats");
    pass(&switch, 4);
    overwrite(&switch.folder().expect("something pinned").join("BASELINE"), b'?');
    for words in ["stats", &format!("stats --since {since_baseline}")] {
        let complaint = switch.fails(words);
        assert!(
            complaint.contains(COMPLAINT) && complaint.contains("'tapbridge stats --no-reset'"),
            "{complaint}"
        );
    }
    assert_eq!(passed(&switch, &format!("stats --since {since_attach}")), 4);
    switch.ok("stats --since attach");
    switch.ok("stats --no-reset");
    switch.ok("stats");
}

fn rates_since_a_document_are_printed() {
    let switch = introduced();
    let (_folder, then) = printed(&switch, "stats");
    pass(&switch, 5);
    let text = switch.ok(&format!("stats --since {then} --sort rate"));
    assert!(text.starts_with("since ") && text.contains(" s\n"), "{text}");
    for head in ["RX FRAMES/S", "LEFT/S", "TX FRAMES/S", "MBIT/S"] {
        assert!(text.contains(head), "{text}");
    }
    drain(&switch.taps::<2>());
}

fn what_can_not_be_said_together_is_wrong_usage() {
    let switch = Switch::empty();
    for words in [
        "stats --reset --watch 1",
        "stats --reset --since attach",
        "stats --reset vm1",
        "stats --reset --bridge br0",
        "stats --no-reset --reset",
        "stats --sort rate",
        "stats --sort rate --since attach",
        "stats --sort size",
        "stats vm1 --bridge br0",
        "-br stats --details",
    ] {
        let complaint = switch.tapbridge(words).failure(2);
        assert!(complaint.contains("--help"), "{words}: {complaint}");
    }
}
