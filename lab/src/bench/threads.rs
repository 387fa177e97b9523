//! Turns in which the VMMs run side by side, each a thread of its own.

use std::{
    ops::Range,
    os::fd::BorrowedFd,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::{VnetHeader, pump::BURST};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    frame::{Frame, FrameKind, SHORTEST, SOURCE, port_of, station},
    io::write,
    results::Sample,
    testbed::{BUFFER, BenchTestbed, receive},
};
use crate::{
    host::cpus::{self, stay_on},
    shares,
};

/// How long a thread sleeps at most before it looks whether it is to end, in milliseconds.
const TICK: u16 = 10;
/// How long an answer may take, in ticks.
const PATIENCE: u32 = 20;

/// Where a frame of the shortest kind has its payload's last bytes, which number those of a round trip.
const NUMBER: Range<usize> = SHORTEST - 4..SHORTEST;

/// What one VMM does.
#[derive(Debug, Clone, Copy)]
pub struct Vmm {
    port: usize,
    /// The port that it sends to, as fast as it can.
    sends_to: Option<usize>,
    reads: bool,
}

/// From the first port to the second.
pub const ONE_WAY: &[Vmm] = &[vmm(0, Some(1), false), vmm(1, None, true)];
/// Between the two.
pub const BOTH_WAYS: &[Vmm] = &[vmm(0, Some(1), true), vmm(1, Some(0), true)];

/// From so many others to the first.
fn to_the_first(senders: usize) -> Vec<Vmm> {
    let reader = vmm(0, None, true);
    let senders = (1..=senders).map(|port| vmm(port, Some(0), false));
    [reader].into_iter().chain(senders).collect()
}

const fn vmm(port: usize, sends_to: Option<usize>, reads: bool) -> Vmm {
    Vmm {
        port,
        sends_to,
        reads,
    }
}

/// What one VMM has done in a turn.
#[derive(Debug, Clone, Default)]
struct Count {
    written: u64,
    /// By the port that sent them.
    read: Vec<u64>,
}

impl Count {
    fn note(&mut self, sender: usize) {
        if self.read.len() <= sender {
            self.read.resize(sender + 1, 0);
        }
        self.read[sender] += 1;
    }
}

/// Lets the VMMs run for a turn. The value is its time by the frames that were read.
pub fn run(testbed: &BenchTestbed, vmms: &[Vmm], turn: Duration) -> Result<Sample> {
    let (sample, _) = side_by_side(testbed, vmms, turn)?;
    Ok(sample)
}

/// As [`run`], from so many senders to one reader; the further values are how even their shares are.
pub fn senders(testbed: &BenchTestbed, number: usize, turn: Duration) -> Result<Sample> {
    let (mut sample, counts) = side_by_side(testbed, &to_the_first(number), turn)?;
    let mut delivered = counts
        .into_iter()
        .map(|count| count.read)
        .next()
        .unwrap_or_default();
    delivered.resize(number + 1, 0);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let delivered: Vec<_> = delivered[1..].iter().map(|&count| count as f64).collect();
    sample
        .values
        .extend([shares::fairness(&delivered), shares::worst(&delivered)]);
    Ok(sample)
}

fn side_by_side(testbed: &BenchTestbed, vmms: &[Vmm], turn: Duration) -> Result<(Sample, Vec<Count>)> {
    let (start, stop) = (Barrier::new(vmms.len() + 1), AtomicBool::new(false));
    let (seconds, counts) = thread::scope(|scope| {
        let (start, stop) = (&start, &stop);
        let spawn = |vmm| scope.spawn(move || act(testbed, vmm, start, stop));
        let threads: Vec<_> = vmms.iter().map(spawn).collect();
        start.wait();
        let begin = Instant::now();
        thread::sleep(turn);
        stop.store(true, Ordering::Relaxed);
        let seconds = begin.elapsed().as_secs_f64();
        let join = |thread: thread::ScopedJoinHandle<Result<Count>>| thread.join().expect("no panic");
        (seconds, threads.into_iter().map(join).collect::<Result<Vec<_>>>())
    });
    let counts = counts?;
    let written: u64 = counts.iter().map(|count| count.written).sum();
    let read: u64 = counts.iter().flat_map(|count| &count.read).sum();
    let arrived = read + testbed.drain()?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let value = seconds * 1e9 / read as f64;
    let sample = Sample {
        values: vec![value],
        frames: written,
        lost: written.saturating_sub(arrived),
    };
    Ok((sample, counts))
}

/// Does what a VMM does until it is to stop; returns how many frames it has written and read.
fn act(testbed: &BenchTestbed, vmm: &Vmm, start: &Barrier, stop: &AtomicBool) -> Result<Count> {
    let port = testbed.port(vmm.port);
    let send = |to| {
        Frame::new(
            FrameKind::Complete(SHORTEST),
            station(vmm.port, 0),
            station(to, 0),
        )
    };
    let frame = vmm.sends_to.map(send);
    let mut buffer = vec![0; BUFFER];
    let mut count = Count::default();
    start.wait();
    while !stop.load(Ordering::Relaxed) {
        match &frame {
            Some(frame) => {
                write(port, frame)?;
                count.written += 1;
            }
            None => {
                wait(port)?;
            }
        }
        for _ in 0..BURST {
            if !vmm.reads || !receive(port, &mut buffer)? {
                break;
            }
            count.note(sender_of(&buffer));
        }
    }
    Ok(count)
}

/// The port behind which the station is that sent a frame, which was read with its header.
fn sender_of(buffer: &[u8]) -> usize {
    port_of(&buffer[VnetHeader::LEN + SOURCE.start..][..SOURCE.len()])
}

/// The port that a neighbour sends from, to the next one.
pub const NEIGHBOUR: usize = 2;

/// Sends until it is to stop, and reads what has arrived: a neighbour who is one station, or a new one with every frame.
pub fn send(testbed: &BenchTestbed, learning: bool, stop: &AtomicBool) -> Result<()> {
    let to = NEIGHBOUR + 1;
    let mut frame = Frame::new(
        FrameKind::Complete(SHORTEST),
        station(NEIGHBOUR, 0),
        station(to, 0),
    );
    let mut buffer = vec![0; BUFFER];
    for number in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if learning {
            let [a, b, c, d] = number.to_be_bytes();
            frame.address([0x0a, 0, a, b, c, d], station(to, 0));
        }
        write(testbed.port(NEIGHBOUR), &frame)?;
        receive(testbed.port(to), &mut buffer)?;
    }
    Ok(())
}

/// Sleeps until a frame waits, but not longer than a tick; says whether one does.
pub fn wait(port: BorrowedFd) -> Result<bool> {
    match poll(
        &mut [PollFd::new(port, PollFlags::POLLIN)],
        PollTimeout::from(TICK),
    ) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error).context("waiting for a frame"),
    }
}

/// Percentiles of the time that a frame takes there and back.
pub const PERCENTILES: [usize; 3] = [500, 990, 999];

/// One frame is on its way, there and back, and both VMMs sleep until it comes. They share a CPU: to wake another one
/// takes several times as long as all that a datapath does. The values are microseconds.
pub fn round_trip(testbed: &BenchTestbed, turn: Duration) -> Result<Sample> {
    let stop = &AtomicBool::new(false);
    let cpu = *cpus::allowed()?.first().context("this process has no CPU")?;
    testbed.drain()?;
    thread::scope(|scope| {
        let other = scope.spawn(move || stay_on(cpu).and_then(|()| echo(testbed, stop)));
        let asking = scope.spawn(move || stay_on(cpu).and_then(|()| ask(testbed, turn)));
        let result = asking.join().expect("no panic");
        stop.store(true, Ordering::Relaxed);
        other.join().expect("no panic")?;
        result
    })
}

fn ask(testbed: &BenchTestbed, turn: Duration) -> Result<Sample> {
    let port = testbed.port(0);
    let mut frame = Frame::new(FrameKind::Complete(SHORTEST), station(0, 0), station(1, 0));
    let mut buffer = vec![0; BUFFER];
    let (mut times, mut lost) = (Vec::new(), 0);
    let start = Instant::now();
    for number in 0_u32.. {
        if start.elapsed() >= turn && number > 0 {
            break;
        }
        // An answer that comes too late, or a frame of the kernel's own, is not this one's.
        frame.bytes[NUMBER].copy_from_slice(&number.to_ne_bytes());
        let asked = Instant::now();
        write(port, &frame)?;
        let mut patience = PATIENCE;
        while patience > 0 {
            if !wait(port)? {
                patience -= 1;
            } else if receive(port, &mut buffer)? && *number_in(&buffer) == frame.bytes[NUMBER] {
                break;
            }
        }
        times.push(asked.elapsed());
        lost += u64::from(patience == 0);
    }
    times.sort_unstable();
    let microseconds = |per_mille| percentile(&times, per_mille).as_secs_f64() * 1e6;
    Ok(Sample {
        values: PERCENTILES.map(microseconds).to_vec(),
        frames: times.len() as u64,
        lost,
    })
}

fn echo(testbed: &BenchTestbed, stop: &AtomicBool) -> Result<()> {
    let port = testbed.port(1);
    let mut frame = Frame::new(FrameKind::Complete(SHORTEST), station(1, 0), station(0, 0));
    let mut buffer = vec![0; BUFFER];
    while !stop.load(Ordering::Relaxed) {
        if wait(port)? && receive(port, &mut buffer)? {
            frame.bytes[NUMBER].copy_from_slice(number_in(&buffer));
            write(port, &frame)?;
        }
    }
    Ok(())
}

/// Of a frame that was read with its header.
fn number_in(buffer: &[u8]) -> &[u8] {
    &buffer[VnetHeader::LEN..][NUMBER]
}

/// Of sorted times, of which there is at least one: so many of a thousand are not longer.
fn percentile(times: &[Duration], per_mille: usize) -> Duration {
    times[(times.len() * per_mille).div_ceil(1000).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_shortest_time_that_enough_are_not_longer_than() {
        let times: Vec<_> = (1..=1000).map(Duration::from_micros).collect();
        let micros = PERCENTILES.map(|per_mille| percentile(&times, per_mille).as_micros());
        assert_eq!(micros, [500, 990, 999]);
        assert_eq!(percentile(&times[..3], 999), times[2]);
        assert_eq!(percentile(&times[..1], 500), times[0]);
    }

    #[test]
    fn a_frame_tells_who_has_sent_it() {
        let kind = FrameKind::Complete(SHORTEST);
        let frame = Frame::new(kind, station(513, 1), station(0, 0));
        let buffer = [&[0; VnetHeader::LEN], &*frame.bytes].concat();
        assert_eq!(sender_of(&buffer), 513);
    }

    #[test]
    fn every_sender_has_a_reader() {
        for vmms in [ONE_WAY, BOTH_WAYS, &to_the_first(4)] {
            for to in vmms.iter().filter_map(|vmm| vmm.sends_to) {
                assert!(vmms.iter().any(|vmm| vmm.port == to && vmm.reads));
            }
        }
    }
}
