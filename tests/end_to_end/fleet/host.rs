//! One host of a fleet, and the guests behind its bridge.

use std::{
    fs::File,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{self, Command},
    thread,
};

use lab::{Namespace, Tap, netns};
use serde_json::Value;

use super::routing::Routing;
use crate::support::{
    bpffs,
    frames::{Mac, mac, text},
    guest::Guest,
    program::{LIMIT, Output, happens, ip, run},
    statistics::{Bridge, Statistics},
    switch::{command_in, unique},
};

/// The network that all guests are in.
pub const VNI: u32 = 100;
/// The device that leads to the other hosts.
pub const TUNNEL: &str = "vxlan100";
/// The port of a guest that is a network namespace.
pub const GUEST_PORT: &str = "g0";

/// A host's address in the network between the hosts.
pub fn underlay_address(number: u8) -> String {
    format!("192.0.2.{number}")
}

/// A network namespace with br0: the tunnel, taps t0 and t1, and a guest with a network stack, which is station *n* on
/// host *n*.
pub struct Host {
    pub number: u8,
    hosts: u8,
    folder: PathBuf,
    state: PathBuf,
    /// How often its daemons were started.
    starts: u32,
    routing: Option<Routing>,
    pub taps: [Tap; 2],
    pub guest: Guest,
    guest_namespace: Namespace,
    namespace: Namespace,
}

/// Where a bridge may know a station.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// At one of its own ports.
    Port(&'static str),
    /// Behind the tunnel, at another host.
    Host(u8),
}

impl Host {
    /// A host whose card is a port of the underlay's bridge. Its daemons don't run yet; their folders will be in the folder.
    pub fn new(number: u8, hosts: u8, underlay: &Namespace, folder: &Path) -> Self {
        let namespace = Namespace::anonymous().expect("a host");
        let guest_namespace = Namespace::anonymous().expect("a guest");
        let address = underlay_address(number);
        namespace.run(|| {
            netns::disable_ipv6().expect("a quiet namespace");
            add_veth(&format!("eth0 mtu 1600 up address 02:00:00:00:00:{number:02x}"), &card(number), underlay);
            ip(&format!("address add {address}/24 dev eth0"));
            // With snooping it sends queries and reports of its own.
            ip("link add br0 up type bridge mcast_snooping 0");
            ip(&format!(
                "link add {TUNNEL} mtu 1500 up master br0 type vxlan id {VNI} local {address} dstport 4789 nolearning"
            ));
            ip(&format!("link set {TUNNEL} type bridge_slave learning off neigh_suppress on"));
            add_veth(&format!("{GUEST_PORT} up master br0"), "e0", &guest_namespace);
        });
        underlay.run(|| ip(&format!("link set {} mtu 1600 master br0 up", card(number))));
        let guest = guest_namespace.run(|| {
            ip(&format!("link set e0 address {} up", text(mac(number))));
            ip(&format!("address add 10.0.0.{number}/24 dev e0"));
            ip(&format!("address add fd00::{number}/64 dev e0 nodad"));
            Guest::host(number)
        });
        let taps = namespace.run(|| {
            ["t0", "t1"].map(|name| {
                let tap = Tap::open(name).expect("open a tap");
                ip(&format!("link set {name} master br0"));
                tap
            })
        });
        Self {
            number,
            hosts,
            folder: folder.join(number.to_string()),
            state: Path::new(bpffs::PATH).join(unique(bpffs::PREFIX)),
            starts: 0,
            routing: None,
            taps,
            guest,
            guest_namespace,
            namespace,
        }
    }

    /// Starts its daemons, which know nothing of what earlier ones knew.
    pub fn start(&mut self) {
        self.starts += 1;
        let folder = self.folder.join(self.starts.to_string());
        self.routing = Some(Routing::start(&self.namespace, folder, self.number, self.hosts));
    }

    /// Kills its daemons, without a word to the other hosts'.
    pub fn kill(&mut self, underlay: &Namespace) {
        // First: the kernel would close their connections.
        self.connect(underlay, false);
        self.routing = None;
    }

    /// Plugs its cable in, or out.
    pub fn connect(&self, underlay: &Namespace, connected: bool) {
        let state = if connected { "up" } else { "down" };
        underlay.run(|| ip(&format!("link set {} {state}", card(self.number))));
    }

    pub fn routing(&self) -> &Routing {
        self.routing.as_ref().expect("running daemons")
    }

    /// Runs `ip` with these words on the host, which must succeed.
    #[track_caller]
    pub fn ip(&self, words: &str) {
        self.run(words_of("ip", words)).success();
    }

    /// Runs `bridge` with these words on the host, which must succeed.
    #[track_caller]
    pub fn bridge(&self, words: &str) {
        self.run(words_of("bridge", words)).success();
    }

    /// Runs `tapbridge` with these words on the host, which must succeed.
    #[track_caller]
    pub fn tapbridge(&self, words: &str) -> String {
        self.run(command_in(&self.state, words)).success()
    }

    /// Runs a command on its guest's side.
    pub fn run_in_guest(&self, program: &str, words: &str) -> Output {
        self.guest_namespace.run(|| run(words_of(program, words)))
    }

    /// A command on the host.
    pub fn command(&self, program: &str) -> Command {
        self.namespace.command(program).expect("a command")
    }

    fn run(&self, command: Command) -> Output {
        self.namespace.run(|| run(command))
    }

    /// What `stats` says of its bridge, whose ports are attached.
    #[track_caller]
    pub fn stats(&self) -> Bridge {
        let told = self.tapbridge("stats -j");
        let statistics: Statistics = serde_json::from_str(&told).expect("the documented statistics");
        let [bridge] = statistics.bridges.try_into().expect("one bridge");
        bridge
    }

    /// The entries of the databases of br0 and of the tunnel, as `bridge -j fdb show` has them.
    fn fdb(&self) -> Vec<Value> {
        let told = self.run(words_of("bridge", "-j fdb show")).json();
        told.as_array().expect("entries").clone()
    }

    /// What both databases have of a station: for each entry the device, the database, the other host and the flags.
    pub fn entries(&self, station: Mac) -> Vec<String> {
        let address = text(station);
        let entries = self.fdb().into_iter().filter(|entry| entry["mac"] == *address);
        let mut entries: Vec<_> = entries
            .map(|entry| {
                format!(
                    "{} master {} dst {} {} {}",
                    entry["ifname"], entry["master"], entry["dst"], entry["flags"], entry["state"]
                )
            })
            .collect();
        entries.sort();
        entries
    }

    /// Whether a station is at a place, as the bridge has it, and the tunnel if frames for it go there.
    fn knows(&self, station: Mac, place: Place) -> bool {
        let address = text(station);
        let mut entries = self.fdb();
        entries.retain(|entry| entry["mac"] == *address);
        let (tunnel, bridge): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry["master"].is_null());
        let is_at = |entry: &Value, device: &str| entry["ifname"] == *device;
        match place {
            // Nobody asks the tunnel then, and zebra leaves what it has there.
            Place::Port(port) => matches!(bridge[..], [entry] if is_at(entry, port)),
            Place::Host(number) => {
                matches!(bridge[..], [entry] if is_at(entry, TUNNEL))
                    && matches!(tunnel[..], [entry] if entry["dst"] == underlay_address(number))
            }
        }
    }

    /// Waits until it knows a station at a place.
    #[track_caller]
    pub fn wait_to_know(&self, station: Mac, place: Place) {
        assert!(
            happens(LIMIT, || self.knows(station, place)),
            "host {} has {} not at {place:?} in {LIMIT:?}, but {:#?}; the daemons said:\n{}",
            self.number,
            text(station),
            self.entries(station),
            self.routing().log()
        );
    }

    /// Waits until neither database has a station.
    #[track_caller]
    pub fn wait_to_forget(&self, station: Mac) {
        assert!(
            happens(LIMIT, || self.entries(station).is_empty()),
            "host {} has not forgotten {} in {LIMIT:?}, but has {:#?}; the daemons said:\n{}",
            self.number,
            text(station),
            self.entries(station),
            self.routing().log()
        );
    }

    /// Waits until the tunnel floods to these hosts, and no others.
    #[track_caller]
    pub fn wait_to_flood(&self, hosts: &[u8]) {
        let what = format!("host {} floods to hosts {hosts:?}", self.number);
        let expected: Vec<_> = hosts.iter().map(|host| underlay_address(*host)).collect();
        self.routing().wait(&what, || {
            let entries = self
                .fdb()
                .into_iter()
                .filter(|entry| entry["mac"] == "00:00:00:00:00:00");
            let mut found: Vec<_> = entries
                .map(|entry| entry["dst"].as_str().unwrap_or_default().to_owned())
                .collect();
            found.sort();
            found == expected
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let mut detach = command_in(&self.state, "detach --all");
        // `run` would panic, perhaps a second time.
        let detached = self.namespace.run(|| detach.output());
        if !thread::panicking() {
            let detached = detached.expect("start tapbridge");
            assert!(detached.status.success(), "detach --all: {detached:?}");
            assert!(!self.state.exists(), "{} is left behind", self.state.display());
        }
    }
}

/// The underlay's end of a host's cable.
fn card(number: u8) -> String {
    format!("h{number}")
}

/// Makes a veth whose other end is in another namespace.
fn add_veth(here: &str, there: &str, namespace: &Namespace) {
    let file = namespace.run(|| File::open("/proc/thread-self/ns/net"));
    let file = file.expect("the namespace's file");
    let path = format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd());
    ip(&format!(
        "link add {here} type veth peer name {there} netns {path}"
    ));
}

fn words_of(program: &str, words: &str) -> Command {
    let mut command = Command::new(program);
    command.args(words.split_whitespace());
    command
}
