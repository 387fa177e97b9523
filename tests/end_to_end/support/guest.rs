//! Guests with a real TCP stack: network namespaces whose card is the other end of a frame pump.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use lab::{Namespace, Offloads, Tap, pump};

use super::{program::ip, random::Random};

/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_mins(1);

/// A network namespace with an address.
pub struct Guest {
    station: u8,
    namespace: Namespace,
    /// Its network card, which the pump holds; none if the guest is the host itself.
    card: Option<Tap>,
}

/// A transport family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// What a guest's TCP has counted (`/proc/net/snmp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Losses {
    pub retransmitted: u64,
    pub bad_checksums: u64,
}

impl Guest {
    /// A guest whose card takes and leaves as much as the offloads say.
    pub fn new(station: u8, offloads: Offloads) -> Self {
        let namespace = Namespace::anonymous().expect("a namespace");
        let card = namespace.run(|| {
            let card = Tap::builder("g0").offloads(offloads).open().expect("open a tap");
            ip(&format!("address add 10.0.0.{station}/24 dev g0"));
            ip(&format!("address add fd00::{station}/64 dev g0 nodad"));
            card.up().expect("g0 up");
            card
        });
        Self {
            station,
            namespace,
            card: Some(card),
        }
    }

    /// The calling thread's own namespace, whose address is that of a station.
    pub fn host(station: u8) -> Self {
        Self {
            station,
            namespace: Namespace::current().expect("the own namespace"),
            card: None,
        }
    }

    fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 0, 0, self.station).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.station.into()).into(),
        }
    }

    pub fn losses(&self) -> Losses {
        let text = self
            .namespace
            .run(|| fs::read_to_string("/proc/thread-self/net/snmp"))
            .expect("read snmp");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let value = |wanted| {
            let mut pairs = names.split(' ').zip(values.split(' '));
            let found = pairs
                .find(|(name, _)| *name == wanted)
                .expect("a counter of TCP")
                .1;
            found.parse().expect("a number")
        };
        Losses {
            retransmitted: value("RetransSegs"),
            bad_checksums: value("InCsumErrors"),
        }
    }

    /// A connection to another guest; the other guest's end of it comes second.
    #[track_caller]
    pub fn connect(&self, other: &Self, family: Family) -> (TcpStream, TcpStream) {
        let address = other.address(family);
        let listener = other
            .namespace
            .run(|| TcpListener::bind((address, 0)))
            .expect("listen");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let here = self
            .namespace
            .run(|| TcpStream::connect_timeout(&address, PATIENCE))
            .expect("connect");
        let (there, _) = listener.accept().expect("accept");
        for end in [&here, &there] {
            end.set_nodelay(true).expect("set an option");
            end.set_read_timeout(Some(PATIENCE)).expect("set an option");
            end.set_write_timeout(Some(PATIENCE)).expect("set an option");
        }
        (here, there)
    }
}

/// Pumps frames between taps of the switch and guests' cards while something is done.
pub fn pumped<T>(pairs: &[(&Tap, &Guest)], work: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (tap, guest) in pairs {
            let (stop, card) = (&stop, guest.card.as_ref().expect("a guest with a card"));
            scope.spawn(move || {
                pump::run(tap, card, || stop.load(Ordering::Relaxed)).expect("both taps are there")
            });
        }
        // Also when `work` panics: the scope waits for the pumps.
        let _stopped = Stop(&stop);
        work()
    })
}

struct Stop<'flag>(&'flag AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const BLOCK: usize = 1 << 16;
/// Bytes that go each way.
pub const BYTES: usize = 320 * BLOCK;

/// Sends [`BYTES`] each way at once over a connection, and checks each of them.
#[track_caller]
pub fn transfer_both_ways((here, there): (TcpStream, TcpStream)) {
    thread::scope(|scope| {
        let ends = [(&here, 1), (&there, 2)];
        let writers = ends.map(|(stream, origin)| scope.spawn(move || write_all(stream, origin)));
        let readers =
            [(&here, 2), (&there, 1)].map(|(stream, origin)| scope.spawn(move || check_all(stream, origin)));
        for thread in writers.into_iter().chain(readers) {
            thread.join().expect("every byte arrives as it was sent");
        }
    });
}

/// Blocks that differ from one another: pieces of the same random bytes, each from another place.
struct Blocks {
    bytes: Vec<u8>,
    places: Random,
}

impl Blocks {
    fn new(origin: u64) -> Self {
        let mut random = Random::new(0);
        let words = std::iter::repeat_with(|| random.number().to_le_bytes());
        Self {
            bytes: words.take(2 * BLOCK / 8).flatten().collect(),
            places: Random::new(origin),
        }
    }

    fn next(&mut self) -> &[u8] {
        &self.bytes[self.places.below(BLOCK)..][..BLOCK]
    }
}

fn write_all(mut stream: &TcpStream, origin: u64) {
    let mut blocks = Blocks::new(origin);
    for _ in 0..BYTES / BLOCK {
        stream.write_all(blocks.next()).expect("send");
    }
    stream.shutdown(Shutdown::Write).expect("shut down");
}

fn check_all(mut stream: &TcpStream, origin: u64) {
    let mut blocks = Blocks::new(origin);
    let mut received = vec![0; BLOCK];
    for index in 0..BYTES / BLOCK {
        stream
            .read_exact(&mut received)
            .unwrap_or_else(|error| panic!("block {index}: {error}"));
        assert!(received == blocks.next(), "block {index} is not what was sent");
    }
    assert_eq!(
        stream.read(&mut received).expect("receive"),
        0,
        "nothing after the last byte"
    );
}

/// Questions and answers of 64 bytes each.
pub fn ping_pong((here, there): &(TcpStream, TcpStream), rounds: usize) {
    let mut buffer = [0; 64];
    for round in 0..rounds {
        let message = [u8::try_from(round % 251).expect("a small number"); 64];
        for (mut from, mut to) in [(here, there), (there, here)] {
            from.write_all(&message).expect("send");
            to.read_exact(&mut buffer).expect("receive");
            assert_eq!(buffer, message, "round {round}");
        }
    }
}
