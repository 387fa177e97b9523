//! What a frame costs on this machine, by the bridge and by the programs: tried out on taps in a network namespace that
//! nobody else sees, in turns.
//!
//! One thread writes a frame and reads it, as two VMMs would, and its own CPU time is what counts: that other processes get
//! the CPU meanwhile makes no frame dearer.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::Path as FilePath,
    time::{Duration, Instant},
};

use bridge_common::{Hook, counters::PathCounters, fastpath::Path};
use nix::time::{ClockId, clock_gettime};

use super::{
    frames::{Address, BROADCAST, Frame, HEADER, Kind},
    model::{Costs, Line},
};
use crate::{
    error::{Context as _, Error, Result},
    fastpath::{Observer, Program},
    kernel::{ioctl, own_network::in_own_network, sysfs::Sysfs},
};

/// How often everything has its turn.
const ROUNDS: usize = 12;
const TURN: Duration = Duration::from_millis(9);
/// Frames between two looks at the clock.
const BATCH: usize = 48;

/// The shortest frame, without FCS.
const SHORT: usize = 60;
const MIDDLE: usize = 512;
const FULL: usize = 1514;
const GSO: [usize; 2] = [15_000, 64_294];
/// Of what can be read at once, the longest.
const BUFFER: usize = HEADER + 65_600;
/// Ports of the bridges that are compared, and of the one by which a further copy is measured.
const PORTS: usize = 3;
const MANY_PORTS: usize = 9;

/// Settings of a bridge that have their part in what a frame costs, as files of its folder `bridge` in sysfs; which rules
/// are called is written first.
const SETTINGS: [&str; 5] = [
    "nf_call_iptables",
    "nf_call_ip6tables",
    "nf_call_arptables",
    "vlan_filtering",
    "multicast_snooping",
];
const CALLS: [&str; 3] = ["iptables", "ip6tables", "arptables"];

/// How a bridge, and the network namespace that it is in, are set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Configuration {
    bridge: Vec<(&'static str, String)>,
    calls: Vec<(&'static str, String)>,
}

fn calls_setting(call: &str) -> String {
    format!("/proc/sys/net/bridge/bridge-nf-call-{call}")
}

impl Configuration {
    /// Of a bridge of the calling thread's network namespace.
    pub fn of(bridge: &str, sysfs: &Sysfs) -> Self {
        let read = |path: &FilePath| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let of_bridge = SETTINGS.into_iter().filter_map(|name| {
            let path = sysfs.path(&format!("class/net/{bridge}/bridge/{name}"));
            Some((name, read(&path)?))
        });
        let calls = CALLS
            .into_iter()
            .filter_map(|call| Some((call, read(FilePath::new(&calls_setting(call)))?)));
        Self {
            bridge: of_bridge.collect(),
            calls: calls.collect(),
        }
    }

    /// Of the calling thread's network namespace, for bridges that are made there.
    fn set_calls(&self) -> Result<()> {
        for (call, value) in &self.calls {
            let path = calls_setting(call);
            fs::write(&path, value).at(path, "write")?;
        }
        Ok(())
    }
}

/// Who carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Carrier {
    Bridge,
    Tcx,
    Both,
}

impl Carrier {
    const ALL: [Self; 3] = [Self::Bridge, Self::Tcx, Self::Both];

    const fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Bridge => &[],
            Self::Tcx => &[Hook::Tcx],
            // In this order, as `attach` has it.
            Self::Both => &[Hook::Tcx, Hook::Xdp],
        }
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Case {
    Short,
    Middle,
    Full,
    ShortPartial,
    FullPartial,
    ShortUnjudged,
    FullUnjudged,
    Gso(usize),
    Broadcast,
    Host,
}

impl Case {
    const OF_ALL: [Self; 7] = [
        Self::Short,
        Self::Middle,
        Self::Full,
        Self::Gso(GSO[0]),
        Self::Gso(GSO[1]),
        Self::Broadcast,
        Self::Host,
    ];
    const OF_XDP: [Self; 4] = [
        Self::ShortPartial,
        Self::FullPartial,
        Self::ShortUnjudged,
        Self::FullUnjudged,
    ];

    const fn frame(self) -> (Kind, usize) {
        match self {
            Self::Short | Self::Broadcast | Self::Host => (Kind::Complete, SHORT),
            Self::Middle => (Kind::Complete, MIDDLE),
            Self::Full => (Kind::Complete, FULL),
            Self::ShortPartial => (Kind::Partial, SHORT),
            Self::FullPartial => (Kind::Partial, FULL),
            Self::ShortUnjudged => (Kind::Unjudged, SHORT),
            Self::FullUnjudged => (Kind::Unjudged, FULL),
            Self::Gso(length) => (Kind::Gso, length),
        }
    }
}

const fn station(port: u8) -> Address {
    [2, 0, 0, 0, 0, port]
}

/// A bridge, its ports, and what is attached to them.
struct Bed {
    taps: Vec<File>,
    first: u32,
    /// The bridge's own address.
    address: Address,
    _links: Vec<OwnedFd>,
}

impl Bed {
    fn make(
        name: &str,
        ports: usize,
        carrier: Carrier,
        configuration: &Configuration,
        observer: &mut Observer,
    ) -> Result<Self> {
        let object = "a bridge to measure frames at";
        let sysfs = Sysfs::open().at("sysfs", "open")?;
        let socket = ioctl::socket().at(object, "make")?;
        ioctl::add_bridge(&socket, name).at(object, "make")?;
        let of_bridge = |setting: &str| sysfs.path(&format!("class/net/{name}/bridge/{setting}"));
        // Its ports are to forward at once.
        fs::write(of_bridge("forward_delay"), "0").at(object, "set up")?;
        for (setting, value) in &configuration.bridge {
            fs::write(of_bridge(setting), value).at(format!("{object}: {setting}"), "write")?;
        }
        let (mut taps, mut links, mut first) = (Vec::new(), Vec::new(), None);
        for number in 0..ports {
            let port = format!("{name}p{number}");
            let (tap, ifindex) = open_tap(&socket, &port, name).at(object, "make a port")?;
            first = first.or(Some(ifindex));
            observer.count(ifindex)?;
            for &hook in carrier.hooks() {
                let link = observer.attach(Program::Carry(hook), ifindex);
                links.push(link.at(object, "attach a program")?);
            }
            taps.push(tap);
        }
        ioctl::set_up(&socket, name).at(object, "set up")?;
        let address = fs::read_to_string(sysfs.path(&format!("class/net/{name}/address")));
        let bed = Self {
            taps,
            first: first.unwrap_or(0),
            address: address
                .ok()
                .and_then(|text| parse(text.trim()))
                .unwrap_or_default(),
            _links: links,
        };
        bed.introduce().at(object, "send a frame")?;
        Ok(bed)
    }

    /// Makes a station behind every port known.
    fn introduce(&self) -> io::Result<()> {
        for (port, tap) in (0..).zip(&self.taps) {
            write(tap, &Frame::new(Kind::Complete, SHORT, station(port), BROADCAST))?;
        }
        let mut buffer = vec![0; BUFFER];
        for mut tap in &self.taps {
            while tap.read(&mut buffer).is_ok() {}
        }
        Ok(())
    }

    /// CPU time of one frame, in nanoseconds: the lower quartile of the batches of a turn, since what disturbs makes some of
    /// them longer and none shorter.
    fn measure(&self, case: Case) -> io::Result<f64> {
        let (to, readers) = match case {
            Case::Broadcast => (BROADCAST, &self.taps[1..]),
            Case::Host => (self.address, &self.taps[..0]),
            _ => (station(1), &self.taps[1..2]),
        };
        let (kind, length) = case.frame();
        let frame = Frame::new(kind, length, station(0), to);
        let mut buffer = vec![0; BUFFER];
        let mut send = |count: usize| -> io::Result<()> {
            for _ in 0..count {
                write(&self.taps[0], &frame)?;
                for mut reader in readers {
                    // A frame is read whole, or not at all.
                    let _ = reader.read(&mut buffer)?;
                }
            }
            Ok(())
        };
        // The caches are another's.
        send(BATCH / 4)?;
        let mut batches = Vec::new();
        let start = Instant::now();
        while start.elapsed() < TURN || batches.is_empty() {
            let before = cpu_time()?;
            send(BATCH)?;
            batches.push(cpu_time()?.saturating_sub(before));
        }
        batches.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "there are few in a batch")]
        Ok(batches[batches.len() / 4].as_secs_f64() * 1e9 / BATCH as f64)
    }
}

/// Of the calling thread.
fn cpu_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn open_tap(socket: &OwnedFd, port: &str, bridge: &str) -> io::Result<(File, u32)> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    ioctl::make_tap_of_vmm(&tap, port)?;
    let ifindex = ioctl::index(socket, port)?;
    ioctl::add_port(socket, bridge, ifindex)?;
    ioctl::set_up(socket, port)?;
    Ok((tap, ifindex))
}

fn write(mut tap: &File, frame: &Frame) -> io::Result<()> {
    let parts = [IoSlice::new(&frame.header), IoSlice::new(&frame.bytes)];
    tap.write_vectored(&parts).map(drop)
}

/// An address as sysfs has it.
fn parse(text: &str) -> Option<Address> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

/// Finds out what frames cost at a bridge that is set up so: once for each round.
pub(super) fn calibrate(configuration: &Configuration, observer: &mut Observer) -> Result<Vec<Costs>> {
    in_own_network(|| {
        // Nobody shall be asked for duplicates of an address, nor anything else be sent.
        match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).at("IPv6", "switch off");
            }
            _ => {}
        }
        configuration.set_calls()?;
        let before = observer.carried()?;
        let mut beds = Vec::new();
        for (number, carrier) in Carrier::ALL.into_iter().enumerate() {
            let bed = Bed::make(&format!("br{number}"), PORTS, carrier, configuration, observer)?;
            beds.push((carrier, bed));
        }
        let many = Bed::make("many", MANY_PORTS, Carrier::Bridge, configuration, observer)?;
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            // What drifts meanwhile then favours neither the first nor the last.
            if round % 2 == 1 {
                beds.reverse();
            }
            rounds.push(measure_round(&beds, &many).at("frames of its own", "send and receive")?);
            if round % 2 == 1 {
                beds.reverse();
            }
        }
        check(&beds, &before, observer)?;
        Ok(rounds)
    })
}

fn measure_round(beds: &[(Carrier, Bed)], many: &Bed) -> io::Result<Costs> {
    let mut found = HashMap::new();
    for (_, bed) in beds {
        // The bridge is to have seen every station a moment ago.
        bed.introduce()?;
    }
    for case in Case::OF_ALL {
        for (carrier, bed) in beds {
            found.insert((*carrier, case), bed.measure(case)?);
        }
    }
    for case in Case::OF_XDP {
        for (carrier, bed) in beds.iter().filter(|(carrier, _)| *carrier == Carrier::Both) {
            found.insert((*carrier, case), bed.measure(case)?);
        }
    }
    let broadcast_to_many = many.measure(Case::Broadcast)?;
    let cost = |carrier, case| found.get(&(carrier, case)).copied().unwrap_or(f64::NAN);
    let short_frames = |carrier| {
        Line::new([
            (SHORT, cost(carrier, Case::Short)),
            (MIDDLE, cost(carrier, Case::Middle)),
            (FULL, cost(carrier, Case::Full)),
        ])
    };
    let of_xdp = |short, full| {
        Line::new([
            (SHORT, cost(Carrier::Both, short)),
            (FULL, cost(Carrier::Both, full)),
        ])
    };
    // It begins where others end.
    let long = |carrier, full| {
        Line::new([
            (FULL, cost(carrier, full)),
            (GSO[0], cost(carrier, Case::Gso(GSO[0]))),
            (GSO[1], cost(carrier, Case::Gso(GSO[1]))),
        ])
    };
    // What the programs' being there costs a frame that they leave: of two kinds, which are left at once.
    let left = |carrier| {
        let more =
            [Case::Broadcast, Case::Host].map(|case| cost(carrier, case) - cost(Carrier::Bridge, case));
        f64::midpoint(more[0], more[1])
    };
    #[expect(clippy::cast_precision_loss, reason = "there are few ports")]
    let further = (MANY_PORTS - PORTS) as f64;
    Ok(Costs {
        bridge: short_frames(Carrier::Bridge),
        tcx: short_frames(Carrier::Tcx),
        xdp: short_frames(Carrier::Both),
        completed: of_xdp(Case::ShortPartial, Case::FullPartial),
        passed_up: of_xdp(Case::ShortUnjudged, Case::FullUnjudged),
        bulk_bridge: long(Carrier::Bridge, Case::Full),
        bulk_tcx: long(Carrier::Tcx, Case::Full),
        bulk_passed_up: long(Carrier::Both, Case::FullUnjudged),
        left_by_tcx: left(Carrier::Tcx),
        left_by_both: left(Carrier::Both),
        host: cost(Carrier::Bridge, Case::Host) - cost(Carrier::Bridge, Case::Short),
        copy: (broadcast_to_many - cost(Carrier::Bridge, Case::Broadcast)) / further,
    })
}

/// The frames went the ways that they were to go. Devices of earlier namespaces may have had the same indices.
fn check(beds: &[(Carrier, Bed)], before: &[(Path, PathCounters)], observer: &Observer) -> Result<()> {
    let now = observer.carried()?;
    let frames = |carried: &[(Path, PathCounters)], bed: &Bed, hook: Hook| -> u64 {
        let from = carried.iter().filter(|(path, _)| path.from == bed.first);
        from.map(|(_, counters)| counters.via[hook as usize].frames).sum()
    };
    let by = |bed: &Bed, hook: Hook| frames(&now, bed, hook) - frames(before, bed, hook);
    for (carrier, bed) in beds {
        for hook in Hook::ALL {
            let is_wanted = carrier.hooks().contains(&hook);
            if is_wanted != (by(bed, hook) > 0) {
                let missing = if is_wanted { "no frame" } else { "a frame" };
                return Err(Error::System {
                    object: "fast path".into(),
                    action: "find out what frames cost",
                    cause: format!("{missing} went by {} where it was tried out", hook.name()),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_sysfs_has_them() {
        assert_eq!(parse("02:00:00:0a:ff:01"), Some([2, 0, 0, 10, 255, 1]));
        assert_eq!(parse("02:00:00"), None);
        assert_eq!(parse("02:00:00:0a:ff:zz"), None);
    }
}
