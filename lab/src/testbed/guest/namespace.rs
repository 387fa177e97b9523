//! A guest that is a network namespace. Its card is the tap `g0`; a frame pump stands in for its VMM.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::{Namespace, pump};
use tempfile::TempDir;

use super::{Duty, Facts, Guest, GuestBackend, Hardware, Kind, station::StationGuest};
use crate::{
    host::{
        cpus::{self, Placement},
        job::{self, Job},
        plan::{self, GuestId, IPV4_PREFIX, IPV6_PREFIX},
        process::{self, Process},
        scratch,
    },
    station::task::Task,
    testbed::{
        device::{Device, NicCounters},
        vm_image::{self, Packages},
    },
};

/// The guest's network card.
pub const GUEST_TAP: &str = "g0";
/// On the standard error of its pump once both taps are up.
pub const READY: &str = "pumping";
const BOOT_LIMIT: Duration = Duration::from_secs(30);
const PROBE_LIMIT: Duration = Duration::from_millis(200);
/// A port that nobody listens on, so that the answer comes from the peer's kernel.
const CLOSED_PORT: u16 = 1;

/// Makes namespaces that are guests.
pub struct NamespaceBackend {
    facts: Facts,
    busybox: String,
    placement: Placement,
}

impl NamespaceBackend {
    /// The guests run the host's programs, except busybox if there are packages.
    pub fn new(packages: Option<&Packages>, placement: Placement) -> Result<Self> {
        let iperf3 =
            process::first_line("iperf3", "--version").context("needs iperf3: 'apt-get install iperf3'")?;
        let sockperf = process::first_line("sockperf", "--version")
            .context("needs sockperf: 'apt-get install sockperf'")?;
        let busybox = packages.map(|packages| packages.busybox().display().to_string());
        Ok(Self {
            facts: Facts {
                kind: Kind::Netns,
                vmm: None,
                accelerator: None,
                vhost: false,
                kernel: None,
                iperf3,
                sockperf,
            },
            busybox: busybox.unwrap_or_else(|| "busybox".into()),
            placement,
        })
    }
}

impl GuestBackend for NamespaceBackend {
    fn boot(
        &self,
        host: &Namespace,
        id: GuestId,
        hardware: Hardware,
        device: Device,
        duty: Duty,
    ) -> Result<Box<dyn Guest>> {
        let cpu = self.placement.cpu(id);
        Ok(match duty {
            Duty::Programs => Box::new(NamespaceGuest::boot(host, id, hardware, device, cpu)?),
            Duty::Station => Box::new(StationGuest::boot(host, id, hardware, device, cpu)?),
        })
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn busybox(&self) -> String {
        self.busybox.clone()
    }
}

struct NamespaceGuest {
    /// Seconds.
    booted_in: f64,
    id: GuestId,
    /// Where its programs stay, as its pump does.
    cpu: Option<usize>,
    answers: TempDir,
    /// Before the namespace, so that it goes first.
    pump: Process,
    namespace: Namespace,
}

impl NamespaceGuest {
    fn boot(
        host: &Namespace,
        id: GuestId,
        hardware: Hardware,
        device: Device,
        cpu: Option<usize>,
    ) -> Result<Self> {
        let start = Instant::now();
        let namespace = Namespace::create(&plan::own_namespace(&id.name()))?;
        let mut pump = start_pump(host, &namespace, id, hardware, device, cpu)?;
        job::has_printed(&mut pump, READY, BOOT_LIMIT)?;
        let answers = scratch::folder(&format!("{}-answers", id.name()))?;
        fs::write(answers.path().join("answer"), vm_image::ANSWER).context("writing an answer")?;
        let mut guest = Self {
            booted_in: 0.0,
            id,
            cpu,
            answers,
            pump,
            namespace,
        };
        guest.ip(&["link", "set", "dev", GUEST_TAP, "address", &id.mac()])?;
        let ipv4 = format!("{}/{IPV4_PREFIX}", id.ipv4());
        let ipv6 = format!("{}/{IPV6_PREFIX}", id.ipv6());
        guest.ip(&["address", "add", &ipv4, "dev", GUEST_TAP])?;
        guest.ip(&["address", "add", &ipv6, "dev", GUEST_TAP, "nodad"])?;
        guest.booted_in = start.elapsed().as_secs_f64();
        Ok(guest)
    }

    fn ip(&self, words: &[&str]) -> Result<()> {
        let mut ip = self.namespace.command("ip")?;
        ip.args(words);
        process::call(ip).map(drop)
    }
}

fn start_pump(
    host: &Namespace,
    guest: &Namespace,
    id: GuestId,
    hardware: Hardware,
    device: Device,
    cpu: Option<usize>,
) -> Result<Process> {
    let own = std::env::current_exe().context("finding this program's own file")?;
    let path = |namespace: &Namespace| namespace.path().context("the lab's namespaces have names");
    let mut command = Command::new(own);
    command.args(["pump", "--host-tap", &id.tap(), "--host-device", device.name()]);
    command
        .arg("--host-netns")
        .arg(path(host)?)
        .arg("--guest-netns")
        .arg(path(guest)?);
    command.args(hardware.options());
    cpus::confine(&mut command, cpu)?;
    Process::start(format!("pump of {}", id.name()), command)
}

impl Guest for NamespaceGuest {
    fn id(&self) -> GuestId {
        self.id
    }

    /// It is: nothing of it is left to a later moment.
    fn wait_until_booted(&mut self) -> Result<f64> {
        Ok(self.booted_in)
    }

    fn vmm(&self) -> u32 {
        self.pump.id()
    }

    fn nic_counters(&self) -> Result<NicCounters> {
        // Of the thread, which is in the namespace; the process need not be.
        let read = || fs::read_to_string("/proc/thread-self/net/dev");
        super::nic_counters_in(&self.namespace.run(read).context("reading /proc/net/dev")?)
    }

    fn answers(&self) -> String {
        self.answers.path().display().to_string()
    }

    fn start(&self, words: &[&str]) -> Result<Box<dyn Job>> {
        let [program, arguments @ ..] = words else {
            anyhow::bail!("no program to start")
        };
        let mut command = self.namespace.command(program)?;
        command.args(arguments);
        cpus::confine(&mut command, self.cpu)?;
        Ok(Box::new(Process::start(
            format!("{program} in {}", self.id.name()),
            command,
        )?))
    }

    fn perform(&self, task: &Task) -> Result<Box<dyn Job>> {
        anyhow::bail!("{} is no station: {task:?}", self.id.name())
    }

    /// By TCP and by UDP: the two have different checksums, and a switch may spoil one of them.
    fn reaches(&self, address: IpAddr) -> Result<bool> {
        let peer = SocketAddr::new(address, CLOSED_PORT);
        Ok(self.namespace.run(|| tcp_answers(peer) && udp_answers(peer)))
    }

    fn stop(self: Box<Self>) -> Result<Option<pump::Report>> {
        let output = self.pump.stop()?;
        let report = serde_json::from_str(&output).with_context(|| format!("the pump's report: {output}"))?;
        Ok(Some(report))
    }
}

/// A reset is an answer too.
fn tcp_answers(peer: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&peer, PROBE_LIMIT) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    }
}

/// A connected socket receives the peer's "port unreachable" as an error.
fn udp_answers(peer: SocketAddr) -> bool {
    let local = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let probe = || {
        let socket = UdpSocket::bind(local)?;
        socket.connect(peer)?;
        socket.set_read_timeout(Some(PROBE_LIMIT))?;
        socket.send(b"probe")?;
        socket.recv(&mut [0; 8])
    };
    probe().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}
