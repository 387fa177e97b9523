//! A Linux bridge with three taps in a network namespace of its own, and the programs at its ports.

use std::{io::Write as _, process::Command, process::Stdio};

use lab::{Entered, Tap, VnetHeader, netns};
use tapbridge::common::mac::Mac;

use crate::{
    packet::{DESTINATION, SOURCE},
    programs::{Frames, Shared},
};

/// The tap that frames come in by.
pub const INGRESS: usize = 0;
pub const TAPS: usize = 3;

/// Stations that the bridge knows at the taps of their names.
pub const ON_0: Mac = Mac(SOURCE);
pub const ON_1: Mac = Mac(DESTINATION);
pub const ON_2: Mac = Mac([2, 0, 0, 0, 0, 0x12]);
pub const STATIONS: [Mac; TAPS] = [ON_0, ON_1, ON_2];
/// A station that the bridge has not heard of.
pub const UNKNOWN: Mac = Mac([2, 0, 0, 0, 0, 0x99]);
/// The bridge's own address, and that of its first port.
pub const BRIDGE: Mac = Mac([2, 0, 0, 0, 1, 0xff]);
pub const PORT: Mac = Mac([2, 0, 0, 0, 1, 0]);

/// The calling thread is in its namespace meanwhile.
pub struct Rig {
    pub programs: Shared,
    pub taps: Vec<Tap>,
    _private: Entered,
}

impl Rig {
    pub fn new(frames: Frames) -> Self {
        let private = netns::enter_private().expect("a private namespace");
        let open = |number| Tap::open(format!("vm{number}")).expect("open a tap");
        let mut rig = Self {
            programs: Shared::take(frames),
            taps: (0..TAPS).map(open).collect(),
            _private: private,
        };
        // With snooping it sends reports of its own; a delay goes by even without a spanning tree
        // (`br_make_forwarding`).
        let bridge =
            format!("link add br0 address {BRIDGE} up type bridge mcast_snooping 0 forward_delay 0\n");
        let ports = (0..TAPS)
            .map(|number| format!("link set vm{number} address 02:00:00:00:01:0{number} master br0\n"));
        run_batch("ip", &[bridge].into_iter().chain(ports).collect::<String>());
        let entries = STATIONS.iter().enumerate();
        let entries = entries.map(|(number, mac)| format!("fdb add {mac} dev vm{number} master static\n"));
        run_batch("bridge", &entries.collect::<String>());
        for tap in &rig.taps {
            rig.programs.enter(tap.name(), tap.ifindex());
        }
        rig
    }

    pub fn ifindex(&self, tap: usize) -> u32 {
        self.taps[tap].ifindex()
    }

    /// The bridge sees each station where it is. Such a frame goes nowhere: sender and receiver are at one port.
    pub fn refresh(&mut self) {
        for (tap, station) in STATIONS.into_iter().enumerate() {
            self.greet(tap, station);
        }
        self.programs.clear();
    }

    /// The bridge sees a station behind a tap, which takes no frame while it is down. One that is gone says nothing.
    pub fn greet(&self, tap: usize, station: Mac) {
        let name = format!("vm{tap}");
        if let Some(tap) = self.taps.iter().find(|tap| tap.name() == name) {
            let _ = tap.send(&VnetHeader::none(), &greeting(station));
        }
    }
}

/// A frame by which a bridge learns of a station and which it sends nowhere.
fn greeting(station: Mac) -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[..6].copy_from_slice(&station.0);
    frame[6..12].copy_from_slice(&station.0);
    // An EtherType for experiments (IEEE 802).
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// Runs commands, with `; ` between them, each of which must succeed.
pub fn shell(commands: &str) {
    for command in commands.split("; ").filter(|command| !command.is_empty()) {
        let (program, arguments) = command.split_once(' ').expect("a program and its arguments");
        let mut process = Command::new(program);
        // Whatever it sets up, nft takes in one piece.
        match program {
            "nft" => process.arg(arguments),
            _ => process.args(arguments.split(' ')),
        };
        let output = process
            .output()
            .unwrap_or_else(|error| panic!("run {program}: {error}"));
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

/// Runs commands of `ip` or `bridge`, a line each, in one process.
fn run_batch(program: &str, lines: &str) {
    let mut process = Command::new(program)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("run {program}: {error}"));
    let mut input = process.stdin.take().expect("its input");
    input.write_all(lines.as_bytes()).expect("write commands");
    drop(input);
    let status = process.wait().expect("wait for it");
    assert!(status.success(), "{program} -batch: {status}\n{lines}");
}
