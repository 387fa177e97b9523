//! A host in use: guests at ports of a bridge, and `tapbridge run` with a configuration that asks for all of its ports.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lab::{Namespace, Tap, VnetHeader, netns};
use tempfile::TempDir;

use super::{
    allow_files,
    frame::{Frame, FrameKind, Mac, station, text},
    private_bpffs,
    testbed::STATE,
};
use crate::{
    host::{interrupt, process, scratch},
    testbed::datapath::{
        Watcher, ip,
        linux_bridge::{self, BRIDGE},
    },
};

/// Frames on their way at most: fewer than a tap's ring holds.
const WINDOW: u64 = 100;
/// Until the last frame has come, on a busy machine.
const LAST: Duration = Duration::from_secs(30);
/// Where a datagram over IPv4 has its payload.
const PAYLOAD: usize = 42;

/// What goes with this process, in whatever way that ends.
pub struct Live {
    /// Ends first.
    run: Option<Watcher>,
    pub guests: Vec<Tap>,
    pub host: Namespace,
    program: PathBuf,
    _folder: TempDir,
}

impl Live {
    /// So many guests, at vm1 and so on, whose stations the bridge knows for good; returns when all are attached.
    pub fn start(program: &Path, guests: usize, options: &[&str]) -> Result<Self> {
        private_bpffs()?;
        allow_files()?;
        let host = Namespace::anonymous()?;
        host.run(netns::disable_ipv6)?;
        let names: Vec<_> = (1..=guests).map(|number| format!("vm{number}")).collect();
        let open = || names.iter().map(Tap::open).collect::<lab::Result<Vec<_>>>();
        let taps = host.run(open)?;
        linux_bridge::connect(&host, &names)?;
        let folder = scratch::folder("run")?;
        let config = folder.path().join("tapbridge.toml");
        fs::write(&config, format!("[[bridge]]\nname = \"{BRIDGE}\"\n"))
            .context("writing a configuration")?;
        let config = config.to_str().context("a folder's name that is no text")?;
        let mut tapbridge = host.command(program)?;
        tapbridge.env_remove(STATE);
        let run = Watcher::start_with(tapbridge, &[&["--config", config], options].concat())?;
        let live = Self {
            run: Some(run),
            guests: taps,
            host,
            program: program.into(),
            _folder: folder,
        };
        for (port, name) in names.iter().enumerate() {
            live.know(port, name)?;
        }
        Ok(live)
    }

    /// Has the bridge know a guest's station, however long that is silent.
    fn know(&self, port: usize, name: &str) -> Result<()> {
        let mut bridge = self.host.command("bridge")?;
        let address = text(station(port, 0));
        bridge.args(["fdb", "replace", &address, "dev", name, "master", "static"]);
        process::call(bridge).map(drop)
    }

    /// Opens a tap and makes it a port; returns it with the moment in which the kernel was asked to make it one.
    pub fn plug(&self, name: &str) -> Result<(Tap, Instant)> {
        let tap = self.host.run(|| Tap::open(name))?;
        let asked = Instant::now();
        ip(&self.host, &["link", "set", "dev", name, "master", BRIDGE])?;
        Ok((tap, asked))
    }

    /// The command line, in the host's network.
    pub fn tapbridge(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.host.command(&self.program)?;
        command.args(words).env_remove(STATE);
        Ok(command)
    }

    /// What `tapbridge run -j` has printed, each line with the moment in which it came.
    pub fn said(&self) -> Vec<(Instant, String)> {
        self.run.as_ref().map_or_else(Vec::new, Watcher::lines)
    }

    pub fn end(mut self) -> Result<()> {
        self.run.take().map_or(Ok(()), Watcher::stop)
    }
}

/// What has become of frames.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Arrivals {
    pub sent: u64,
    pub arrived: u64,
    /// That came after one that was sent later, or once more.
    pub astray: u64,
}

impl Arrivals {
    /// Notes that this frame has come.
    fn note(&mut self, number: u64, next: &mut u64) {
        if number < *next {
            self.astray += 1;
        } else {
            self.arrived += 1;
            *next = number + 1;
        }
    }

    pub fn all_in_order(&self) -> bool {
        self.sent > 0 && self.arrived == self.sent && self.astray == 0
    }
}

/// A datagram of 18 bytes with a number, from the first guest to the second.
fn numbered() -> Frame {
    Frame::new(FrameKind::Datagram(18), station(0, 0), station(1, 0))
}

/// The number of such a frame; none of another.
fn number(frame: &[u8], from: Mac) -> Option<u64> {
    let is_ours = frame.get(6..12) == Some(&from[..]);
    let number = frame.get(PAYLOAD..).filter(|_| is_ours)?.first_chunk()?;
    Some(u64::from_be_bytes(*number))
}

/// The first guest sends to the second, as fast as that takes it, until it shall stop and all has come that comes.
pub fn talk(guests: &[Tap], stop: &AtomicBool) -> Result<Arrivals> {
    let (from, to) = (&guests[0], &guests[1]);
    let mut frame = numbered();
    let (mut arrivals, mut next) = (Arrivals::default(), 0);
    let mut last = Instant::now();
    loop {
        let sending = !stop.load(Ordering::Relaxed);
        if sending && arrivals.sent - next < WINDOW {
            frame.bytes[PAYLOAD..PAYLOAD + 8].copy_from_slice(&arrivals.sent.to_be_bytes());
            from.send(&VnetHeader::none(), &frame.bytes)
                .context("sending a frame")?;
            arrivals.sent += 1;
        }
        while let Some((_, received)) = to.receive(Duration::ZERO).context("receiving a frame")? {
            if let Some(number) = number(&received, station(0, 0)) {
                arrivals.note(number, &mut next);
                last = Instant::now();
            }
        }
        let all = next == arrivals.sent;
        if !sending && (all || last.elapsed() > LAST) {
            return Ok(arrivals);
        }
        ensure!(
            last.elapsed() < 2 * LAST,
            "of {} frames that were sent none came for {:?} after the first {}",
            arrivals.sent,
            last.elapsed(),
            arrivals.arrived
        );
        if let Some(interrupted) = interrupt::received() {
            return Err(interrupted.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_are_lost_doubled_or_overtaken_are_noticed() {
        let of = |numbers: &[u64]| {
            let (mut arrivals, mut next) = (
                Arrivals {
                    sent: 3,
                    ..Arrivals::default()
                },
                0,
            );
            for &number in numbers {
                arrivals.note(number, &mut next);
            }
            arrivals.all_in_order()
        };
        assert!(of(&[0, 1, 2]));
        assert!(!of(&[0, 2]) && !of(&[0, 1]) && !of(&[0, 1, 1, 2]) && !of(&[1, 0, 2]));
        assert!(!Arrivals::default().all_in_order());
    }

    #[test]
    fn a_number_is_found_where_it_was_written() {
        let mut frame = numbered().bytes;
        frame[PAYLOAD..PAYLOAD + 8].copy_from_slice(&77_u64.to_be_bytes());
        assert_eq!(number(&frame, station(0, 0)), Some(77));
        assert_eq!(number(&frame, station(1, 0)), None);
        assert_eq!(number(&frame[..20], station(0, 0)), None);
    }
}
