//! A bridge with four taps, and what is done to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::fd::AsRawFd as _,
    process::{self, Command},
    thread,
    time::{Duration, Instant},
};

use bridge_common::{Hook, port::HookMode};
use lab::{Entered, Namespace, Tap, VnetHeader, tap::IdleTap};
use serde_json::Value;
use tapbridge::kernel::{netlink::Netlink, sysfs::Sysfs};

use super::{
    newer,
    record::{Arrival, Record, Snapshot},
    shot::{self, Shot, Side},
    tap_filter,
    testbed::Testbed,
    traffic::{self, ALWAYS, BRIDGE, IN_TURN, Kind, SPECIAL},
};
use crate::support::{
    frames::{BROADCAST, Mac, mac, text},
    linux_bridge::call_netfilter,
    program::{LIMIT, happens, run},
    sniffer::{Sniffer, index},
};

pub const TAPS: u8 = 4;
/// Bytes of the header before every frame.
const HEADER: u64 = VnetHeader::LEN as u64;
/// Who has talked so lately can't have been forgotten.
const TALKED_LATELY: Duration = Duration::from_millis(500);
/// The beginning of a station's address.
const STATIONS: [u8; 5] = [0x52, 0x54, 0, 0, 0];

/// Who of the ports has the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Nobody.
    Alone,
    /// All, with tcx.
    Tcx,
    /// All, with both hooks.
    Xdp,
    /// The first with both hooks and the third with tcx.
    Some,
}

impl Manner {
    fn mode(self, number: u8) -> Option<HookMode> {
        match (self, number) {
            (Self::Tcx, _) | (Self::Some, 3) => Some(HookMode::Tcx),
            (Self::Xdp, _) | (Self::Some, 1) => Some(HookMode::Xdp),
            _ => None,
        }
    }
}

/// Something that is done. Taps and stations are numbers: tap n is vm*n*, where station n is in the beginning.
#[derive(Clone, Debug)]
pub enum Step {
    /// A command that succeeds.
    Run(String),
    /// A command that succeeds in all runs or in none.
    Try(String),
    /// Something is written into a setting under /proc/sys.
    Sysctl(&'static str, &'static str),
    /// Something is written into a setting under /sys/class/net.
    Sysfs(&'static str, &'static str),
    /// A station sends from a tap, once, to another one, or to all if that is 0.
    Send { tap: u8, from: u8, to: u8 },
    /// A station sends another one such a frame from its own tap.
    SendKind(Kind, u8, u8),
    /// A station sends from the device of the packet socket that was opened first.
    SendFromOutside { from: u8, to: u8 },
    /// Some time passes.
    Wait(Duration),
    /// The process that holds a tap ends; the tap stays.
    Close(u8),
    /// A station sends once to another one whose tap has no carrier any more, though somebody reads it, and the bridge does
    /// not know yet. Then it has its carrier again.
    SendToOneThatLostItsCarrier { from: u8, to: u8 },
    /// Another process takes the tap.
    Open(u8),
    /// A tap is deleted, and another one of its name becomes a port.
    Remake(u8),
    /// The same with two queues.
    RemakeWithQueues(u8),
    /// A tap is moved to another network namespace.
    MoveAway(u8),
    /// The holder of a tap wants no frames, and says so to the tap.
    Filter(u8),
    /// It wants all frames again.
    Unfilter(u8),
    /// A packet socket is opened at a device; at all, if it has no name.
    Listen(&'static str),
    /// All packet sockets are closed.
    Unlisten,
    /// A program of somebody else's that drops long frames is attached to a device with tcx.
    Shoot(&'static str, Side),
    /// All of these are detached.
    Unshoot,
    /// The bridge learns no more addresses than so many, or any number if that is 0.
    LearnAtMost(u32),
    /// A locked port notes who would like to send, or does not.
    Authenticate(&'static str, bool),
    /// A station is known to be at a tap, and user space is told when it is first heard of.
    Watch { tap: u8, station: u8 },
    /// Another device's port gets the fast path, with tcx.
    Attach(&'static str),
    /// From now on frames take some time.
    Slow,
    /// From now on it can't be foreseen what devices count.
    Uncounted,
    /// It is waited until a port's spanning-tree state is this one.
    UntilState(&'static str, &'static str),
    /// The ageing time becomes zero, and the bridge has forgotten what it had learned.
    ForgetAtOnce,
    /// One station sends to another, which is silent as all others are, until the bridge has forgotten these: entries live for
    /// two seconds meanwhile, and then for long again.
    UntilForgotten { from: u8, to: u8 },
}

/// A namespace with a bridge, and what it has been seen to do. What is made there goes when this is dropped.
pub struct Rig<'testbed> {
    testbed: &'testbed Testbed,
    taps: BTreeMap<u8, Vec<Tap>>,
    idle: BTreeMap<u8, IdleTap>,
    sniffers: Vec<Sniffer>,
    shots: Vec<Shot>,
    elsewhere: Vec<Namespace>,
    rounds: usize,
    slow: bool,
    counted: bool,
    /// Devices whose dropped frames say nothing.
    overheard: BTreeSet<String>,
    record: Record,
    _entered: Entered,
}

impl<'testbed> Rig<'testbed> {
    pub fn new(testbed: &'testbed Testbed, manner: Manner) -> Self {
        let mut rig = Self {
            testbed,
            taps: BTreeMap::new(),
            idle: BTreeMap::new(),
            sniffers: Vec::new(),
            shots: Vec::new(),
            elsewhere: Vec::new(),
            rounds: 0,
            slow: false,
            counted: true,
            overheard: BTreeSet::new(),
            record: Record::default(),
            _entered: testbed.namespace.enter().expect("enter the namespace"),
        };
        call_netfilter(false);
        // With snooping it sends reports of its own; a delay goes by even without a spanning tree (`br_make_forwarding`).
        rig.run(&format!(
            "ip link add br0 address {} up type bridge mcast_snooping 0 forward_delay 0",
            text(BRIDGE)
        ));
        for number in 1..=TAPS {
            rig.make_tap(number, false);
            if let Some(mode) = manner.mode(number) {
                rig.attach(&format!("vm{number}"), mode);
            }
        }
        for number in 1..=TAPS {
            rig.send(number, number, 0);
        }
        rig.round("the beginning");
        rig
    }

    pub fn take_step(&mut self, step: &Step) {
        match step {
            Step::Run(command) => {
                self.run(command);
            }
            Step::Try(command) => {
                let (_, success) = execute(command);
                self.round(&format!("{command}: {success}"));
                return;
            }
            Step::Sysctl(setting, value) => {
                let path = format!("/proc/sys/{setting}");
                fs::write(&path, value).unwrap_or_else(|error| panic!("write {path}: {error}"));
            }
            Step::Sysfs(setting, value) => {
                let sysfs = Sysfs::open().expect("mount sysfs");
                let path = sysfs.path(&format!("class/net/{setting}"));
                fs::write(&path, value).unwrap_or_else(|error| panic!("write {setting}: {error}"));
            }
            Step::Send { tap, from, to } => {
                self.send(*tap, *from, *to);
                self.snapshot(format!("{step:?}"));
                return;
            }
            Step::SendKind(kind, from, to) => {
                self.transmit(*from, *kind, mac(*from), mac(*to));
                self.snapshot(format!("{step:?}"));
                return;
            }
            Step::SendFromOutside { from, to } => {
                self.send_from_outside(*from, *to, format!("{step:?}"));
                return;
            }
            Step::Wait(time) => thread::sleep(*time),
            Step::SendToOneThatLostItsCarrier { from, to } => {
                self.send_to_one_that_lost_its_carrier(*from, *to);
                self.snapshot(format!("{step:?}"));
                return;
            }
            Step::Close(number) => {
                let tap = self.take(*number);
                self.idle.insert(*number, tap.close().expect("close a tap"));
                until_carrier_is_known(*number, "disabled");
            }
            Step::Open(number) => {
                let idle = self.idle.remove(number).expect("a tap that was closed");
                let tap = idle.open().expect("open a tap again");
                self.taps.insert(*number, vec![tap]);
                until_carrier_is_known(*number, "forwarding");
                // What waits was sent before.
                self.collect();
            }
            Step::Remake(number) | Step::RemakeWithQueues(number) => {
                drop(self.take(*number));
                self.make_tap(*number, matches!(step, Step::RemakeWithQueues(_)));
            }
            Step::MoveAway(number) => {
                let namespace = Namespace::anonymous().expect("another namespace");
                let file = namespace.run(|| File::open("/proc/thread-self/ns/net"));
                let file = file.expect("the namespace's file");
                let path = format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd());
                self.run(&format!("ip link set vm{number} netns {path}"));
                self.elsewhere.push(namespace);
            }
            Step::Filter(number) => tap_filter::attach(self.tap(*number)),
            Step::Unfilter(number) => tap_filter::detach(self.tap(*number)),
            Step::Listen(device) => self.sniffers.push(Sniffer::open(device)),
            Step::Unlisten => self.sniffers.clear(),
            Step::Shoot(device, side) => self.shots.push(shot::attach(index(device), *side)),
            Step::Unshoot => self.shots.clear(),
            Step::LearnAtMost(addresses) => newer::learn_at_most("br0", *addresses),
            Step::Authenticate(port, by_address) => newer::authenticate(port, *by_address),
            Step::Watch { tap, station } => newer::watch(&format!("vm{tap}"), mac(*station)),
            Step::Attach(device) => {
                if !self.testbed.fast.borrow().ports().expect("ports").is_empty() {
                    self.attach(device, HookMode::Tcx);
                }
            }
            Step::Slow => {
                self.slow = true;
                return;
            }
            Step::Uncounted => {
                self.counted = false;
                return;
            }
            Step::UntilState(port, state) => {
                let is_so = || port_state(port) == *state;
                assert!(
                    happens(LIMIT, is_so),
                    "{port} does not become {state} in {LIMIT:?}"
                );
            }
            Step::ForgetAtOnce => {
                self.run("ip link set br0 type bridge ageing_time 0");
            }
            Step::UntilForgotten { from, to } => self.until_forgotten(*from, *to),
        }
        self.round(&format!("{step:?}"));
    }

    /// A tap's first queue.
    pub fn tap(&self, number: u8) -> &Tap {
        &self.taps[&number][0]
    }

    /// How many frames went past the bridge from one tap to another, by hook.
    pub fn forwarded(&self, from: u8, to: u8) -> [u64; Hook::ALL.len()] {
        let [from, to] = [from, to].map(|number| self.tap(number).ifindex());
        let paths = self.testbed.fast.borrow().paths().expect("paths");
        let path = paths.iter().find(|(path, _)| (path.from, path.to) == (from, to));
        path.map_or_else(Default::default, |(_, counters)| {
            Hook::ALL.map(|hook| counters.via[hook as usize].frames)
        })
    }

    /// What it has been seen to do.
    pub fn finish(mut self) -> Record {
        let fast = self.testbed.fast.borrow();
        for (_, counters) in fast.paths().expect("paths") {
            for hook in Hook::ALL {
                self.record.forwarded[hook as usize] += counters.via[hook as usize].frames;
            }
        }
        for (ifindex, _) in fast.ports().expect("ports") {
            self.record.counters += fast.counters(ifindex).expect("counters");
        }
        drop(fast);
        std::mem::take(&mut self.record)
    }

    #[expect(
        clippy::unused_self,
        reason = "commands run in its namespace, where the thread is"
    )]
    fn run(&self, command: &str) {
        let (said, success) = execute(command);
        assert!(success, "{command}: {said}");
    }

    fn take(&mut self, number: u8) -> Tap {
        let mut queues = self.taps.remove(&number).expect("an open tap");
        queues.swap_remove(0)
    }

    fn make_tap(&mut self, number: u8, several_queues: bool) {
        let mut builder = Tap::builder(format!("vm{number}"));
        if several_queues {
            builder = builder.multi_queue();
        }
        let mut queues = vec![builder.open().expect("open a tap")];
        if several_queues {
            queues.push(queues[0].another_queue().expect("another queue"));
        }
        self.taps.insert(number, queues);
        self.run(&format!(
            "ip link set vm{number} address 52:54:00:00:01:0{number} master br0 up"
        ));
    }

    pub fn attach(&self, device: &str, mode: HookMode) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let links = runtime
            .block_on(async { Netlink::connect()?.links().await })
            .expect("the devices");
        let link = links.iter().find(|link| link.name == device).expect("the device");
        self.testbed
            .fast
            .borrow_mut()
            .attach(link, mode)
            .expect("attach the fast path");
    }

    fn until_forgotten(&mut self, from: u8, to: u8) {
        let deadline = Instant::now() + LIMIT;
        self.run("ip link set br0 type bridge ageing_time 200");
        let (talker, stations) = (
            text(mac(from)),
            STATIONS.map(|byte| format!("{byte:02x}:")).concat(),
        );
        let mut talked_at = None::<Instant>;
        loop {
            let entries = fdb();
            let (known, silent): (Vec<_>, Vec<_>) = entries
                .iter()
                .filter(|entry| entry.contains(&stations) && !entry.contains("permanent"))
                .partition(|entry| entry.contains(&talker));
            // The bridge has had a frame of it within a second before that, and two are what entries live. Whom a busy
            // machine keeps from talking may be forgotten.
            if talked_at.is_some_and(|at| at.elapsed() < TALKED_LATELY) {
                assert!(!known.is_empty(), "station {from} talks and is forgotten");
                if silent.is_empty() {
                    self.run("ip link set br0 type bridge ageing_time 30000");
                    return;
                }
            }
            assert!(
                Instant::now() < deadline,
                "not forgotten in {LIMIT:?}: {silent:#?}"
            );
            // How many of these there are differs, so they have no place in the record.
            let (header, frame) = traffic::frame(Kind::Partial, mac(from), mac(to), u32::MAX);
            let _ = self.taps[&from][0].send(&header, &frame);
            talked_at = Some(Instant::now());
            self.collect();
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A station sends one frame from a tap.
    fn send(&mut self, tap: u8, from: u8, to: u8) {
        let to = if to == 0 { BROADCAST } else { mac(to) };
        self.transmit(tap, Kind::Partial, mac(from), to);
    }

    fn send_from_outside(&mut self, from: u8, to: u8, what: String) {
        let number = u32::try_from(self.record.sent.len()).expect("not so many frames");
        let (_, frame) = traffic::frame(Kind::Complete, mac(from), mac(to), number);
        self.record.sent.push((self.sniffers[0].device.clone(), what));
        self.sniffers[0].send(&frame);
        self.pause();
    }

    fn send_to_one_that_lost_its_carrier(&mut self, from: u8, to: u8) {
        // The kernel tells of carriers once a second (`linkwatch_nextevent`), now of this one's.
        drop(Tap::open("other").expect("open a tap"));
        thread::sleep(Duration::from_millis(20));
        let sysfs = Sysfs::open().expect("mount sysfs");
        let carrier = sysfs.path(&format!("class/net/vm{to}/carrier"));
        fs::write(&carrier, "0").expect("take the carrier off");
        self.transmit(from, Kind::Partial, mac(from), mac(to));
        until_carrier_is_known(to, "disabled");
        fs::write(&carrier, "1").expect("give the carrier back");
        until_carrier_is_known(to, "forwarding");
    }

    fn transmit(&mut self, tap: u8, kind: Kind, from: Mac, to: Mac) {
        let number = u32::try_from(self.record.sent.len()).expect("not so many frames");
        let (header, frame) = traffic::frame(kind, from, to, number);
        let place = format!("vm{tap}");
        let Some(queues) = self.taps.get(&tap) else { return };
        let result = queues[0].send(&header, &frame).map_err(|error| error.kind());
        let what = format!("{kind:?} {} -> {}: {result:?}", text(from), text(to));
        self.record.sent.push((place, what));
        self.pause();
    }

    /// Every station sends to every other.
    fn round(&mut self, step: &str) {
        until_all_is_forgotten_at_once();
        let handed_on = if self.slow { handed_on() } else { Vec::new() };
        let turn = self.rounds;
        self.rounds += 1;
        let pairs = (1..=TAPS).flat_map(|from| (1..=TAPS).map(move |to| (from, to)));
        for (index, (from, to)) in pairs.filter(|(from, to)| from != to).enumerate() {
            let in_turn = IN_TURN[(turn + index) % IN_TURN.len()];
            for kind in ALWAYS.into_iter().chain([in_turn]) {
                self.transmit(from, kind, mac(from), mac(to));
            }
        }
        let from = 1 + u8::try_from(turn).expect("few rounds") % TAPS;
        for (source, destination) in SPECIAL {
            self.transmit(from, Kind::Complete, source.unwrap_or(mac(from)), destination);
        }
        self.transmit(from, Kind::ArpRequest, mac(from), BROADCAST);
        for from in 1..=TAPS {
            self.transmit(from, Kind::Complete, mac(from), BROADCAST);
        }
        if self.slow {
            self.settle(&handed_on, from);
        }
        self.snapshot(step.into());
    }

    /// Waits until all that the round has sent to groups has been handed on, which a worker of the kernel does when it has its
    /// turn, and nothing is counted any more. One tap has sent what is [`SPECIAL`].
    fn settle(&mut self, before: &[HandedOn], special: u8) {
        let deadline = Instant::now() + LIMIT;
        let is_group = |(_, to): &&(Option<Mac>, Mac)| to[0] & 1 == 1;
        let groups = u64::try_from(SPECIAL.iter().filter(is_group).count()).expect("some");
        for HandedOn { device, lower, count } in before {
            let sent = if lower == "br0" {
                // One of each tap to all stations, the ARP request, and one group: link-local ones stay at the port.
                u64::from(TAPS) + 2
            } else if *lower == format!("vm{special}") {
                groups + 2
            } else {
                1
            };
            let is_done = || {
                let now = handed_on();
                let now = now.iter().find(|now| now.device == *device);
                now.is_some_and(|now| now.count >= count + sent)
            };
            assert!(
                happens(LIMIT, is_done),
                "{device} does not get {sent} frames to groups from {lower} in {LIMIT:?}"
            );
        }
        let (mut before, mut quiet) = (self.counters(), 0);
        while quiet < 3 {
            assert!(Instant::now() < deadline, "frames still come after {LIMIT:?}");
            thread::sleep(Duration::from_millis(100));
            self.collect();
            let now = self.counters();
            quiet = if now == before { quiet + 1 } else { 0 };
            before = now;
        }
    }

    /// Takes what has come of the last frame.
    fn pause(&mut self) {
        if self.slow {
            thread::sleep(Duration::from_millis(1));
        }
        self.collect();
    }

    /// Notes all that has come.
    fn collect(&mut self) {
        let mut arrivals = Vec::new();
        for (number, queues) in &self.taps {
            for (index, queue) in queues.iter().enumerate() {
                let place = match queues.len() {
                    1 => format!("vm{number}"),
                    _ => format!("queue {index} of vm{number}"),
                };
                while let Some((header, frame)) = queue.receive(Duration::ZERO).expect("receive") {
                    arrivals.push((place.clone(), header, frame));
                }
            }
        }
        for sniffer in &self.sniffers {
            for (outgoing, frame) in sniffer.heard() {
                let direction = if outgoing { "out" } else { "in" };
                arrivals.push((
                    format!("a packet socket at {:?}, {direction}", sniffer.device),
                    VnetHeader::none(),
                    frame,
                ));
            }
        }
        for (place, header, frame) in arrivals {
            self.note(place, header, frame);
        }
    }

    fn note(&mut self, place: String, header: VnetHeader, frame: Vec<u8>) {
        let number = match traffic::number(&frame) {
            Some(number) if (number as usize) < self.record.sent.len() => number,
            // What the bridge answers in a station's name belongs to the last frame; what it sends itself, to none.
            None if frame[6..11] == STATIONS && frame[11] != BRIDGE[5] => {
                u32::try_from(self.record.sent.len() - 1).expect("not so many frames")
            }
            _ => return,
        };
        self.record.order.entry(place.clone()).or_default().push(number);
        let header = header.to_bytes();
        let arrival = Arrival { place, header, frame };
        self.record.arrivals.entry(number).or_default().push(arrival);
    }

    fn snapshot(&mut self, step: String) {
        self.note_overheard();
        let counters = if self.counted {
            self.counters()
        } else {
            BTreeMap::new()
        };
        let fdb = fdb();
        self.record.snapshots.push(Snapshot { step, fdb, counters });
    }
}

impl Rig<'_> {
    /// A frame that nobody takes but a packet socket counts as dropped where any program of traffic control has seen it
    /// after that (`sch_handle_ingress`). The bridge takes all that a port of its own receives.
    fn note_overheard(&mut self) {
        if self.sniffers.is_empty() {
            return;
        }
        let devices = json("ip -j link show");
        let devices = devices.as_array().into_iter().flatten();
        let alone = devices.filter(|device| device["master"].is_null());
        self.overheard
            .extend(alone.filter_map(|device| device["ifname"].as_str().map(str::to_owned)));
    }

    /// What `ip -s link` shows of each device.
    fn counters(&self) -> BTreeMap<String, Value> {
        let Value::Array(devices) = json("ip -s -j link show") else {
            panic!("no list of devices");
        };
        let paths = self.testbed.fast.borrow().paths().expect("paths");
        let counters = devices.into_iter().map(|mut device| {
            let name = device["ifname"].as_str().expect("a name").to_owned();
            let to_it = paths.iter().filter(|(path, _)| device["ifindex"] == path.to);
            let native: u64 = to_it
                .map(|(_, counters)| counters.via[Hook::Xdp as usize].frames)
                .sum();
            let mut counters = device["stats64"].take();
            // Of a native frame a tap counts the header too that its reader gets (`tun_put_user_xdp`).
            let bytes = counters["tx"]["bytes"].as_u64().expect("bytes");
            counters["tx"]["bytes"] = (bytes - HEADER * native).into();
            if self.overheard.contains(&name) {
                counters["rx"]["dropped"] = Value::Null;
            }
            (name, counters)
        });
        counters.collect()
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        let mut fast = self.testbed.fast.borrow_mut();
        for (ifindex, _) in fast.ports().into_iter().flatten() {
            let _ = fast.detach(ifindex);
        }
        self.sniffers.clear();
        self.shots.clear();
        self.taps.clear();
        self.idle.clear();
        for device in json("ip -j link show").as_array().into_iter().flatten() {
            let name = device["ifname"].as_str().unwrap_or_default();
            if name != "lo" {
                execute(&format!("ip link delete {name}"));
            }
        }
        execute("nft flush ruleset");
    }
}

/// What a macvlan that is up has got from the device that it lies on.
struct HandedOn {
    device: String,
    lower: String,
    /// Frames to groups, all stations included.
    count: u64,
}

fn handed_on() -> Vec<HandedOn> {
    let mut found = Vec::new();
    for kind in ["macvlan", "macvtap"] {
        let devices = json(&format!("ip -s -j link show up type {kind}"));
        for device in devices.as_array().into_iter().flatten() {
            // An empty object stands for every device of another kind.
            if let (Some(name), Some(lower)) = (device["ifname"].as_str(), device["link"].as_str()) {
                found.push(HandedOn {
                    device: name.to_owned(),
                    lower: lower.to_owned(),
                    count: device["stats64"]["rx"]["multicast"].as_u64().expect("a number"),
                });
            }
        }
    }
    found
}

/// Runs a command: what it said, and whether it succeeded.
fn execute(words: &str) -> (String, bool) {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    let output = run(command);
    (output.to_string(), output.status.success())
}

fn json(words: &str) -> Value {
    let mut words = words.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    run(command).json()
}

/// The entries of all databases, without their ages.
fn fdb() -> Vec<String> {
    let Value::Array(mut entries) = json("bridge -s -j fdb show") else {
        panic!("no list of entries");
    };
    let mut entries: Vec<_> = entries
        .iter_mut()
        .map(|entry| {
            let members = entry.as_object_mut().expect("an entry");
            members.remove("used");
            members.remove("updated");
            entry.to_string()
        })
        .collect();
    entries.sort();
    entries
}

/// Whether an entry ages. One whose time is over has a state until it is deleted (`fdb_to_nud`).
fn is_learned(entry: &str) -> bool {
    let entry: Value = serde_json::from_str(entry).expect("an entry");
    let flags = entry["flags"].as_array().into_iter().flatten();
    (entry["state"] == "" || entry["state"] == "stale")
        && entry["master"] != Value::Null
        && !flags.into_iter().any(|flag| flag == "extern_learn")
}

/// Where entries age at once the bridge deletes them some time later (`br_fdb_cleanup`), those that a command has added too.
fn until_all_is_forgotten_at_once() {
    let sysfs = Sysfs::open().expect("mount sysfs");
    let ageing = fs::read_to_string(sysfs.path("class/net/br0/bridge/ageing_time"));
    if ageing.is_ok_and(|time| time.trim() == "0") {
        let forgotten = || !fdb().iter().any(|entry| is_learned(entry));
        assert!(happens(LIMIT, forgotten), "{:?} in {LIMIT:?}", fdb());
    }
}

/// The bridge is told of a carrier some time later (`linkwatch_event`).
fn until_carrier_is_known(number: u8, state: &str) {
    let is_known = || port_state(&format!("vm{number}")) == state;
    assert!(happens(LIMIT, is_known), "vm{number} is not {state} in {LIMIT:?}");
}

fn port_state(port: &str) -> String {
    let ports = json(&format!("bridge -j link show dev {port}"));
    ports[0]["state"].as_str().unwrap_or_default().to_owned()
}
