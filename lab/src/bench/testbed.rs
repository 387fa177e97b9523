//! A datapath with its ports, in a network namespace of its own.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
// A floor is at one hook; which hooks a port has can be its own choice.
use bridge_common::Hook as Place;
use lab::{
    Macvtap, Namespace, Offloads, Tap,
    netns::{self, Entered},
    pump,
};
use nix::{errno::Errno, unistd::read};

use super::{
    auto::Auto,
    case::{Case, Topology, Work},
    fastpath::{Fastpath, PortHooks},
    floor::Floor,
    frame::{BROADCAST, Frame, FrameKind, HOST, LEAST_QUIC, SHORTEST, VLAN, station, text},
    io::write,
    overlay,
    uplink::{self, Uplink},
};
use crate::{
    host::process,
    testbed::datapath::{Hook, ip, linux_bridge, macvtap},
};

/// Where pins lie can be chosen by this variable; here they are to lie in the bpffs that goes with this process.
pub const STATE: &str = "TAPBRIDGE_STATE";

/// Where the kernel has `br_netfilter`.
const CALL_IPTABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// An hour, in hundredths of a second.
const AGEING_TIME: &str = "360000";
/// The one that every new port has.
const DEFAULT_VLAN: &str = "1";
/// One that every frame of IPv4 meets, and that lets it pass.
const RULE: &str = "add table ip bench; \
    add chain ip bench forward { type filter hook forward priority 0 ; }; \
    add rule ip bench forward ip daddr 192.0.2.1 drop";

/// What a topology needs that this machine's kernel lacks.
pub fn lacks(topology: Topology) -> Result<Option<&'static str>> {
    let filtered = matches!(topology, Topology::Called | Topology::Ruled);
    Ok(if filtered && !Path::new(CALL_IPTABLES).exists() {
        Some("br_netfilter")
    } else if topology.tags().is_some() && !netns::can_filter_vlans()? {
        Some("bridge that filters VLANs (CONFIG_BRIDGE_VLAN_FILTERING)")
    } else if topology == Topology::Overlay
        && !netns::makes(&["type", "vxlan", "id", "1", "dstport", "4789"])?
    {
        Some("VXLAN")
    } else {
        None
    })
}

/// The longest frame and its header.
pub const BUFFER: usize = pump::BUFFER;

/// What is measured, and what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    LinuxBridge,
    Macvtap,
    /// The Linux bridge, its ports attached.
    Tapbridge(Hook),
    Floor(Place),
}

impl Datapath {
    /// In the order in which they are measured and reported.
    pub const ALL: [Self; 7] = [
        Self::LinuxBridge,
        Self::Macvtap,
        Self::Tapbridge(Hook::Xdp),
        Self::Tapbridge(Hook::Tcx),
        Self::Tapbridge(Hook::Auto),
        Self::Floor(Place::Xdp),
        Self::Floor(Place::Tcx),
    ];

    /// In results and budgets.
    pub fn name(self) -> &'static str {
        match self {
            Self::LinuxBridge => "linux-bridge",
            Self::Macvtap => "macvtap",
            Self::Tapbridge(Hook::Auto) => "tapbridge-auto",
            Self::Tapbridge(Hook::Xdp) => "tapbridge-xdp",
            Self::Tapbridge(Hook::Tcx) => "tapbridge-tcx",
            Self::Floor(Place::Xdp) => "floor-xdp",
            Self::Floor(Place::Tcx) => "floor-tcx",
        }
    }

    /// Whether what it did before changes what it does, so that every case needs a testbed of its own.
    pub fn remembers(self) -> bool {
        self == Self::Tapbridge(Hook::Auto)
    }

    /// Whether it can do what a case is about. Generic XDP redirects nothing that is longer than the MTU, and a long
    /// segment is.
    pub fn does(self, case: &Case) -> bool {
        let this_case = match case.work {
            // One case for every choice that there is.
            work if self.remembers() => matches!(
                work,
                Work::Mix
                    | Work::WriteRead(
                        FrameKind::Complete(SHORTEST)
                            | FrameKind::Partial(1514)
                            | FrameKind::Datagram(LEAST_QUIC)
                            | FrameKind::Tunnel
                            | FrameKind::Tso4
                    )
            ),
            Work::WriteRead(FrameKind::Tso4 | FrameKind::Tso6) => self != Self::Floor(Place::Xdp),
            // Those know no stations, and have no host behind them.
            Work::Host | Work::Unknown => self != Self::Macvtap,
            // A floor is the least that one kind of frame can cost.
            Work::Mix => !matches!(self, Self::Floor(_)),
            // The others have no statistics by paths.
            Work::Steady { .. } => matches!(self, Self::Tapbridge(_)),
            _ => true,
        };
        this_case && self.fits(case.topology)
    }

    /// Whether it can be among so many. The floor knows one way only; a macvtap knows its guest's address alone, and
    /// has one lower device for all ports.
    pub fn fits(self, topology: Topology) -> bool {
        match self {
            Self::LinuxBridge | Self::Tapbridge(Hook::Xdp | Hook::Tcx) => true,
            Self::Tapbridge(Hook::Auto) => topology == Topology::Pair,
            Self::Macvtap => matches!(
                topology,
                Topology::Pair | Topology::Jumbo | Topology::Three | Topology::Nine | Topology::SixtyFive
            ),
            Self::Floor(_) => topology.keeps() || matches!(topology, Topology::Pair | Topology::Jumbo),
        }
    }

    /// Whether the kernel's bridge decides, alone or with programs at its ports.
    fn is_bridge(self, topology: Topology) -> bool {
        match self {
            Self::LinuxBridge | Self::Tapbridge(_) => true,
            Self::Floor(_) => topology.keeps(),
            Self::Macvtap => false,
        }
    }
}

/// A port, as its VMM holds it.
type Port = Box<dyn AsFd + Send + Sync>;

/// Ports that a datapath connects, their stations known to it. The ports go when this is dropped, and the namespace
/// with all that is in it when the last of them has gone.
pub struct BenchTestbed {
    pub datapath: Datapath,
    topology: Topology,
    /// Before the ports that it is of.
    pub auto: Option<Auto>,
    ports: Vec<Port>,
    _floors: Vec<Floor>,
    /// Of each host where ports are attached.
    fastpaths: Vec<Fastpath>,
    host: Namespace,
    /// The second port's, where it is another one.
    _other_host: Option<Namespace>,
    program: PathBuf,
}

impl BenchTestbed {
    /// `program` is this project's binary.
    pub fn new(datapath: Datapath, topology: Topology, program: &Path) -> Result<Self> {
        let host = new_host()?;
        let other_host = (topology == Topology::Overlay).then(new_host).transpose()?;
        let (mut floors, mut fastpaths) = (Vec::new(), Vec::new());
        let ports = if datapath == Datapath::Macvtap {
            macvtaps(&host, topology)?
        } else if let Some(other) = &other_host {
            let hosts = [&host, other];
            overlay::connect(hosts)?;
            let mut ports = Vec::new();
            for (number, host) in hosts.into_iter().enumerate() {
                let tap = open_tap(host, topology, number)?;
                let names = [tap.name(), overlay::NAME];
                connect(host, topology, &names)?;
                if let Datapath::Tapbridge(hook) = datapath {
                    fastpaths.push(Fastpath::attach(host, hook, &names)?);
                }
                ports.push(Box::new(tap) as Port);
            }
            ports
        } else {
            let first = usize::from(topology == Topology::Uplink);
            let taps = (first..topology.ports()).map(|port| open_tap(&host, topology, port));
            let taps = taps.collect::<Result<Vec<_>>>()?;
            let mut names: Vec<&str> = taps.iter().map(Tap::name).collect();
            let uplink = (topology == Topology::Uplink)
                .then(|| Uplink::make(&host))
                .transpose()?;
            if uplink.is_some() {
                names.insert(0, uplink::NAME);
            }
            if datapath.is_bridge(topology) {
                connect(&host, topology, &names)?;
            }
            match datapath {
                Datapath::LinuxBridge => {}
                Datapath::Tapbridge(hook) => fastpaths.push(Fastpath::attach(&host, hook, &names)?),
                Datapath::Floor(place) if topology.keeps() => floors = idle(&host, place, &taps)?,
                Datapath::Floor(place) => floors = self::floors(&host, place, &taps)?,
                Datapath::Macvtap => unreachable!("has no taps"),
            }
            let uplink = uplink.map(|uplink| Box::new(uplink) as Port);
            let taps = taps.into_iter().map(|tap| Box::new(tap) as Port);
            uplink.into_iter().chain(taps).collect()
        };
        let testbed = Self {
            datapath,
            topology,
            auto: None,
            ports,
            _floors: floors,
            fastpaths,
            host,
            _other_host: other_host,
            program: program.into(),
        };
        testbed
            .introduce()
            .context("letting the stations make themselves known")?;
        Ok(testbed)
    }

    /// Whether the case is to be measured here.
    pub fn has(&self, case: &Case) -> bool {
        let others = self.auto.as_ref().is_some_and(|auto| auto.case.name != case.name);
        !others && self.topology == case.topology && self.datapath.does(case)
    }

    /// Takes it apart; unlike a drop it tells what went wrong.
    pub fn end(self) -> Result<()> {
        for fastpath in &self.fastpaths {
            eprintln!(
                "{}, {} ports: {}",
                self.datapath.name(),
                self.ports.len(),
                fastpath.text()?
            );
        }
        self.auto.map_or(Ok(()), Auto::end)
    }

    /// Whether a device is between the ports that need not hand a frame on before the call ends that has written it.
    pub fn is_deferred(&self) -> bool {
        matches!(self.topology, Topology::Uplink | Topology::Overlay)
    }

    pub fn port(&self, number: usize) -> BorrowedFd<'_> {
        self.ports[number].as_fd()
    }

    /// Throws away what waits to be read; returns how many frames that were.
    pub fn drain(&self) -> Result<u64> {
        let mut buffer = vec![0; BUFFER];
        let mut frames = 0;
        for port in &self.ports {
            while receive(port.as_fd(), &mut buffer)? {
                frames += 1;
            }
        }
        Ok(frames)
    }

    /// Moves the calling thread to where the ports are, until what is answered with is dropped.
    pub fn enter(&self) -> Result<Entered> {
        Ok(self.host.enter()?)
    }

    /// A command line of this project's binary, to be continued.
    pub fn tapbridge(&self) -> Result<Command> {
        let mut tapbridge = self.host.command(&self.program)?;
        tapbridge.env_remove(STATE);
        Ok(tapbridge)
    }

    /// The hooks that its ports have now, where they are attached.
    pub fn hooks(&self) -> Result<Vec<PortHooks>> {
        let hooks: Vec<_> = self
            .fastpaths
            .iter()
            .map(Fastpath::hooks)
            .collect::<Result<_>>()?;
        Ok(hooks.concat())
    }

    /// Has its bridge forget the stations of a port.
    pub fn forget(&self, port: usize) -> Result<()> {
        let words = [
            "link",
            "set",
            "dev",
            &name(port),
            "type",
            "bridge_slave",
            "fdb_flush",
        ];
        ip(&self.host, &words)
    }

    /// Every station sends a frame: the first of a port to all, the others to the first of another port.
    fn introduce(&self) -> Result<()> {
        if !self.datapath.is_bridge(self.topology) {
            return Ok(());
        }
        let tags = self.topology.tags();
        let mut frame = Frame::new(FrameKind::Complete(SHORTEST), BROADCAST, BROADCAST);
        for port in 0..self.ports.len() {
            if let Some(tags) = tags {
                let kind = if tags[port] {
                    FrameKind::Tagged
                } else {
                    FrameKind::Complete(SHORTEST)
                };
                frame = Frame::new(kind, BROADCAST, BROADCAST);
            }
            frame.address(station(port, 0), BROADCAST);
            write(self.port(port), &frame)?;
        }
        self.drain()?;
        let mut buffer = vec![0; BUFFER];
        for port in 0..self.ports.len() {
            let other = usize::from(port == 0);
            for number in 1..self.topology.addresses() {
                frame.address(station(port, number), station(other, 0));
                write(self.port(port), &frame)?;
                receive(self.port(other), &mut buffer)?;
            }
        }
        self.drain().map(drop)
    }
}

/// Reads a frame; `false` if none waits.
pub fn receive(port: BorrowedFd, buffer: &mut [u8]) -> Result<bool> {
    match read(port, buffer) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN) => Ok(false),
        Err(error) => Err(error).context("reading from a port"),
    }
}

fn name(port: usize) -> String {
    format!("vm{port}")
}

/// A namespace in which nothing but the bench sends anything.
fn new_host() -> Result<Namespace> {
    let host = Namespace::anonymous()?;
    host.run(netns::disable_ipv6)?;
    Ok(host)
}

fn open_tap(host: &Namespace, topology: Topology, port: usize) -> Result<Tap> {
    host.run(|| {
        let tap = Tap::builder(name(port)).mtu(topology.mtu()).open()?;
        tap.up()?;
        Ok(tap)
    })
}

/// A Linux bridge of these ports, with what surrounds it.
fn connect(host: &Namespace, topology: Topology, ports: &[&str]) -> Result<()> {
    linux_bridge::connect(host, ports)?;
    ip(
        host,
        &["link", "set", "dev", linux_bridge::BRIDGE, "address", &text(HOST)],
    )?;
    // Who only receives is to be known to the end.
    let bridge = ["link", "set", "dev", linux_bridge::BRIDGE, "type", "bridge"];
    ip(host, &[&bridge[..], &["ageing_time", AGEING_TIME]].concat())?;
    if let Some(tags) = topology.tags() {
        ip(host, &[&bridge[..], &["vlan_filtering", "1"]].concat())?;
        for (port, tagged) in ports.iter().zip(tags) {
            let vlan = VLAN.to_string();
            let how: &[&str] = if tagged { &[] } else { &["pvid", "untagged"] };
            vlan_command(host, &[&["add", "dev", port, "vid", &vlan], how].concat())?;
            vlan_command(host, &["del", "dev", port, "vid", DEFAULT_VLAN])?;
        }
    }
    if matches!(topology, Topology::Called | Topology::Ruled) {
        host.run(|| fs::write(CALL_IPTABLES, "1"))
            .with_context(|| format!("writing to {CALL_IPTABLES}"))?;
    }
    if topology == Topology::Ruled {
        let mut nft = host.command("nft")?;
        nft.arg(RULE);
        process::call(nft)?;
    }
    Ok(())
}

fn vlan_command(host: &Namespace, words: &[&str]) -> Result<()> {
    let mut bridge = host.command("bridge")?;
    bridge.arg("vlan").args(words);
    process::call(bridge).map(drop)
}

/// From each to the next, without a queueing discipline, as a native redirect does without one.
fn floors(host: &Namespace, place: Place, taps: &[Tap]) -> Result<Vec<Floor>> {
    for tap in taps {
        let mut tc = host.command("tc")?;
        tc.args(["qdisc", "replace", "dev", tap.name(), "root", "noqueue"]);
        process::call(tc)?;
    }
    host.run(|| {
        let next = taps.iter().cycle().skip(1);
        taps.iter()
            .zip(next)
            .map(|(from, to)| Floor::new(place, from.ifindex(), to.ifindex()))
            .collect()
    })
}

/// Where tapbridge's programs would be: at tcx, and before it in XDP where that is the place.
fn idle(host: &Namespace, place: Place, taps: &[Tap]) -> Result<Vec<Floor>> {
    let places: &[Place] = if place == Place::Xdp {
        &Place::ALL
    } else {
        &[Place::Tcx]
    };
    host.run(|| {
        let at = taps
            .iter()
            .flat_map(|tap| places.iter().map(move |&place| (place, tap.ifindex())));
        at.map(|(place, ifindex)| Floor::idle(place, ifindex)).collect()
    })
}

fn macvtaps(host: &Namespace, topology: Topology) -> Result<Vec<Port>> {
    let ports = || 0..topology.ports();
    let named = ports().map(|port| (name(port), text(station(port, 0))));
    macvtap::make(host, topology.mtu(), named)?;
    let open = |port| {
        let macvtap = host.run(|| Macvtap::open(name(port), Offloads::All))?;
        Ok(Box::new(macvtap) as Port)
    };
    ports().map(open).collect()
}
