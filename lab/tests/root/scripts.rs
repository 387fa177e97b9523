//! The scripts that measure between guests that are there already, which here are namespaces with frame pumps, at a
//! Linux bridge.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio, id},
    sync::atomic::{AtomicU32, Ordering},
};

use lab::Namespace;
use nix::sys::signal::Signal;

use crate::{
    Test, datapaths,
    program::{self, Folder},
};

pub const TESTS: &[Test] = &[
    (
        "the_scripts_measure_and_say_where_frames_went_and_what_the_vmms_called",
        the_scripts_measure,
    ),
    (
        "a_script_that_fails_says_why_and_detaches_what_it_attached",
        a_script_that_fails_cleans_up,
    ),
];

/// Two guests, and the host's namespace between them.
struct Guests {
    host: Namespace,
    names: [String; 2],
    pumps: [Child; 2],
    _inside: [Namespace; 2],
    state: PathBuf,
}

impl Guests {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = format!("tbscripts-{}-{}", id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let namespace = |role: &str| Namespace::create(&format!("{own}-{role}")).expect("namespace");
        let host = namespace("host");
        let guests = [namespace("1"), namespace("2")];
        let path = |namespace: &Namespace| namespace.path().expect("it has a name");
        let pump = |number: usize| {
            let mut pump = program::lab("pump");
            pump.args(["--mtu", "1500", "--offloads", "on", "--host-device", "tap"])
                .args(["--host-tap", &format!("vm{}", number + 1)])
                .arg("--host-netns")
                .arg(path(&host))
                .arg("--guest-netns")
                .arg(path(&guests[number]));
            let mut pump = pump.stderr(Stdio::piped()).spawn().expect("start a pump");
            // It says when it is ready, or why it ends.
            let output = pump.stderr.as_mut().expect("a pipe");
            output.read_exact(&mut [0]).expect("the pump's first word");
            let address = format!("10.0.0.{}/24", number + 1);
            let mut ip = guests[number].command("ip").expect("a command");
            let status = ip.args(["address", "add", &address, "dev", "g0"]).status();
            assert!(status.expect("run ip").success());
            pump
        };
        let pumps = [pump(0), pump(1)];
        for words in [
            "link add br0 type bridge stp_state 0",
            "link set vm1 master br0",
            "link set vm2 master br0",
            "link set br0 up",
        ] {
            let mut ip = host.command("ip").expect("a command");
            let status = ip.args(words.split(' ')).status();
            assert!(status.expect("run ip").success(), "{words}");
        }
        Self {
            host,
            names: [format!("{own}-1"), format!("{own}-2")],
            pumps,
            _inside: guests,
            state: Path::new("/sys/fs/bpf").join(own),
        }
    }

    /// The switch's command in the host's namespace, with a state of its own.
    fn tapbridge(&self) -> String {
        let namespace = self.host.path().expect("it has a name");
        format!(
            "nsenter --net={} tapbridge --state {}",
            namespace.display(),
            self.state.display()
        )
    }

    /// A script, or a program that runs it. The switch is found by its name: the command is split into words, and this
    /// project may lie in a folder whose name has a space.
    fn command(&self, program: &str) -> Command {
        let path = env::var_os("PATH").unwrap_or_default();
        let switch = datapaths::switch();
        let folders = switch
            .parent()
            .into_iter()
            .map(Path::to_owned)
            .chain(env::split_paths(&path));
        let mut command = Command::new(program);
        command
            .env("TAPBRIDGE", self.tapbridge())
            .env("PATH", env::join_paths(folders).expect("a list of folders"));
        command
    }

    /// Runs a script, perhaps by way of another program, and returns what it has printed.
    fn run(&self, words: &[&str]) -> Output {
        let [program, arguments @ ..] = words else {
            unreachable!("a program")
        };
        self.command(program)
            .args(arguments)
            .output()
            .expect("run the script")
    }

    fn inside(&self) -> [String; 2] {
        [0, 1].map(|number| format!("ip netns exec {}", self.names[number]))
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        for pump in &mut self.pumps {
            let _ = pump.kill();
            let _ = pump.wait();
        }
        let _ = fs::remove_dir_all(&self.state);
    }
}

fn script(name: &str) -> String {
    format!("{}/{name}.sh", env!("CARGO_MANIFEST_DIR"))
}

fn text(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(stdout),
        String::from_utf8_lossy(stderr)
    )
}

fn the_scripts_measure() {
    let guests = Guests::new();
    let [client, server] = guests.inside();
    let ids = guests.pumps.each_ref().map(|pump| pump.id().to_string());
    let (syscalls, throughput) = (script("syscalls"), script("throughput"));
    let words = [&*syscalls, &ids[0], &ids[1], &throughput, "-t", "1", "-P", "2"];
    let measured = guests.run(&[&words[..], &[&client, &server, "10.0.0.2", "vm1", "vm2"]].concat());
    let said = text(&measured);
    assert!(measured.status.success(), "{said}");
    assert_eq!(said.matches("stream ").count(), 2, "{said}");
    for expected in ["sum: ", "vm1 to vm2 by tcx: ", "vm1: detached", "client's VMM:"] {
        assert!(said.contains(expected), "no '{expected}': {said}");
    }
    let calls = "@total[tapbridge-lab, tracepoint:syscalls:sys_enter_writev]: ";
    assert_eq!(said.matches(calls).count(), 2, "{said}");

    // A link to a script does as well.
    let folder = Folder::new("scripts");
    let latency = folder.path().join("latency");
    fs::create_dir(folder.path())
        .and_then(|()| symlink(script("latency"), &latency))
        .expect("make a link");
    let measured = guests.run(&[
        latency.to_str().expect("a path in ASCII"),
        "-t",
        "1",
        &client,
        &server,
        "10.0.0.2",
        "vm1",
        "vm2",
    ]);
    let said = text(&measured);
    assert!(measured.status.success(), "{said}");
    for expected in ["percentile 99.900", "dropped messages = 0", "vm2 to vm1 by xdp: "] {
        assert!(said.contains(expected), "no '{expected}': {said}");
    }
}

fn a_script_that_fails_cleans_up() {
    let guests = Guests::new();
    let [client, server] = guests.inside();
    let failed = guests.run(&[
        &script("throughput"),
        "-t",
        "1",
        &client,
        &server,
        "10.0.0.9",
        "vm1",
        "vm2",
    ]);
    let said = text(&failed);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("iperf3: "), "{said}");
    assert_eq!(said.matches(": detached").count(), 2, "{said}");
    let usage = guests.run(&[&script("latency")]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(text(&usage).contains("CLIENT SERVER ADDRESS"));
    let mut command = guests.command(&script("throughput"));
    command.args(["-t", "20", &client, &server, "10.0.0.2", "vm1", "vm2"]);
    command.stdout(Stdio::piped());
    let mut interrupted = command.spawn().expect("run the script");
    let mut said = BufReader::new(interrupted.stdout.take().expect("a pipe")).lines();
    assert_eq!(said.by_ref().take(2).count(), 2, "attached");
    program::signal(&interrupted, Signal::SIGTERM);
    let rest: Vec<_> = said.map_while(Result::ok).collect();
    assert_eq!(rest.join("\n").matches(": detached").count(), 2, "{rest:?}");
    assert_eq!(interrupted.wait().expect("wait for the script").code(), Some(143));
}
