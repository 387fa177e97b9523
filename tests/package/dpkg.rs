//! What becomes of a configuration, and of what is attached, as the package is upgraded, removed and purged.

use std::{fs, time::Duration};

use lab::Tap;
use serde_json::Value;
use test_support::{
    program::{LIMIT, happens, ip, link},
    wire,
};

use crate::root::{Root, with_root};

crate::tests![
    an_edited_configuration_survives_an_upgrade_and_goes_when_the_package_is_purged,
    ports_keep_their_counters_when_the_package_is_upgraded,
    guests_go_on_talking_when_the_package_is_removed,
    an_earlier_version_takes_ports_over_too,
    one_that_was_started_by_hand_is_told_of_and_goes_on,
];

pub const APT_TESTS: &[crate::Test] = &[(
    "a_newcomers_three_commands_make_virbr0_faster",
    a_newcomers_three_commands_make_virbr0_faster,
)];

/// Long enough for a frame to arrive on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const CONFIG: &str = "/etc/tapbridge/tapbridge.toml";

fn an_edited_configuration_survives_an_upgrade_and_goes_when_the_package_is_purged() {
    with_root(|root| {
        root.install("old");
        let config = root.path(CONFIG);
        let edited = fs::read_to_string(&config).expect("read it") + "[[bridge]]\nname = \"br0\"\n";
        fs::write(&config, &edited).expect("write it");
        root.install("new");
        let version = root
            .run("dpkg-query", "--show --showformat=${Version} tapbridge")
            .success();
        assert_eq!(version, "999");
        assert_eq!(fs::read_to_string(&config).expect("read it"), edited);
        root.dpkg("--remove tapbridge");
        assert!(!root.path("/usr/bin/tapbridge").exists());
        assert_eq!(fs::read_to_string(&config).expect("read it"), edited);
        root.dpkg("--purge tapbridge");
        assert!(!root.path("/etc/tapbridge").exists());
        let listed = root.run("dpkg-query", "--show tapbridge");
        assert!(!listed.status.success(), "{listed}");
    });
}

fn ports_keep_their_counters_when_the_package_is_upgraded() {
    with_root(|root| {
        root.install("old");
        let [one, two] = bridged();
        root.run("tapbridge", "attach --master br0").success();
        talk(&one, &two);
        let before = received(root);
        assert_ne!(before, 0);
        let said = root.install("new");
        assert!(said.contains("2 ports have the programs of"), "{said}");
        assert_eq!(received(root), before);
        talk(&one, &two);
        assert!(received(root) > before);
    });
}

fn an_earlier_version_takes_ports_over_too() {
    with_root(|root| {
        root.install("new");
        let [one, two] = bridged();
        root.run("tapbridge", "attach --master br0").success();
        talk(&one, &two);
        let before = received(root);
        let said = root.install("old");
        assert!(said.contains("2 ports have the programs of"), "{said}");
        assert_eq!(received(root), before);
        talk(&one, &two);
        assert!(received(root) > before);
    });
}

fn one_that_was_started_by_hand_is_told_of_and_goes_on() {
    const WORDS: &str = "was started by hand goes on; end it";
    with_root(|root| {
        root.install("old");
        let _taps = bridged();
        root.run("tapbridge", "attach --master br0").success();
        let mut running = root.start("tapbridge", "run");
        let is_there = || root.run("tapbridge", "status").status.success();
        assert!(happens(LIMIT, is_there), "'tapbridge run' does not answer");
        let said = root.install("new");
        assert!(
            said.contains("2 ports have the programs of") && !said.contains(WORDS),
            "{said}"
        );
        assert!(is_there() && running.runs());
        let said = root.dpkg("--remove tapbridge");
        assert!(said.contains(WORDS), "{said}");
        assert!(running.runs());
        running.end();
        root.install("old");
        let [three, four] = ["vm3", "vm4"].map(tap);
        root.run("tapbridge", "attach vm3 vm4").success();
        let said = root.dpkg("--remove tapbridge");
        assert!(
            said.contains("all ports are detached") && !said.contains(WORDS),
            "{said}"
        );
        drop((three, four));
        ip("link del tapbridge");
    });
}

/// The page that a newcomer reads.
const PAGE: &str = include_str!("../../docs/install.md");

fn a_newcomers_three_commands_make_virbr0_faster() {
    with_root(|root| {
        let commands: Vec<&str> = PAGE
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .take(3)
            .collect();
        let [install, configure, start] = commands[..] else {
            panic!("no three commands in {PAGE}");
        };
        root.bring("old");
        ip("link add virbr0 up type bridge");
        let [one, two] = ["vnet0", "vnet1"].map(tap);
        let join = |tap: &Tap| ip(&format!("link set {} master virbr0", tap.name()));
        join(&one);
        let package = install.split(' ').next_back().expect("a package");
        let install = install
            .replace(package, "/tmp/old.deb")
            .replace("apt ", "apt-get -y -o DPkg::Options::=--no-triggers ");
        root.shell(&install);
        root.shell(configure);
        // No systemd runs here: what it would start is started, once it knows that it is to.
        root.shell(&start.replace(" --now", ""));
        let enabled = root.path("/etc/systemd/system/multi-user.target.wants/tapbridge.service");
        let unit = fs::read_link(enabled).expect("the service is enabled");
        let unit = fs::read_to_string(root.path(&unit.display().to_string())).expect("its unit");
        let words = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart=/usr/bin/tapbridge "));
        let running = root.start("tapbridge", words.expect("what the service starts"));
        let attached = |count: usize| {
            let shown = root.run("tapbridge", "show -j").json();
            let ports = shown["bridges"][0]["ports"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            ports.iter().filter(|port| port["attached"] == true).count() == count
        };
        assert!(
            happens(LIMIT, || attached(1)),
            "the guest that is there is not attached"
        );
        join(&two);
        assert!(
            happens(LIMIT, || attached(2)),
            "the guest that comes is not attached"
        );
        talk(&one, &two);
        let shown = root.run("tapbridge", "status").success();
        assert!(shown.contains("vnet1"), "{shown}");
        running.end();
    });
}

fn guests_go_on_talking_when_the_package_is_removed() {
    with_root(|root| {
        root.install("old");
        let [one, two] = bridged();
        let lonely = [tap("vm3"), tap("vm4")];
        root.run("tapbridge", "attach vm1 vm2 vm3 vm4 --hook xdp")
            .success();
        talk(&one, &two);
        let said = root.dpkg("--remove tapbridge");
        assert!(said.contains("all ports are detached"), "{said}");
        assert!(!root.path("/sys/fs/bpf/tapbridge").exists());
        let is_free = || {
            ["vm1", "vm2", "vm3", "vm4"]
                .into_iter()
                .all(|tap| xdp_of(tap).is_null())
        };
        // The kernel detaches some time after the pin is gone.
        assert!(happens(LIMIT, is_free), "programs stay for {LIMIT:?}");
        talk(&one, &two);
        // In the bridge that was made for them.
        let [three, four] = &lonely;
        talk(three, four);
        assert_eq!(link("vm3").expect("a tap")["master"], "tapbridge");
        ip("link del tapbridge");
    });
}

fn tap(name: &str) -> Tap {
    let tap = Tap::open(name).expect("open a tap");
    tap.up().expect("tap up");
    tap
}

/// Two taps, vm1 and vm2, that are ports of br0.
fn bridged() -> [Tap; 2] {
    ip("link add br0 up type bridge");
    ["vm1", "vm2"].map(|name| {
        let tap = tap(name);
        ip(&format!("link set {name} master br0"));
        tap
    })
}

/// A frame goes from the one to the other, and one comes back.
fn talk(one: &Tap, two: &Tap) {
    let station = |tap: &Tap| [2, 0, 0, 0, 0, u8::try_from(tap.ifindex()).expect("a small index")];
    for (from, to) in [(one, two), (two, one), (one, two)] {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&station(to));
        frame[6..12].copy_from_slice(&station(from));
        // A protocol for experiments (IEEE 802).
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        wire::send(from, &frame);
        // br0 itself speaks too.
        let received = to
            .receive_where(PATIENCE, |_, received| received == frame)
            .expect("receive");
        assert!(
            received.is_some(),
            "{}: the frame did not come in {PATIENCE:?}",
            to.name()
        );
    }
}

fn xdp_of(tap: &str) -> Value {
    link(tap).expect("a tap")["xdp"].take()
}

/// How many frames the ports of all bridges have received.
fn received(root: &Root) -> u64 {
    let statistics = root.run("tapbridge", "stats -j").json();
    let bridges = statistics["bridges"].as_array().expect("bridges");
    let ports = bridges
        .iter()
        .flat_map(|bridge| bridge["ports"].as_array().expect("ports"));
    ports
        .map(|port| port["rx"]["frames"].as_u64().expect("a number"))
        .sum()
}
