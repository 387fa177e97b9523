//! `-n NETNS`: a command does its work in another network namespace.

use std::{fs, path::Path};

use lab::{Namespace, Tap};
use serde_json::Value;

use crate::support::{
    program::run,
    switch::{Switch, command_in, unique},
};

crate::tests![
    a_command_works_in_the_network_namespace_that_it_is_told,
    a_file_can_stand_for_the_network_namespace,
    what_is_no_network_namespace_is_refused,
    system_calls_are_of_no_network_namespace,
];

/// A network namespace with a name, a tap in it, and where its state is; detached in the end.
struct Elsewhere {
    namespace: Namespace,
    name: String,
    switch: Switch,
    _tap: Tap,
}

impl Elsewhere {
    fn new() -> Self {
        // This thread's own is another one.
        let switch = Switch::detached(1);
        let name = unique("tbns");
        let namespace = Namespace::create(&name).expect("a network namespace");
        let tap = namespace.run(|| {
            let tap = Tap::open("there").expect("open a tap");
            tap.up().expect("tap up");
            tap
        });
        Self {
            namespace,
            name,
            switch,
            _tap: tap,
        }
    }

    /// Runs `tapbridge` with these words, which must succeed.
    #[track_caller]
    fn ok(&self, words: &str) -> String {
        run(command_in(self.switch.state(), words)).success()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let detach = format!("-n {} detach --all", self.name);
        let output = command_in(self.switch.state(), &detach).output();
        if !output.is_ok_and(|output| output.status.success()) {
            eprintln!("could not detach in {}", self.name);
        }
    }
}

fn a_command_works_in_the_network_namespace_that_it_is_told() {
    let there = Elsewhere::new();
    let name = &there.name;
    assert_eq!(
        there.ok(&format!("-n {name} attach there --hook tcx")),
        "there: attached to tapbridge (tcx)\n"
    );
    // Behind the command's name it means the same.
    let shown = there.ok(&format!("show --netns {name} -j"));
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["bridges"][0]["ports"][0]["ifname"], "there", "{shown}");
    // The kernel's settings are read of that one too: bridges, sysfs, sysctl.
    assert!(there.ok(&format!("-n {name} fdb show")).contains("tapbridge"));
    assert!(there.ok("show").starts_with("no ports are attached"));
    let show = command_in(there.switch.state(), "show");
    let seen = there.namespace.run(|| run(show).success());
    assert!(seen.contains("there"), "{seen}");
    there.ok(&format!("-n {name} detach there"));
}

fn a_file_can_stand_for_the_network_namespace() {
    let there = Elsewhere::new();
    let file = there.namespace.handle_path();
    there.ok(&format!("-n {} attach there", file.display()));
    assert!(there.ok(&format!("-n {} show", there.name)).contains("there"));
}

fn what_is_no_network_namespace_is_refused() {
    let switch = Switch::empty();
    let name = unique("tbns");
    let complaint = switch.fails(&format!("-n {name} show"));
    assert_eq!(
        complaint,
        format!(
            "tapbridge: {name}: no network namespace has this name in /run/netns; 'ip netns list' lists those there are\n"
        )
    );
    // As JSON too.
    let complaint = switch.tapbridge(&format!("-n {name} show -j")).failure(1);
    assert!(complaint.starts_with("{\"error\":"), "{complaint}");
    // What 'ip netns' leaves where it was killed, and a namespace of another kind.
    let file = Path::new("/run/netns").join(&name);
    fs::create_dir_all("/run/netns").expect("make a folder");
    fs::write(&file, "").expect("write a file");
    let of_file = switch.tapbridge(&format!("-n {name} attach vm1"));
    fs::remove_file(&file).expect("remove a file");
    for (output, path) in [
        (of_file, file.to_str().expect("a path")),
        (switch.tapbridge("-n /proc/self/ns/uts show"), "/proc/self/ns/uts"),
    ] {
        let complaint = output.failure(1);
        assert!(
            complaint.starts_with(&format!(
                "tapbridge: {path}: is no network namespace; 'ip netns list'"
            )),
            "{complaint}"
        );
    }
    let complaint = switch.fails("-n /nonexistent/file show");
    assert!(
        complaint.contains("/nonexistent/file: open the network namespace: No such file"),
        "{complaint}"
    );
    assert!(!switch.state().exists());
}

fn system_calls_are_of_no_network_namespace() {
    let switch = Switch::empty();
    let complaint = switch.tapbridge("-n any syscalls --pid 1").failure(2);
    assert!(
        complaint.contains("'--netns' cannot be used with 'syscalls'"),
        "{complaint}"
    );
}
