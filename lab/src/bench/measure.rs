//! One turn: a datapath does one thing for a moment.

use std::{
    os::fd::BorrowedFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    case::{Case, Work},
    frame::{BROADCAST, Frame, FrameKind, HOST, Mac, SHORTEST, UNKNOWN, station},
    io::write,
    results::Sample,
    testbed::{BUFFER, BenchTestbed, receive},
    threads,
};
use crate::host::{
    cpus::{self, stay_on},
    process,
};

/// Of a long segment in a [`Work::Mix`].
const ACKS: usize = 2;

/// Has the testbed do what the case is about.
pub fn measure(testbed: &BenchTestbed, case: &Case, turn: Duration) -> Result<Sample> {
    match case.work {
        Work::WriteRead(kind) => one_thread(testbed, case, turn, &mut Stream::one(kind)),
        Work::Spread(flows) => one_thread(
            testbed,
            case,
            turn,
            &mut Stream::spread(flows, case.topology.addresses()),
        ),
        Work::Destinations(flows) => {
            let mut stream = Stream::spread(flows, case.topology.addresses());
            stream.one_sender = true;
            one_thread(testbed, case, turn, &mut stream)
        }
        Work::Unknown => one_thread(testbed, case, turn, &mut Stream::to(UNKNOWN, 1)),
        Work::Host => one_thread(testbed, case, turn, &mut Stream::to(HOST, 0)),
        Work::ThereAndBack => one_thread(testbed, case, turn, &mut Stream::there_and_back()),
        Work::Mix => one_thread(testbed, case, turn, &mut Stream::mix()),
        Work::Flood => one_thread(testbed, case, turn, &mut Stream::flood(case.topology.ports())),
        Work::RoundTrip => threads::round_trip(testbed, turn),
        Work::OneWay => threads::run(testbed, threads::ONE_WAY, turn),
        Work::BothWays => threads::run(testbed, threads::BOTH_WAYS, turn),
        Work::Senders(number) => threads::senders(testbed, number, turn),
        Work::Beside { learning } => beside(testbed, case, turn, learning),
        Work::Steady { read } => steady(testbed, case, turn, read),
    }
}

/// Frames from the first port, who gets them, and what these answer.
struct Stream {
    frame: Frame,
    /// What the second port sends for each of them and the first one reads.
    answers: Vec<Frame>,
    /// Pairs of stations, which take turns; with one the frame stays as it is.
    flows: usize,
    /// Behind each port.
    addresses: usize,
    next: usize,
    /// Whether all flows are the same station's.
    one_sender: bool,
    /// The ports behind the first that read it.
    readers: usize,
}

impl Stream {
    fn one(kind: FrameKind) -> Self {
        Self {
            frame: Frame::new(kind, station(0, 0), station(1, 0)),
            answers: Vec::new(),
            flows: 1,
            addresses: 1,
            next: 0,
            one_sender: false,
            readers: 1,
        }
    }

    fn spread(flows: usize, addresses: usize) -> Self {
        Self {
            flows,
            addresses,
            ..Self::one(FrameKind::Complete(SHORTEST))
        }
    }

    /// What TCP sends in bulk, and what comes back for it.
    fn mix() -> Self {
        let ack = Frame::new(FrameKind::Ack, station(1, 0), station(0, 0));
        Self {
            answers: vec![ack; ACKS],
            ..Self::one(FrameKind::Tso4)
        }
    }

    fn there_and_back() -> Self {
        let kind = FrameKind::Complete(SHORTEST);
        Self {
            answers: vec![Frame::new(kind, station(1, 0), station(0, 0))],
            ..Self::one(kind)
        }
    }

    fn flood(ports: usize) -> Self {
        Self::to(BROADCAST, ports - 1)
    }

    fn to(destination: Mac, readers: usize) -> Self {
        Self {
            frame: Frame::new(FrameKind::Complete(SHORTEST), station(0, 0), destination),
            readers,
            ..Self::one(FrameKind::Complete(SHORTEST))
        }
    }

    /// That are written in a step.
    fn frames(&self) -> usize {
        1 + self.answers.len()
    }

    /// Goes through the flows, whose addresses lie far apart.
    fn advance(&mut self) {
        if self.flows > 1 {
            self.next = (self.next + 1) % self.flows;
            let from = self.next * 20_011 % self.addresses;
            let to = (from + self.addresses / 2) % self.addresses;
            let from = if self.one_sender { 0 } else { from };
            self.frame.address(station(0, from), station(1, to));
        }
    }
}

/// The value is the lower quartile of the batches: what disturbs the machine makes some of them longer, and none
/// shorter.
fn one_thread(testbed: &BenchTestbed, case: &Case, turn: Duration, stream: &mut Stream) -> Result<Sample> {
    let (mut batches, lost) = write_and_read(testbed, case.batch(), turn, stream)?;
    let value = nanoseconds(lower_quartile(&mut batches), case.batch());
    let written = batches.len() * case.batch() * stream.frames();
    Ok(turned(value, written, lost))
}

/// Writes and reads while a neighbour sends, each on a CPU of its own where there are two.
fn beside(testbed: &BenchTestbed, case: &Case, turn: Duration, learning: bool) -> Result<Sample> {
    let cpus = cpus::allowed()?;
    let (own, other) = (cpus[0], cpus[cpus.len() - 1]);
    let stop = &AtomicBool::new(false);
    let turn = thread::scope(|scope| {
        let sending =
            scope.spawn(move || stay_on(other).and_then(|()| threads::send(testbed, learning, stop)));
        let measuring = scope.spawn(move || {
            stay_on(own)?;
            one_thread(
                testbed,
                case,
                turn,
                &mut Stream::one(FrameKind::Complete(SHORTEST)),
            )
        });
        let turn = measuring.join().expect("no panic");
        stop.store(true, Ordering::Relaxed);
        sending.join().expect("no panic")?;
        turn
    })?;
    // What was learned is not to be there when others have their turns.
    testbed.forget(threads::NEIGHBOUR)?;
    Ok(turn)
}

/// Writes and reads for long enough that the statistics can be read meanwhile. The value is the mean, since reading
/// disturbs few batches, if any.
fn steady(testbed: &BenchTestbed, case: &Case, turn: Duration, read: bool) -> Result<Sample> {
    let mut stream = Stream::one(FrameKind::Complete(SHORTEST));
    thread::scope(|scope| {
        let reading = read.then(|| {
            scope.spawn(|| {
                let mut stats = testbed.tapbridge()?;
                stats.args(["stats", "-j"]);
                process::call(stats)
            })
        });
        let measured = write_and_read(testbed, case.batch(), turn, &mut stream);
        if let Some(reading) = reading {
            reading
                .join()
                .expect("no panic")
                .context("reading the statistics")?;
        }
        let (batches, lost) = measured?;
        let written = batches.len() * case.batch();
        let value = nanoseconds(batches.iter().sum(), written);
        Ok(turned(value, written, lost))
    })
}

fn turned(value: f64, frames: usize, lost: u64) -> Sample {
    Sample {
        values: vec![value],
        frames: frames as u64,
        lost,
    }
}

/// Writes a frame and reads it, then its answers, again and again, as the two VMMs would. Returns how long each batch
/// took, and how many copies were not there to be read.
fn write_and_read(
    testbed: &BenchTestbed,
    batch: usize,
    turn: Duration,
    stream: &mut Stream,
) -> Result<(Vec<Duration>, u64)> {
    let from = testbed.port(0);
    let readers: Vec<BorrowedFd> = (1..=stream.readers).map(|port| testbed.port(port)).collect();
    let mut buffer = vec![0; BUFFER];
    let mut read = |port| {
        let there = receive(port, &mut buffer)?;
        // What another thread of the kernel hands on comes a moment later.
        if !there && testbed.is_deferred() && threads::wait(port)? {
            return receive(port, &mut buffer);
        }
        Ok(there)
    };
    let mut send = |count: usize| -> Result<u64> {
        let mut lost = 0;
        for _ in 0..count {
            stream.advance();
            write(from, &stream.frame)?;
            for &reader in &readers {
                lost += u64::from(!read(reader)?);
            }
            for answer in &stream.answers {
                write(readers[0], answer)?;
                lost += u64::from(!read(from)?);
            }
        }
        Ok(lost)
    };
    // The caches are another testbed's.
    send(batch / 4)?;
    let (mut batches, mut lost) = (Vec::new(), 0);
    let start = Instant::now();
    while start.elapsed() < turn || batches.is_empty() {
        let start = Instant::now();
        lost += send(batch)?;
        batches.push(start.elapsed());
    }
    Ok((batches, lost))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn nanoseconds(time: Duration, steps: usize) -> f64 {
    time.as_secs_f64() * 1e9 / steps as f64
}

/// Of something; it is sorted then.
fn lower_quartile(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 4]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_quarter_of_the_batches_is_shorter_than_the_lower_quartile() {
        let mut times = [9, 1, 5, 3, 7, 2, 8, 4].map(Duration::from_nanos);
        assert_eq!(lower_quartile(&mut times), Duration::from_nanos(3));
        assert_eq!(
            lower_quartile(&mut [Duration::from_nanos(1)]),
            Duration::from_nanos(1)
        );
    }

    #[test]
    fn one_sender_has_as_many_destinations_as_it_has_flows() {
        let mut stream = Stream::spread(10_000, 32_768);
        stream.one_sender = true;
        let mut pairs = BTreeSet::new();
        for _ in 0..20_000 {
            stream.advance();
            pairs.insert(stream.frame.bytes[..12].to_vec());
        }
        assert_eq!(pairs.len(), 10_000);
        assert!(pairs.iter().all(|pair| pair[6..] == station(0, 0)));
    }

    #[test]
    fn a_spread_stream_has_as_many_flows_as_it_says_and_shares_no_address() {
        for flows in [256, 32_768] {
            let mut stream = Stream::spread(flows, 32_768);
            let mut pairs = BTreeSet::new();
            for _ in 0..2 * flows {
                stream.advance();
                pairs.insert(stream.frame.bytes[..12].to_vec());
            }
            assert_eq!(pairs.len(), flows);
            for side in [0..6, 6..12] {
                let addresses: BTreeSet<_> = pairs.iter().map(|pair| &pair[side.clone()]).collect();
                assert_eq!(addresses.len(), flows);
            }
        }
    }
}
