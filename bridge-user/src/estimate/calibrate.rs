//! What a frame costs on this machine, by the bridge and by the programs: tried out on taps in a network namespace that
//! nobody else sees, in turns.
//!
//! One thread writes frames on one CPU and reads them on another, as two VMMs would, and its own CPU time is what counts: that
//! other processes get the CPUs meanwhile makes no frame dearer.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, IoSlice, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path as FilePath,
    time::{Duration, Instant},
};

use bridge_common::{Hook, counters::PathCounters, fastpath::Path};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};
use rtnetlink::packet_route::link::InfoBridge;
use tokio::runtime::{Builder, Runtime};

use super::{
    cpus::Cpus,
    frames::{Address, BROADCAST, Frame, HEADER, Kind, SHORTEST_UNJUDGED},
    model::{Costs, Line},
};
use crate::{
    error::{Context as _, Result},
    fastpath::{Observer, Program},
    kernel::{ioctl, netlink::Netlink, own_network::in_own_network, sysfs::Sysfs},
};

/// How often everything has its turn.
const ROUNDS: usize = 12;
const TURN: Duration = Duration::from_millis(9);
/// A frame that is longer on its way is lost.
const ARRIVES: Duration = Duration::from_secs(1);
/// Frames that are written before they are read, and those of many segments, which are to fit into a CPU's caches.
const BATCH: usize = 48;
const BATCH_OF_GSO: usize = 8;

/// The shortest frame, without FCS.
const SHORT: usize = 60;
const MIDDLE: usize = 512;
const FULL: usize = 1514;
/// The first is of few segments: what it costs that there are several, all have.
const GSO: [usize; 3] = [3000, 15_000, 64_294];
/// Of what can be read at once, the longest.
const BUFFER: usize = HEADER + 65_600;
/// Ports of the bridges that are compared, and of the one by which a further copy is measured.
const PORTS: usize = 3;
const MANY_PORTS: usize = 9;

/// A setting of a bridge, as a message has it.
type Setting = fn(bool) -> InfoBridge;

/// Settings of a bridge that have their part in what a frame costs, as files of its folder `bridge` in sysfs.
const SETTINGS: [(&str, Setting); 5] = [
    ("nf_call_iptables", InfoBridge::NfCallIpTables),
    ("nf_call_ip6tables", InfoBridge::NfCallIp6Tables),
    ("nf_call_arptables", InfoBridge::NfCallArpTables),
    ("vlan_filtering", InfoBridge::VlanFiltering),
    ("multicast_snooping", InfoBridge::MulticastSnooping),
];
const CALLS: [&str; 3] = ["iptables", "ip6tables", "arptables"];

/// How a bridge, and the network namespace that it is in, are set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Configuration {
    /// By their places among [`SETTINGS`].
    bridge: Vec<(usize, bool)>,
    calls: Vec<(&'static str, String)>,
}

fn calls_setting(call: &str) -> String {
    format!("/proc/sys/net/bridge/bridge-nf-call-{call}")
}

impl Configuration {
    /// Of a bridge of the calling thread's network namespace.
    pub fn of(bridge: &str, sysfs: &Sysfs) -> Self {
        let read = |path: &FilePath| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let of_bridge = SETTINGS.iter().enumerate().filter_map(|(place, (name, _))| {
            let path = sysfs.path(&format!("class/net/{bridge}/bridge/{name}"));
            Some((place, read(&path)? != "0"))
        });
        let calls = CALLS
            .into_iter()
            .filter_map(|call| Some((call, read(FilePath::new(&calls_setting(call)))?)));
        Self {
            bridge: of_bridge.collect(),
            calls: calls.collect(),
        }
    }

    /// For a bridge that is made so.
    fn settings(&self) -> Vec<InfoBridge> {
        let mut settings: Vec<InfoBridge> = self
            .bridge
            .iter()
            .map(|&(place, value)| SETTINGS[place].1(value))
            .collect();
        // Its ports are to forward at once.
        settings.push(InfoBridge::ForwardDelay(0));
        settings
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
    /// The bridge, and they are looked at.
    Observed,
    Tcx,
    Both,
}

impl Carrier {
    const ALL: [Self; 4] = [Self::Bridge, Self::Observed, Self::Tcx, Self::Both];

    const fn programs(self) -> &'static [Program] {
        match self {
            Self::Bridge => &[],
            Self::Observed => &[Program::Observe],
            Self::Tcx => &[Program::Carry(Hook::Tcx)],
            // In this order, as `attach` has it.
            Self::Both => &[Program::Carry(Hook::Tcx), Program::Carry(Hook::Xdp)],
        }
    }

    /// Whether something hangs on what these frames cost there.
    const fn is_asked(self, case: Case) -> bool {
        match self {
            Self::Observed => matches!(case, Case::Short),
            Self::Bridge | Self::Tcx => !case.is_of_xdp(),
            Self::Both => true,
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
    Unknown,
    Host,
}

impl Case {
    const ALL: [Self; 13] = [
        Self::Short,
        Self::Middle,
        Self::Full,
        Self::Gso(GSO[0]),
        Self::Gso(GSO[1]),
        Self::Gso(GSO[2]),
        Self::Broadcast,
        Self::Unknown,
        Self::Host,
        Self::ShortPartial,
        Self::FullPartial,
        Self::ShortUnjudged,
        Self::FullUnjudged,
    ];

    /// Whether only XDP tells them from others.
    const fn is_of_xdp(self) -> bool {
        matches!(
            self,
            Self::ShortPartial | Self::FullPartial | Self::ShortUnjudged | Self::FullUnjudged
        )
    }

    const fn frame(self) -> (Kind, usize) {
        match self {
            Self::Short | Self::Broadcast | Self::Unknown | Self::Host => (Kind::Complete, SHORT),
            Self::Middle => (Kind::Complete, MIDDLE),
            Self::Full => (Kind::Complete, FULL),
            Self::ShortPartial => (Kind::Partial, SHORT),
            Self::FullPartial => (Kind::Partial, FULL),
            Self::ShortUnjudged => (Kind::Unjudged, SHORTEST_UNJUDGED),
            Self::FullUnjudged => (Kind::Unjudged, FULL),
            Self::Gso(length) => (Kind::Gso, length),
        }
    }
}

/// Of the bridges themselves.
const OF_BRIDGE: Address = [2, 0, 0, 0, 1, 0];
/// Nobody has it.
const UNKNOWN: Address = [2, 0, 0, 0, 2, 0];

const fn station(port: u8) -> Address {
    [2, 0, 0, 0, 0, port]
}

/// By what bridges and ports are made in the calling thread's network namespace. All that is asked for by name is asked
/// there: a sysfs may be another namespace's.
struct Workshop<'all> {
    runtime: Runtime,
    netlink: Netlink,
    socket: OwnedFd,
    configuration: &'all Configuration,
}

impl<'all> Workshop<'all> {
    fn open(configuration: &'all Configuration) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build();
        let runtime = runtime.at("an event loop", "make")?;
        let netlink = runtime.block_on(async { Netlink::connect() })?;
        Ok(Self {
            runtime,
            netlink,
            socket: ioctl::socket().at("a socket", "open")?,
            configuration,
        })
    }

    fn add_bridge(&self, name: &str) -> Result<()> {
        let settings = self.configuration.settings();
        self.runtime
            .block_on(self.netlink.add_bridge(name, OF_BRIDGE, settings))?;
        ioctl::set_up(&self.socket, name).at(name, "set up")
    }

    /// What XDP finds at a port must not hang on which queueing discipline is the default.
    fn add_port(&self, port: &str, bridge: &str) -> Result<(File, u32)> {
        let (tap, ifindex) =
            open_tap(&self.socket, port, bridge).at("a port to measure frames at", "make")?;
        self.runtime.block_on(self.netlink.remove_queue(ifindex))?;
        Ok((tap, ifindex))
    }
}

/// A bridge, its ports, and what is attached to them.
struct Bed {
    taps: Vec<File>,
    first: u32,
    _links: Vec<OwnedFd>,
}

impl Bed {
    fn make(
        name: &str,
        ports: usize,
        carrier: Carrier,
        workshop: &Workshop<'_>,
        observer: &mut Observer,
    ) -> Result<Self> {
        let object = "a bridge to measure frames at";
        workshop.add_bridge(name)?;
        let (mut taps, mut links, mut first) = (Vec::new(), Vec::new(), None);
        for number in 0..ports {
            let (tap, ifindex) = workshop.add_port(&format!("{name}p{number}"), name)?;
            first = first.or(Some(ifindex));
            observer.count(ifindex)?;
            for &program in carrier.programs() {
                let link = observer.attach(program, ifindex);
                links.push(link.at(object, "attach a program")?);
            }
            taps.push(tap);
        }
        let bed = Self {
            taps,
            first: first.unwrap_or(0),
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
    fn measure(&self, case: Case, cpus: &Cpus) -> io::Result<f64> {
        let (to, readers) = match case {
            Case::Broadcast => (BROADCAST, &self.taps[1..]),
            Case::Unknown => (UNKNOWN, &self.taps[1..]),
            Case::Host => (OF_BRIDGE, &self.taps[..0]),
            _ => (station(1), &self.taps[1..2]),
        };
        let (kind, length) = case.frame();
        let frame = Frame::new(kind, length, station(0), to);
        let batch = if matches!(case, Case::Gso(_)) {
            BATCH_OF_GSO
        } else {
            BATCH
        };
        let mut buffer = vec![0; BUFFER];
        let mut send = || -> io::Result<Duration> {
            cpus.write()?;
            let begin = cpu_time()?;
            for _ in 0..batch {
                write(&self.taps[0], &frame)?;
            }
            let written = cpu_time()?.saturating_sub(begin);
            cpus.read()?;
            let begin = cpu_time()?;
            for reader in readers {
                for _ in 0..batch {
                    receive(reader, &mut buffer)?;
                }
            }
            Ok(written + cpu_time()?.saturating_sub(begin))
        };
        // The caches are another's.
        send()?;
        let mut batches = Vec::new();
        let start = Instant::now();
        while start.elapsed() < TURN || batches.is_empty() {
            batches.push(send()?);
        }
        batches.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "there are few in a batch")]
        Ok(batches[batches.len() / 4].as_secs_f64() * 1e9 / batch as f64)
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

/// A frame is read whole, or not at all.
fn receive(mut tap: &File, buffer: &mut [u8]) -> io::Result<()> {
    let begin = Instant::now();
    loop {
        match tap.read(buffer) {
            // Receive packet steering may have another CPU carry it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if begin.elapsed() > ARRIVES {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "one that was sent has not arrived within a second",
                    ));
                }
                let wanted = PollFd::new(tap.as_fd(), PollFlags::POLLIN);
                poll(&mut [wanted], PollTimeout::from(100_u8))?;
            }
            read => return read.map(drop),
        }
    }
}

/// What was found out.
#[derive(Clone, Debug)]
pub(super) struct Calibrated {
    /// In each round.
    pub costs: Vec<Costs>,
    /// Hooks by which no frame went even here: what they cost is what it takes whoever carries the frames instead.
    pub idle: Vec<Hook>,
}

/// Finds out what frames cost at a bridge that is set up so.
pub(super) fn calibrate(configuration: &Configuration, observer: &mut Observer) -> Result<Calibrated> {
    in_own_network(|| {
        // Nobody shall be asked for duplicates of an address, nor anything else be sent.
        match fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).at("IPv6", "switch off");
            }
            _ => {}
        }
        configuration.set_calls()?;
        let workshop = Workshop::open(configuration)?;
        let before = observer.carried()?;
        let mut beds = Vec::new();
        for (number, carrier) in Carrier::ALL.into_iter().enumerate() {
            let bed = Bed::make(&format!("br{number}"), PORTS, carrier, &workshop, observer)?;
            beds.push((carrier, bed));
        }
        let many = Bed::make("many", MANY_PORTS, Carrier::Bridge, &workshop, observer)?;
        let cpus = Cpus::choose().at("two CPUs", "choose")?;
        let mut rounds = Vec::new();
        for round in 0..ROUNDS {
            // What drifts meanwhile then favours neither the first nor the last.
            if round % 2 == 1 {
                beds.reverse();
            }
            rounds.push(measure_round(&beds, &many, &cpus).at("frames of its own", "send and receive")?);
            if round % 2 == 1 {
                beds.reverse();
            }
        }
        Ok(Calibrated {
            costs: rounds,
            idle: idle(&beds, &before, observer)?,
        })
    })
}

fn measure_round(beds: &[(Carrier, Bed)], many: &Bed, cpus: &Cpus) -> io::Result<Costs> {
    let mut found = HashMap::new();
    for (_, bed) in beds {
        // The bridge is to have seen every station a moment ago.
        bed.introduce()?;
    }
    for case in Case::ALL {
        for (carrier, bed) in beds.iter().filter(|(carrier, _)| carrier.is_asked(case)) {
            found.insert((*carrier, case), bed.measure(case, cpus)?);
        }
    }
    let broadcast_to_many = many.measure(Case::Broadcast, cpus)?;
    let cost = |carrier, case| found.get(&(carrier, case)).copied().unwrap_or(f64::NAN);
    let short_frames = |carrier| {
        Line::new([
            (SHORT, cost(carrier, Case::Short)),
            (MIDDLE, cost(carrier, Case::Middle)),
            (FULL, cost(carrier, Case::Full)),
        ])
    };
    let of_xdp = |short: Case, full: Case| {
        Line::new([short, full].map(|case| (case.frame().1, cost(Carrier::Both, case))))
    };
    let long = |carrier| Line::new(GSO.map(|length| (length, cost(carrier, Case::Gso(length)))));
    // What the programs' being there costs a frame that they leave: of those that are left at once, and last.
    let left = |carrier| {
        let kinds = [Case::Broadcast, Case::Host, Case::Unknown];
        let more = kinds.map(|case| (cost(carrier, case) - cost(Carrier::Bridge, case)).max(0.0));
        more.iter().sum::<f64>() / 3.0
    };
    #[expect(clippy::cast_precision_loss, reason = "there are few ports")]
    let further = (MANY_PORTS - PORTS) as f64;
    Ok(Costs {
        bridge: short_frames(Carrier::Bridge),
        tcx: short_frames(Carrier::Tcx),
        xdp: short_frames(Carrier::Both),
        completed: of_xdp(Case::ShortPartial, Case::FullPartial),
        passed_up: of_xdp(Case::ShortUnjudged, Case::FullUnjudged),
        bulk_bridge: long(Carrier::Bridge),
        bulk_tcx: long(Carrier::Tcx),
        bulk_passed_up: long(Carrier::Both),
        left_by_tcx: left(Carrier::Tcx),
        left_by_both: left(Carrier::Both),
        host: cost(Carrier::Bridge, Case::Host) - cost(Carrier::Bridge, Case::Short),
        copy: (broadcast_to_many - cost(Carrier::Bridge, Case::Broadcast)) / further,
        observer: cost(Carrier::Observed, Case::Short) - cost(Carrier::Bridge, Case::Short),
    })
}

/// Hooks by which no frame went where they were to carry them: what is everybody's, as somebody who listens at all devices
/// of some kernels, is in the way here too. Devices of earlier namespaces may have had the same indices.
fn idle(beds: &[(Carrier, Bed)], before: &[(Path, PathCounters)], observer: &Observer) -> Result<Vec<Hook>> {
    let now = observer.carried()?;
    let frames = |carried: &[(Path, PathCounters)], bed: &Bed, hook: Hook| -> u64 {
        let from = carried.iter().filter(|(path, _)| path.from == bed.first);
        from.map(|(_, counters)| counters.via[hook as usize].frames).sum()
    };
    let is_idle = |hook: &Hook| {
        let program = Program::Carry(*hook);
        let meant = beds
            .iter()
            .filter(|(carrier, _)| carrier.programs().contains(&program));
        meant
            .into_iter()
            .any(|(_, bed)| frames(&now, bed, *hook) == frames(before, bed, *hook))
    };
    Ok(Hook::ALL.into_iter().filter(is_idle).collect())
}
