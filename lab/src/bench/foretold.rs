//! `tapbridge-lab check-estimate`: what `tapbridge estimate` foretells, beside what is measured then.
//!
//! VMMs send over a bare bridge, which is when the estimate is asked for; then the ports are attached, and the VMMs go on.
//! What counts is the time that the process whose threads play the VMMs is in the kernel, by the frames that they have
//! written: that is what the estimate foretells.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, builder::PossibleValuesParser};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use serde_json::Value;

use super::{
    case::Topology,
    frame::{BROADCAST, Frame, FrameKind, HOST, LEAST_QUIC, SHORTEST, UNKNOWN, station},
    io::write,
    private_bpffs,
    testbed::{BUFFER, BenchTestbed, Datapath, receive},
};
use crate::{
    cost::cpu,
    host::{interrupt, process, wait},
    testbed::datapath::{Watcher, linux_bridge::BRIDGE},
};

/// By how much an estimate may miss what is measured.
const MARGIN: f64 = 0.15;
/// For hooks to follow the traffic.
const SETTLING: Duration = Duration::from_secs(2);
/// Frames that a VMM reads, or writes, before it does the other.
const BURST: u32 = 32;
/// By what part of a second a VMM may be late with frames, which it sends all the same: a tap holds 1,000.
const LATE: u32 = 500;
/// How often a VMM says what it has written.
const TELLING: Duration = Duration::from_millis(5);

/// Check what 'tapbridge estimate' foretells against what is measured
///
/// In five workloads, each as often as there are rounds: over a bare bridge the estimate says what the VMMs will take with
/// all ports attached, then they are, with tapbridge run beside it, and what they take is measured. That is their time in
/// the kernel by frame, since a workload that sends as fast as it can sends more then.
#[derive(Debug, Args)]
pub struct CheckEstimateArguments {
    /// This project's binary
    #[arg(long, value_name = "PATH")]
    tapbridge: PathBuf,
    /// Workloads [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = PossibleValuesParser::new(WORKLOADS.iter().map(|workload| workload.name)))]
    workload: Vec<String>,
    /// Seconds of each measurement
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3600))]
    time: u64,
    /// How often each workload is measured, bare and attached
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Fail where what it foretells lies more than 15 % beside what is measured, or where it would have been nearer by saying
    /// that nothing is saved
    #[arg(long)]
    check: bool,
}

/// What VMMs do.
struct Workload {
    name: &'static str,
    topology: Topology,
    vmms: fn() -> Vec<Vmm>,
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "small-one-way",
        topology: Topology::Pair,
        vmms: small_one_way,
    },
    Workload {
        name: "both-ways",
        topology: Topology::Pair,
        vmms: both_ways,
    },
    Workload {
        name: "bulk",
        topology: Topology::Pair,
        vmms: bulk,
    },
    Workload {
        name: "mixed",
        topology: Topology::Nine,
        vmms: mixed,
    },
    Workload {
        name: "pairs",
        topology: Topology::Nine,
        vmms: pairs,
    },
];

/// A VMM at a port.
struct Vmm {
    port: usize,
    /// What it sends, in turn.
    sends: Vec<Frame>,
    /// By second.
    rate: u32,
    /// What it answers each long segment with.
    answers: Vec<Frame>,
}

fn frame(kind: FrameKind, from: usize, to: usize) -> Frame {
    Frame::new(kind, station(from, 0), station(to, 0))
}

const SHORT: FrameKind = FrameKind::Complete(SHORTEST);

impl Vmm {
    fn at(port: usize) -> Self {
        Self {
            port,
            sends: Vec::new(),
            rate: 0,
            answers: Vec::new(),
        }
    }

    fn sending(port: usize, rate: u32, sends: Vec<Frame>) -> Self {
        Self {
            sends,
            rate,
            ..Self::at(port)
        }
    }
}

/// Datagrams of 18 bytes, many.
fn small_one_way() -> Vec<Vmm> {
    vec![
        Vmm::sending(0, 200_000, vec![frame(FrameKind::Datagram(18), 0, 1)]),
        Vmm::at(1),
    ]
}

/// Short frames and full ones.
fn both_ways() -> Vec<Vmm> {
    let from = |from: usize, to: usize| {
        let kinds = [SHORT, FrameKind::Partial(1514)];
        let sends = kinds.map(|kind| frame(kind, from, to)).to_vec();
        Vmm::sending(from, 40_000, sends)
    };
    vec![from(0, 1), from(1, 0)]
}

/// Long segments, each of which is answered by two ACKs.
fn bulk() -> Vec<Vmm> {
    let ack = frame(FrameKind::Ack, 1, 0);
    vec![
        Vmm::sending(0, 20_000, vec![frame(FrameKind::Tso4, 0, 1)]),
        Vmm {
            answers: vec![ack.clone(), ack],
            ..Vmm::at(1)
        },
    ]
}

/// Short and longer frames to others, to all, to the host and to somebody who is not known, among idle ports.
fn mixed() -> Vec<Vmm> {
    let to = |kind: FrameKind, address| Frame::new(kind, station(0, 0), address);
    let mut first: Vec<Frame> = (0..14).map(|_| frame(SHORT, 0, 1)).collect();
    first.push(to(SHORT, BROADCAST));
    first.extend([to(SHORT, HOST), to(FrameKind::Complete(512), HOST)]);
    first.push(to(SHORT, UNKNOWN));
    first.extend([
        frame(FrameKind::Complete(512), 0, 1),
        frame(FrameKind::Partial(1514), 0, 1),
    ]);
    let second = [SHORT, FrameKind::Datagram(LEAST_QUIC), FrameKind::Complete(800)];
    let mut vmms = vec![
        Vmm::sending(0, 40_000, first),
        Vmm::sending(1, 20_000, second.map(|kind| frame(kind, 1, 2)).to_vec()),
    ];
    vmms.extend((2..Topology::Nine.ports()).map(Vmm::at));
    vmms
}

/// Four pairs, each of which talks otherwise.
fn pairs() -> Vec<Vmm> {
    let kinds: [(u32, Vec<FrameKind>); 4] = [
        (20_000, vec![SHORT]),
        (
            15_000,
            vec![FrameKind::Complete(256), FrameKind::Datagram(LEAST_QUIC)],
        ),
        (10_000, vec![FrameKind::Partial(1514), SHORT, SHORT]),
        (3000, vec![FrameKind::Tso4]),
    ];
    let mut vmms = vec![Vmm::at(8)];
    for (pair, (rate, kinds)) in kinds.into_iter().enumerate() {
        let (from, to) = (2 * pair, 2 * pair + 1);
        let sends = kinds.iter().map(|&kind| frame(kind, from, to)).collect();
        let back = [SHORT].map(|kind| frame(kind, to, from)).to_vec();
        vmms.push(Vmm::sending(from, rate, sends));
        vmms.push(Vmm::sending(to, rate / 4, back));
    }
    vmms
}

impl Vmm {
    /// Does what a VMM does until it is to stop: reads what is there, writes what is due, and sleeps if there is neither. It tells
    /// how many frames it has written until now.
    fn act(&self, testbed: &BenchTestbed, told: &AtomicU64, stop: &AtomicBool) -> Result<()> {
        // Where its tap is, as VMMs are.
        let _here = testbed.enter()?;
        let port = testbed.port(self.port);
        let mut buffer = vec![0; BUFFER];
        let mut sends = self.sends.iter().cycle();
        let (begin, mut telling) = (Instant::now(), Instant::now());
        let (mut written, mut due) = (0_u64, 0_u64);
        while !stop.load(Ordering::Relaxed) {
            let mut is_idle = true;
            for _ in 0..BURST {
                if !receive(port, &mut buffer)? {
                    break;
                }
                is_idle = false;
                // Behind the virtio-net header's flags is the kind of segments.
                if buffer[1] != 0 {
                    for answer in &self.answers {
                        write(port, answer)?;
                        written += 1;
                    }
                }
            }
            let until_now = begin.elapsed().as_micros() * u128::from(self.rate) / 1_000_000;
            let until_now = u64::try_from(until_now).unwrap_or(u64::MAX);
            let wanted = until_now.saturating_sub(due).min(u64::from(BURST));
            // Who is later does not hurry.
            let late = u64::from(BURST.max(self.rate / LATE));
            due = until_now.saturating_sub(late).max(due + wanted);
            for _ in 0..wanted {
                if let Some(frame) = sends.next() {
                    write(port, frame)?;
                    written += 1;
                }
            }
            if telling.elapsed() > TELLING {
                telling = Instant::now();
                told.store(written, Ordering::Relaxed);
            }
            if is_idle && wanted == 0 {
                let file = PollFd::new(port, PollFlags::POLLIN);
                match poll(&mut [file], PollTimeout::from(1_u8)) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(error).context("waiting for a frame"),
                }
            }
        }
        Ok(())
    }
}

/// A frame of a round, in nanoseconds that the VMMs are in the kernel.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// Over the bare bridge, measured,
    before: f64,
    /// and while the estimate was made, as it says.
    now: f64,
    /// With all ports attached, as the estimate says,
    foretold: f64,
    /// and measured.
    after: f64,
    /// What is saved, as the estimate says.
    saves: f64,
}

/// What was foretold and what was measured of a workload.
struct Outcome {
    name: &'static str,
    confidence: String,
    rounds: Vec<Round>,
}

impl Outcome {
    /// Of all rounds the middle.
    fn median(&self, of: fn(&Round) -> f64) -> f64 {
        median(&mut self.rounds.iter().map(of).collect::<Vec<_>>())
    }

    /// By how much what was foretold of attached ports misses what was measured.
    fn error(&self) -> f64 {
        self.median(|round| round.foretold / round.after - 1.0)
    }

    /// By how much it would have been missed by whoever foretells that nothing is saved.
    fn error_of_nothing(&self) -> f64 {
        self.median(|round| round.before / round.after - 1.0)
    }

    fn is_fine(&self) -> bool {
        self.error().abs() <= MARGIN
    }

    fn text(&self) -> String {
        format!(
            "{:13} {:7.0} {:8.0} {:9.0} {:8.0} {:+5.0} % {:8.0} {:8.0} {:+5.0} %  {}",
            self.name,
            self.median(|round| round.now),
            self.median(|round| round.before),
            self.median(|round| round.foretold),
            self.median(|round| round.after),
            100.0 * self.error(),
            self.median(|round| round.saves),
            self.median(|round| round.before - round.after),
            100.0 * self.error_of_nothing(),
            self.confidence
        )
    }
}

/// Whether all was foretold as it came, and better than by one who knows nothing.
fn judge(outcomes: &[Outcome]) -> Result<()> {
    let missed = outcomes.iter().filter(|outcome| !outcome.is_fine());
    let missed: Vec<_> = missed.map(|outcome| outcome.name).collect();
    ensure!(
        missed.is_empty(),
        "foretold otherwise than measured: {}",
        missed.join(", ")
    );
    let sum = |of: fn(&Outcome) -> f64| -> f64 { outcomes.iter().map(|outcome| of(outcome).abs()).sum() };
    let [foretold, nothing] = [Outcome::error, Outcome::error_of_nothing].map(sum);
    ensure!(
        foretold < nothing,
        "no better than to say that nothing is saved: errors of {:.0} % in all, and so {:.0} %",
        100.0 * foretold,
        100.0 * nothing
    );
    Ok(())
}

impl CheckEstimateArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        private_bpffs()?;
        println!("                bare, ns/frame      attached, ns/frame        saves, ns/frame");
        println!(
            "workload          told measured  foretold measured   error foretold measured nothing*  confidence"
        );
        let mut outcomes = Vec::new();
        for workload in WORKLOADS {
            if self.workload.is_empty() || self.workload.iter().any(|name| name == workload.name) {
                let outcome = self.take(workload).with_context(|| workload.name.to_owned())?;
                println!("{}", outcome.text());
                outcomes.push(outcome);
            }
        }
        println!("* the error of whoever foretells that nothing is saved");
        if self.check { judge(&outcomes) } else { Ok(()) }
    }

    fn take(&self, workload: &Workload) -> Result<Outcome> {
        let testbed = BenchTestbed::new(Datapath::LinuxBridge, workload.topology, &self.tapbridge)?;
        let vmms = (workload.vmms)();
        let told: Vec<AtomicU64> = vmms.iter().map(|_| AtomicU64::default()).collect();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let threads: Vec<_> = vmms
                .iter()
                .zip(&told)
                .map(|(vmm, own)| {
                    let (testbed, stop) = (&testbed, &stop);
                    scope.spawn(move || vmm.act(testbed, own, stop))
                })
                .collect();
            let outcome = self.watch(&testbed, workload, &told);
            stop.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().expect("no panic")?;
            }
            outcome
        })
    }

    /// While the VMMs send.
    fn watch(&self, testbed: &BenchTestbed, workload: &Workload, told: &[AtomicU64]) -> Result<Outcome> {
        let tapbridge = |words: &[&str], time: Duration| -> Result<String> {
            let mut command = testbed.tapbridge()?;
            command.args(words);
            process::call_within(command, process::CALL_LIMIT + time)
        };
        // It measures VMMs for a quarter of the time in which it watches frames then.
        let of_frames = 4 * self.time;
        let (mut rounds, mut confidence) = (Vec::new(), String::new());
        for _ in 0..self.rounds {
            wait::sleep(SETTLING)?;
            let before = self.measure(told)?;
            let words = [
                "estimate",
                "--master",
                BRIDGE,
                "--time",
                &of_frames.to_string(),
                "-j",
            ];
            let estimate = tapbridge(&words, Duration::from_secs(of_frames + self.time))?;
            let estimate = serde_json::from_str::<Value>(&estimate)?;
            tapbridge(&["attach", "--master", BRIDGE], Duration::ZERO)?;
            let watcher = Watcher::start(testbed.tapbridge()?)?;
            wait::sleep(SETTLING)?;
            let after = self.measure(told)?;
            watcher.stop()?;
            tapbridge(&["detach", "--all"], Duration::ZERO)?;
            rounds.push(round(before, &estimate, after)?);
            // The last counts, as good as any.
            confidence = text(&estimate["bridges"][0]["confidence"]);
        }
        Ok(Outcome {
            name: workload.name,
            confidence,
            rounds,
        })
    }

    /// How long the VMMs are in the kernel for a frame, in nanoseconds, by some seconds.
    fn measure(&self, told: &[AtomicU64]) -> Result<f64> {
        let moment = || -> Result<(Instant, f64, f64)> {
            let used = cpu::of_process(std::process::id())?;
            Ok((Instant::now(), used.system_s, frames(told)))
        };
        let (begin, used, written) = moment()?;
        wait::sleep(Duration::from_secs(self.time))?;
        let (end, used_then, written_then) = moment()?;
        let (used, written) = (used_then - used, written_then - written);
        let seconds = (end - begin).as_secs_f64();
        let each = used * 1e9 / written;
        eprintln!(
            "{:.0} frames/s, {:.3} CPUs, {each:.0} ns",
            written / seconds,
            used / seconds
        );
        Ok(each)
    }
}

/// What was measured before and after, and what the estimate says in between.
fn round(before: f64, estimate: &Value, after: f64) -> Result<Round> {
    let bridge = &estimate["bridges"][0];
    let number = |value: &Value| value.as_f64().context("a number of the estimate");
    let rate = number(&bridge["frames"])? / number(&estimate["seconds"])?;
    let vmms = &bridge["vmms"];
    ensure!(
        !vmms.is_null(),
        "what the VMMs take is not known: {}",
        text(&bridge["vmms_note"])
    );
    let each = |value: &Value| Ok::<_, anyhow::Error>(number(value)? * 1e9 / rate);
    Ok(Round {
        before,
        now: each(&vmms["cpus"])?,
        foretold: each(&vmms["accelerated"]["value"])?,
        saves: each(&vmms["saves"]["value"])?,
        after,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn frames(told: &[AtomicU64]) -> f64 {
    let written = told.iter().map(|told| told.load(Ordering::Relaxed));
    written.sum::<u64>() as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vmm_is_at_a_port_of_its_own_and_none_is_missing() {
        for workload in WORKLOADS {
            let mut ports: Vec<usize> = (workload.vmms)().iter().map(|vmm| vmm.port).collect();
            ports.sort_unstable();
            let all: Vec<usize> = (0..workload.topology.ports()).collect();
            assert_eq!(ports, all, "{}", workload.name);
        }
    }

    fn outcome(foretold: f64, after: f64) -> Outcome {
        let round = |foretold| Round {
            before: 1000.0,
            now: 1010.0,
            foretold,
            after,
            saves: 1010.0 - foretold,
        };
        Outcome {
            name: "some",
            confidence: "good".into(),
            // One round that was disturbed does not count.
            rounds: [foretold, 9000.0, foretold].map(round).to_vec(),
        }
    }

    #[test]
    fn what_was_foretold_may_miss_by_its_margin() {
        assert!(outcome(570.0, 500.0).is_fine() && outcome(430.0, 500.0).is_fine());
        assert!(!outcome(580.0, 500.0).is_fine() && !outcome(420.0, 500.0).is_fine());
        judge(&[outcome(570.0, 500.0)]).unwrap();
        let error = judge(&[outcome(580.0, 500.0)]).unwrap_err();
        assert!(error.to_string().ends_with("measured: some"), "{error}");
    }

    #[test]
    fn a_constant_does_not_pass() {
        let truth = [900.0, 950.0, 1040.0];
        judge(&truth.map(|after| outcome(after + 10.0, after))).unwrap();
        for constant in [1000.0, 1010.0] {
            let error = judge(&truth.map(|after| outcome(constant, after))).unwrap_err();
            assert!(error.to_string().starts_with("no better"), "{error}");
        }
    }

    #[test]
    fn what_the_estimate_says_of_the_vmms_counts_by_frame() {
        let mut estimate = serde_json::json!({
            "seconds": 2.0,
            "bridges": [{
                "frames": 2000,
                "vmms": { "cpus": 0.004, "accelerated": { "value": 0.003 }, "saves": { "value": 0.001 } },
            }],
        });
        let told = round(4100.0, &estimate, 3100.0).unwrap();
        for (found, expected) in [(told.now, 4000.0), (told.foretold, 3000.0), (told.saves, 1000.0)] {
            assert!((found - expected).abs() < 1e-6, "{told:?}");
        }
        estimate["bridges"][0]["vmms"] = Value::Null;
        estimate["bridges"][0]["vmms_note"] = "who holds vm0 is not in sight".into();
        let error = round(4100.0, &estimate, 3100.0).unwrap_err();
        assert!(
            error.to_string().ends_with("who holds vm0 is not in sight"),
            "{error}"
        );
    }
}
