//! A datapath with its ports, in a network namespace of its own.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
// A floor is at one hook; which hooks the switch has can be its own choice.
use bridge_common::Hook as Place;
use lab::{Macvtap, Namespace, Offloads, Tap, netns};
use nix::{errno::Errno, unistd::read};

use super::{
    auto::Auto,
    case::{Case, EVERYBODY, Topology, Work},
    fastpath::Fastpath,
    floor::Floor,
    frame::{BROADCAST, Frame, HOST, LEAST_QUIC, SHORTEST, Shape, station, text},
    uplink::{self, Uplink},
    write,
};
use crate::{
    datapath::{Hook, ip, linux_bridge, macvtap},
    process,
};

/// Where pins lie can be chosen by this variable; here they are to lie in the bpffs that goes with this process.
const STATE: &str = "TAPBRIDGE_STATE";

/// Where the kernel has `br_netfilter`.
const CALL_IPTABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// One that every frame of IPv4 meets, and that lets it pass.
const RULE: &str = "add table ip bench; \
    add chain ip bench forward { type filter hook forward priority 0 ; }; \
    add rule ip bench forward ip daddr 192.0.2.1 drop";

/// What a topology needs that this machine lacks.
pub fn lacks(topology: Topology) -> Option<&'static str> {
    let filtered = matches!(topology, Topology::Called | Topology::Ruled);
    (filtered && !Path::new(CALL_IPTABLES).exists()).then_some("br_netfilter")
}

/// The longest frame and its header.
pub const BUFFER: usize = 68 * 1024;

/// What is measured, and what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath {
    LinuxBridge,
    Macvtap,
    Tapbridge(Hook),
    Floor(Place),
    /// The Linux bridge with this project's fast path.
    Fastpath(Place),
}

impl Datapath {
    /// In the order in which they are measured and reported.
    pub const ALL: [Self; 9] = [
        Self::LinuxBridge,
        Self::Macvtap,
        Self::Tapbridge(Hook::Xdp),
        Self::Tapbridge(Hook::Tcx),
        Self::Tapbridge(Hook::Auto),
        Self::Floor(Place::Xdp),
        Self::Floor(Place::Tcx),
        Self::Fastpath(Place::Xdp),
        Self::Fastpath(Place::Tcx),
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
            Self::Fastpath(Place::Xdp) => "fastpath-xdp",
            Self::Fastpath(Place::Tcx) => "fastpath-tcx",
        }
    }

    /// Whether what it did before changes what it does, so that every case needs a site of its own.
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
                        Shape::Complete(SHORTEST)
                            | Shape::Partial(1514)
                            | Shape::Datagram(LEAST_QUIC)
                            | Shape::Tunnel
                            | Shape::Tso4
                    )
            ),
            Work::WriteRead(Shape::Tso4 | Shape::Tso6) => self != Self::Floor(Place::Xdp),
            // Neither switch has the host behind it.
            Work::Host => matches!(self, Self::LinuxBridge | Self::Fastpath(_)),
            // Those know no stations.
            Work::Unknown => !matches!(self, Self::Macvtap | Self::Floor(_)),
            // A floor is the least that one kind of frame can cost.
            Work::Mix => !matches!(self, Self::Floor(_)),
            // The others have no statistics by paths.
            Work::Steady { .. } => matches!(self, Self::Tapbridge(_)),
            // The bridge wants to see a station once a second, and these send less often in the turns that they get.
            Work::Spread(EVERYBODY) => !matches!(self, Self::Fastpath(_)),
            _ => true,
        };
        this_case && self.fits(case.topology)
    }

    /// Whether it can be among so many. The floor knows one way only; a macvtap knows its guest's address alone, and
    /// has one lower device for all ports.
    pub fn fits(self, topology: Topology) -> bool {
        let bridged = matches!(self, Self::LinuxBridge | Self::Fastpath(_));
        match self {
            // Of the Linux bridge's surroundings.
            _ if matches!(topology, Topology::Called | Topology::Ruled | Topology::Uplink) => bridged,
            Self::LinuxBridge | Self::Tapbridge(Hook::Xdp | Hook::Tcx) | Self::Fastpath(_) => true,
            Self::Tapbridge(Hook::Auto) => topology == Topology::Pair,
            Self::Macvtap => !matches!(topology, Topology::Wide | Topology::Crowded),
            Self::Floor(_) => matches!(topology, Topology::Pair | Topology::Jumbo),
        }
    }
}

/// A port, as its VMM holds it.
type Port = Box<dyn AsFd + Send + Sync>;

/// Ports that a datapath connects, their stations known to it. The ports go when this is dropped, and the namespace
/// with all that is in it when the last of them has gone.
pub struct Site {
    pub datapath: Datapath,
    topology: Topology,
    /// Before the ports that it is of.
    auto: Option<Auto>,
    ports: Vec<Port>,
    _floors: Vec<Floor>,
    fastpath: Option<Fastpath>,
    host: Namespace,
    program: PathBuf,
    bridge: String,
}

impl Site {
    /// Of `program` if it is this project's switch; `bridge` is what no other site's bridge is called.
    pub fn new(datapath: Datapath, topology: Topology, program: &Path, bridge: String) -> Result<Self> {
        let host = Namespace::anonymous()?;
        host.run(netns::disable_ipv6)?;
        let (mut floors, mut fastpath) = (Vec::new(), None);
        let ports = if datapath == Datapath::Macvtap {
            macvtaps(&host, topology)?
        } else {
            let taps = taps(&host, topology)?;
            let mut names: Vec<&str> = taps.iter().map(Tap::name).collect();
            let uplink = (topology == Topology::Uplink)
                .then(|| Uplink::make(&host))
                .transpose()?;
            if uplink.is_some() {
                names.insert(0, uplink::NAME);
            }
            match datapath {
                Datapath::LinuxBridge => connect(&host, topology, &names)?,
                Datapath::Tapbridge(hook) => attach(&host, program, &bridge, hook, &names)?,
                Datapath::Fastpath(place) => {
                    connect(&host, topology, &names)?;
                    fastpath = Some(Fastpath::attach(&host, place, &names)?);
                }
                Datapath::Floor(place) => floors = self::floors(&host, place, &taps)?,
                Datapath::Macvtap => unreachable!("has no taps"),
            }
            let uplink = uplink.map(|uplink| Box::new(uplink) as Port);
            let taps = taps.into_iter().map(|tap| Box::new(tap) as Port);
            uplink.into_iter().chain(taps).collect()
        };
        let site = Self {
            datapath,
            topology,
            auto: None,
            ports,
            _floors: floors,
            fastpath,
            host,
            program: program.into(),
            bridge,
        };
        site.introduce()
            .context("letting the stations make themselves known")?;
        Ok(site)
    }

    /// The same for one case alone.
    pub fn for_case(datapath: Datapath, case: Case, program: &Path, bridge: String) -> Result<Self> {
        let mut site = Self::new(datapath, case.topology, program, bridge)?;
        site.auto = Some(Auto::settle(&site, case)?);
        Ok(site)
    }

    /// Whether the case is to be measured here.
    pub fn has(&self, case: &Case) -> bool {
        let others = self.auto.as_ref().is_some_and(|auto| auto.case.name != case.name);
        !others && self.topology == case.topology && self.datapath.does(case)
    }

    /// Takes it apart; unlike a drop it tells what went wrong.
    pub fn end(self) -> Result<()> {
        if let Some(fastpath) = &self.fastpath {
            eprintln!(
                "{}, {} ports: {}",
                self.datapath.name(),
                self.ports.len(),
                fastpath.text()?
            );
        }
        self.auto.map_or(Ok(()), Auto::end)
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

    /// A command line of the switch, to be continued.
    pub fn tapbridge(&self) -> Result<Command> {
        tapbridge(&self.host, &self.program)
    }

    /// What the switch has to say of its bridge here, as JSON: its command is `stats` or `show`.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut tapbridge = self.tapbridge()?;
        tapbridge.args([command, "-j", "--bridge", &self.bridge]);
        process::call(tapbridge)
    }

    /// Every station sends a frame: the first of a port to all, the others to the first of another port.
    fn introduce(&self) -> Result<()> {
        if matches!(self.datapath, Datapath::Macvtap | Datapath::Floor(_)) {
            return Ok(());
        }
        let mut frame = Frame::new(Shape::Complete(SHORTEST), BROADCAST, BROADCAST);
        for port in 0..self.ports.len() {
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

fn taps(host: &Namespace, topology: Topology) -> Result<Vec<Tap>> {
    host.run(|| {
        let open = |port| {
            let tap = Tap::builder(name(port)).mtu(topology.mtu()).open()?;
            tap.up()?;
            Ok(tap)
        };
        let first = usize::from(topology == Topology::Uplink);
        (first..topology.ports()).map(open).collect()
    })
}

/// A Linux bridge of these ports, with what surrounds it.
fn connect(host: &Namespace, topology: Topology, ports: &[&str]) -> Result<()> {
    linux_bridge::connect(host, ports)?;
    ip(
        host,
        &["link", "set", "dev", linux_bridge::BRIDGE, "address", &text(HOST)],
    )?;
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

fn tapbridge(host: &Namespace, program: &Path) -> Result<Command> {
    let mut tapbridge = host.command(program)?;
    tapbridge.env_remove(STATE);
    Ok(tapbridge)
}

fn attach(host: &Namespace, program: &Path, bridge: &str, hook: Hook, taps: &[&str]) -> Result<()> {
    let mut attach = tapbridge(host, program)?;
    attach.args(["attach", "--bridge", bridge, "--hook", hook.name(), "--max-ports"]);
    attach.arg(taps.len().to_string()).args(taps);
    process::call(attach).map(drop)
}

/// From each to the next, without a queueing discipline, which the switch does without as well.
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
