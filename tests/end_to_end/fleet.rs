//! A fleet: hosts whose bridges are one network over VXLAN, with BGP EVPN (FRR) that tells each where the others' guests
//! are. It lives the same life twice, with br0 of every host left alone and with all its ports attached. What can be seen
//! of it must be the same; with them attached, frames between hosts go past the bridges.
//!
//! The hosts are network namespaces around an underlay, which is a bridge in one of its own.

mod host;
mod routing;

use std::{
    collections::BTreeSet,
    fs::Permissions,
    mem,
    os::unix::fs::PermissionsExt as _,
    panic,
    process::{Child, Stdio},
    sync::mpsc::Receiver,
    thread,
    time::{Duration, Instant},
};

use lab::{Namespace, Tap, netns};
use tempfile::TempDir;

use self::host::{GUEST_PORT, Host, Place, TUNNEL};
use crate::support::{
    frames::{Flow, Mac, arp_request, hello, mac, text},
    guest::{Family, transfer_both_ways},
    program::{LIMIT, ip, lines},
    wire::send,
};

pub use self::routing::lacking;

crate::tests![a_fleet_lives_as_without_the_fast_path];

const HOSTS: u8 = 3;
const MOVES: u64 = 10;
/// Frames of an exchange each way: fewer than a tap's ring holds.
const FRAMES: u64 = 50;
/// Echo requests of a ping.
const PINGS: u64 = 3;
/// How long a bridge remembers a station that is silent, where that is to be seen.
const AGEING: Duration = Duration::from_secs(3);

/// A station that a tap's holder plays. Stations 1 to 3 are guests with a network stack, each on the host of its number.
#[derive(Clone, Copy)]
struct Station {
    number: u8,
    host: u8,
    tap: usize,
}

impl Station {
    const fn new(number: u8, host: u8, tap: usize) -> Self {
        Self { number, host, tap }
    }

    const fn mac(self) -> Mac {
        mac(self.number)
    }
}

/// Goes from host 1 to host 2 and back.
const MOVER: Station = Station::new(11, 1, 0);
/// Talks to it.
const FRIEND: Station = Station::new(12, 3, 0);
const LISTENER: Station = Station::new(13, 1, 1);
/// Sends to the listener all the time.
const STREAMER: Station = Station::new(14, 2, 1);
const SILENT: Station = Station::new(15, 2, 1);

/// What was seen, in the order in which it happened.
type Record = Vec<(String, String)>;

fn a_fleet_lives_as_without_the_fast_path() {
    let [alone, accelerated] = thread::scope(|scope| {
        let runs = [false, true].map(|accelerated| scope.spawn(move || Fleet::new(accelerated).live()));
        runs.map(|run| run.join().unwrap_or_else(|problem| panic::resume_unwind(problem)))
    });
    for (alone, accelerated) in alone.iter().zip(&accelerated) {
        assert_eq!(alone, accelerated, "without (left) and with the fast path");
    }
    assert_eq!(alone.len(), accelerated.len());
}

/// The hosts, and the network between them.
struct Fleet {
    accelerated: bool,
    hosts: Vec<Host>,
    underlay: Namespace,
    /// Frames that were numbered so far.
    numbered: u64,
    record: Record,
    /// Of the daemons.
    _folder: TempDir,
}

impl Fleet {
    fn new(accelerated: bool) -> Self {
        // They are not root's.
        let readable = Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new()
            .prefix("tbfleet-")
            .permissions(readable)
            .tempdir();
        let folder = folder.expect("make a folder");
        let underlay = Namespace::anonymous().expect("a network");
        underlay.run(|| {
            netns::disable_ipv6().expect("a quiet namespace");
            ip("link add br0 mtu 1600 up type bridge mcast_snooping 0");
        });
        let mut hosts: Vec<_> = (1..=HOSTS)
            .map(|number| Host::new(number, HOSTS, &underlay, folder.path()))
            .collect();
        hosts.iter_mut().for_each(Host::start);
        if accelerated {
            attach(&hosts);
        }
        Self {
            accelerated,
            hosts,
            underlay,
            numbered: 0,
            record: Record::new(),
            _folder: folder,
        }
    }

    fn live(mut self) -> Record {
        self.meet();
        self.talk();
        self.move_a_guest();
        self.forget_who_is_silent();
        self.have_a_gateway_on_one_bridge();
        self.lose_a_host_for_a_while();
        if self.accelerated {
            for host in &self.hosts {
                assert_eq!(host.stats().frames("t0", TUNNEL).0, 0, "no target of XDP");
                host.tapbridge("detach --master br0");
            }
            self.exchange(MOVER, FRIEND);
        }
        mem::take(&mut self.record)
    }

    /// Every host hears of every other, and of the stations there, as soon as these say something.
    fn meet(&mut self) {
        for host in &self.hosts {
            host.wait_to_flood(&others(&[host.number]));
        }
        for station in [MOVER, FRIEND, LISTENER, STREAMER, SILENT] {
            let hello = hello(station.number);
            send(self.tap(station), &hello);
            for host in &self.hosts {
                for (index, tap) in host.taps.iter().enumerate() {
                    if (host.number, index) != (station.host, station.tap) {
                        wait_for(tap, |frame| frame == hello);
                    }
                }
            }
            self.wait_to_know(station);
        }
        for (from, to) in [(1, 2), (1, 3), (2, 3)] {
            self.ping(from, &format!("10.0.0.{to}"));
        }
        for number in 1..=HOSTS {
            self.wait_to_know_at(mac(number), number, Place::Port(GUEST_PORT));
        }
        let stations =
            (1..=HOSTS).chain([MOVER, FRIEND, LISTENER, STREAMER, SILENT].map(|station| station.number));
        for station in stations {
            self.note_place("met", mac(station));
        }
    }

    /// Guests on two hosts talk by TCP. Only `ICMPv6` is the bridges' because of `neigh_suppress`, no other IPv6.
    fn talk(&mut self) {
        self.ping(1, "fd00::2");
        for family in [Family::V4, Family::V6] {
            let before = self.counts(1, GUEST_PORT);
            let [first, second, ..] = &self.hosts[..] else {
                panic!("two hosts");
            };
            transfer_both_ways(first.guest.connect(&second.guest, family));
            let Some([before, after]) = before.zip(self.counts(1, GUEST_PORT)).map(<[_; 2]>::from) else {
                continue;
            };
            let (crossed, left) = (after.crossed - before.crossed, after.left - before.left);
            assert!(
                crossed > 10 * left,
                "{family:?}: {crossed} past the bridge, {left} left to it"
            );
        }
        if self.accelerated {
            // Echo requests one way, replies the other.
            for (host, port) in [(1, GUEST_PORT), (2, GUEST_PORT), (1, TUNNEL), (2, TUNNEL)] {
                let stats = self.host(host).stats();
                let left = stats.port(port).left_by_reason["neigh_suppress"];
                assert!(left >= PINGS, "{port} of host {host}: {stats:#?}");
            }
        }
    }

    /// A guest goes to the other host and back, in the middle of a conversation.
    fn move_a_guest(&mut self) {
        let mut mover = MOVER;
        for turn in 1..=MOVES {
            let old = mover;
            mover.host = 3 - mover.host;
            // What it sends first is a broadcast, as most systems do, or just the next frame of the conversation.
            if turn % 2 == 1 {
                send(self.tap(mover), &arp_request(mover.number, FRIEND.number));
            }
            let deadline = Instant::now() + LIMIT;
            let first = self.numbered;
            let mut arrivals: Vec<(u8, u64)> = Vec::new();
            while !arrivals.iter().any(|(host, _)| *host == mover.host) {
                assert!(
                    Instant::now() < deadline,
                    "move {turn} to host {}: nothing came there in {LIMIT:?}",
                    mover.host
                );
                self.send_numbered(FRIEND, mover);
                self.send_numbered(mover, FRIEND);
                for place in [old, mover, FRIEND] {
                    self.collect(place, &mut arrivals);
                }
                thread::sleep(Duration::from_millis(1));
            }
            self.wait_to_know(mover);
            for place in [old, mover, FRIEND] {
                self.collect(place, &mut arrivals);
            }
            for number in first..self.numbered {
                let times = arrivals.iter().filter(|(_, arrived)| *arrived == number).count();
                assert!(
                    times <= 1,
                    "move {turn}: frame {number} arrived {times} times: {arrivals:?}"
                );
            }
            self.exchange(mover, FRIEND);
            let nothing = self
                .tap(old)
                .receive_where(Duration::ZERO, |_, frame| number(frame).is_some());
            assert!(
                nothing.expect("receive").is_none(),
                "move {turn}: host {} still gets frames",
                old.host
            );
            self.note_place(&format!("move {turn}"), mover.mac());
            for host in &self.hosts {
                let sequence = host.routing().sequence(&text(mover.mac()));
                self.record.push((
                    format!(
                        "move {turn}: sequence numbers at host {}, local and remote",
                        host.number
                    ),
                    format!("{sequence:?}"),
                ));
                assert!(
                    sequence.iter().any(|number| *number == turn),
                    "move {turn}: {sequence:?}"
                );
            }
        }
        assert_eq!(mover.host, MOVER.host);
        if self.accelerated {
            for (host, from, to) in [
                (3, "t0", TUNNEL),
                (3, TUNNEL, "t0"),
                (1, "t0", TUNNEL),
                (1, TUNNEL, "t0"),
                (2, "t0", TUNNEL),
                (2, TUNNEL, "t0"),
            ] {
                let stats = self.host(host).stats();
                let (_, tcx) = stats.frames(from, to);
                assert!(tcx >= FRAMES, "host {host}, {from} to {to}: {stats:#?}");
            }
        }
    }

    /// A bridge forgets who is silent, and the others with it; who goes on sending it does not forget for a moment, though it
    /// sees few of the frames. (That moment the others need not hear of.)
    fn forget_who_is_silent(&mut self) {
        let watches = [LISTENER, STREAMER].map(|station| Watch::new(self.host(station.host)));
        let mut gone = BTreeSet::new();
        let started = Instant::now();
        while !self.stream(&watches, &mut gone) {
            assert!(
                started.elapsed() < LIMIT,
                "the machine lets nobody send all the time, for {LIMIT:?}"
            );
        }
        assert!(
            gone.iter().all(|(_, gone)| *gone != text(STREAMER.mac())),
            "{gone:?}"
        );
        for host in &self.hosts {
            host.wait_to_forget(SILENT.mac());
        }
        for station in [SILENT, STREAMER] {
            self.note_place("silence", station.mac());
        }
        if let Some(counts) = self.counts(STREAMER.host, "t1") {
            assert!(counts.crossed > counts.left, "{counts:?}");
        }
    }

    /// With a short ageing time the streamer sends for some time, and until the silent one is gone. Whether it was never
    /// silent itself for long: other work on the machine may have kept it from sending.
    fn stream(&mut self, watches: &[Watch], gone: &mut BTreeSet<(u8, String)>) -> bool {
        let is_gone = (LISTENER.host, text(SILENT.mac()));
        let mut last = Instant::now();
        let mut longest = Duration::ZERO;
        // It may have been silent, or forgotten, before.
        self.send_numbered(STREAMER, LISTENER);
        self.wait_to_know(STREAMER);
        gone.extend(watches.iter().flat_map(Watch::gone));
        gone.retain(|(_, gone)| *gone != text(STREAMER.mac()));
        self.set_ageing_time(STREAMER.host, AGEING);
        let begin = Instant::now();
        while begin.elapsed() < 2 * AGEING || !gone.contains(&is_gone) {
            assert!(
                begin.elapsed() < LIMIT,
                "{} is not gone in {LIMIT:?}",
                text(SILENT.mac())
            );
            self.send_numbered(STREAMER, LISTENER);
            longest = longest.max(last.elapsed());
            last = Instant::now();
            self.collect(LISTENER, &mut Vec::new());
            gone.extend(watches.iter().flat_map(Watch::gone));
            thread::sleep(Duration::from_millis(5));
        }
        self.set_ageing_time(STREAMER.host, Duration::from_mins(5));
        longest = longest.max(last.elapsed());
        // The bridge sees it once in a quarter of the ageing time.
        longest < AGEING / 2
    }

    fn set_ageing_time(&self, host: u8, time: Duration) {
        let hundredths = time.as_millis() / 10;
        self.host(host)
            .ip(&format!("link set br0 type bridge ageing_time {hundredths}"));
    }

    /// A gateway of the same address on every host is a macvlan on br0, which makes br0 promiscuous: it gets all frames, so
    /// none goes past it.
    fn have_a_gateway_on_one_bridge(&mut self) {
        let host = FRIEND.host;
        let before = self.counts(host, "t0");
        self.host(host)
            .ip("link add gateway0 up link br0 address 02:00:00:00:00:fe type macvlan mode private");
        self.exchange(FRIEND, MOVER);
        if let Some(before) = before {
            let after = self.counts(host, "t0").expect("counters");
            assert_eq!(
                (after.crossed, after.left),
                (before.crossed, before.left + FRAMES)
            );
            let stats = self.host(host).stats();
            for port in ["t0", TUNNEL] {
                assert_eq!(
                    stats.port(port).left_by_reason["promiscuous"],
                    FRAMES,
                    "{stats:#?}"
                );
            }
            let shown = self.host(host).tapbridge("show");
            assert!(shown.contains("promiscuous"), "{shown}");
        }
        self.host(host).ip("link delete gateway0");
        self.exchange(FRIEND, MOVER);
        if let Some(before) = before {
            let after = self.counts(host, "t0").expect("counters");
            assert!(after.crossed > before.crossed, "{after:?} after {before:?}");
        }
    }

    /// A host dies without a word and comes back.
    fn lose_a_host_for_a_while(&mut self) {
        let lost = FRIEND.host;
        self.hosts[usize::from(lost) - 1].kill(&self.underlay);
        let guest = mac(lost);
        for host in self.hosts.iter().filter(|host| host.number != lost) {
            host.wait_to_flood(&others(&[host.number, lost]));
            host.wait_to_forget(FRIEND.mac());
            host.wait_to_forget(guest);
        }
        // Nobody knows where it is.
        let lost_frame = Flow::udp(LISTENER.number, FRIEND.number).frame(b"are you there?");
        send(self.tap(LISTENER), &lost_frame);
        for station in [MOVER, STREAMER] {
            wait_for(self.tap(station), |frame| frame == lost_frame);
        }
        let host = &mut self.hosts[usize::from(lost) - 1];
        host.connect(&self.underlay, true);
        host.start();
        for host in &self.hosts {
            host.wait_to_flood(&others(&[host.number]));
        }
        self.wait_to_know(FRIEND);
        self.wait_to_know_at(guest, lost, Place::Port(GUEST_PORT));
        self.wait_to_know(MOVER);
        self.exchange(MOVER, FRIEND);
        self.exchange(LISTENER, FRIEND);
        self.ping(1, &format!("10.0.0.{lost}"));
        for station in [FRIEND.mac(), MOVER.mac(), guest] {
            self.note_place("back", station);
        }
    }

    fn host(&self, number: u8) -> &Host {
        &self.hosts[usize::from(number) - 1]
    }

    fn tap(&self, station: Station) -> &Tap {
        &self.host(station.host).taps[station.tap]
    }

    #[track_caller]
    fn wait_to_know(&self, station: Station) {
        let port = ["t0", "t1"][station.tap];
        self.wait_to_know_at(station.mac(), station.host, Place::Port(port));
    }

    /// Waits until all hosts know where a station is.
    #[track_caller]
    fn wait_to_know_at(&self, station: Mac, number: u8, port: Place) {
        for host in &self.hosts {
            let place = if host.number == number {
                port
            } else {
                Place::Host(number)
            };
            host.wait_to_know(station, place);
        }
    }

    /// Notes what the databases of all hosts have of a station.
    fn note_place(&mut self, when: &str, station: Mac) {
        for host in &self.hosts {
            let what = format!("{when}: {} at host {}", text(station), host.number);
            self.record.push((what, format!("{:#?}", host.entries(station))));
        }
    }

    /// A guest's echo requests are all answered.
    #[track_caller]
    fn ping(&self, from: u8, to: &str) {
        let said = self
            .host(from)
            .run_in_guest("busybox", &format!("ping -c {PINGS} -i 0.1 -W 30 {to}"))
            .success();
        assert!(said.contains(" 0% packet loss"), "{said}");
        assert!(!said.contains("DUP"), "{said}");
    }

    /// Sends a frame whose number no other has.
    fn send_numbered(&mut self, from: Station, to: Station) {
        let frame = Flow::udp(from.number, to.number).frame(&self.numbered.to_be_bytes());
        send(self.tap(from), &frame);
        self.numbered += 1;
    }

    /// Takes what has come: to which host, and which frame.
    fn collect(&self, place: Station, arrivals: &mut Vec<(u8, u64)>) {
        while let Some((_, frame)) = self.tap(place).receive(Duration::ZERO).expect("receive") {
            arrivals.extend(number(&frame).map(|number| (place.host, number)));
        }
    }

    /// Frames go each way between two stations; each arrives once, and in order.
    #[track_caller]
    fn exchange(&mut self, one: Station, other: Station) {
        for (from, to) in [(one, other), (other, one)] {
            self.collect(to, &mut Vec::new());
            let first = self.numbered;
            for _ in 0..FRAMES {
                self.send_numbered(from, to);
            }
            for expected in first..self.numbered {
                let frame = wait_for(self.tap(to), |frame| number(frame).is_some());
                assert_eq!(number(&frame), Some(expected));
            }
        }
    }

    /// What a host's port has counted, if it is attached.
    fn counts(&self, host: u8, port: &str) -> Option<Counts> {
        self.accelerated.then(|| {
            let stats = self.host(host).stats();
            stats.assert_conservation();
            Counts {
                crossed: stats.frames(port, TUNNEL).1,
                left: stats.port(port).left.frames,
            }
        })
    }
}

/// Frames of a port that went into the tunnel past the bridge, and that were left to the bridge.
#[derive(Clone, Copy, Debug)]
struct Counts {
    crossed: u64,
    left: u64,
}

/// All hosts but some.
fn others(some: &[u8]) -> Vec<u8> {
    (1..=HOSTS).filter(|host| !some.contains(host)).collect()
}

/// Attaches every port of every host's bridge.
fn attach(hosts: &[Host]) {
    thread::scope(|scope| {
        for host in hosts {
            scope.spawn(|| {
                let told = host.tapbridge("attach --master br0");
                for attached in [
                    "t0: attached to br0 (xdp + tcx, auto)\n",
                    "t1: attached to br0 (xdp + tcx, auto)\n",
                    "vxlan100: attached to br0 (tcx)",
                    "g0: attached to br0 (tcx)",
                ] {
                    assert!(told.contains(attached), "no {attached:?} in {told}");
                }
            });
        }
    });
}

/// The number of a frame that has one: addresses of two stations, UDP over IPv4, and nothing but the number.
fn number(frame: &[u8]) -> Option<u64> {
    const HEADERS: usize = 42;
    let number = frame.get(HEADERS..)?.try_into().ok()?;
    Some(u64::from_be_bytes(number))
}

/// Waits for a frame; others before it are of no interest.
#[track_caller]
fn wait_for(tap: &Tap, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let received = tap
        .receive_where(LIMIT, |_, frame| wanted(frame))
        .expect("receive");
    let (_, frame) = received.unwrap_or_else(|| panic!("{}: no such frame in {LIMIT:?}", tap.name()));
    frame
}

/// Hears which addresses a host forgets.
struct Watch {
    host: u8,
    monitor: Child,
    said: Receiver<String>,
}

impl Watch {
    fn new(host: &Host) -> Self {
        let mut monitor = host.command("bridge");
        monitor.args(["monitor", "fdb"]).stdout(Stdio::piped());
        let mut monitor = monitor.spawn().expect("start bridge");
        let said = lines(monitor.stdout.take());
        let watch = Self {
            host: host.number,
            monitor,
            said,
        };
        let deadline = Instant::now() + LIMIT;
        // It does not say when it begins to listen. The other hosts hear of this address too.
        let probe = format!("02:00:00:00:01:{:02x}", host.number);
        while watch.said.try_recv().is_err() {
            assert!(Instant::now() < deadline, "bridge monitor: nothing in {LIMIT:?}");
            for action in ["add", "delete"] {
                host.bridge(&format!("fdb {action} {probe} dev t1 master static"));
            }
        }
        watch
    }

    /// The addresses that are gone since it was asked last, and from which host.
    fn gone(&self) -> impl Iterator<Item = (u8, String)> {
        let gone = |line: String| {
            Some(
                line.strip_prefix("Deleted ")?
                    .split_whitespace()
                    .next()?
                    .to_owned(),
            )
        };
        let gone = self.said.try_iter().filter_map(gone);
        gone.map(|address| (self.host, address))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}
