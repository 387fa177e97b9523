//! A guest that is a virtual machine: QEMU with a virtio network card on a tap.

mod channel;
mod machine;
mod tests_machine;
mod transcript;

use std::{
    env,
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::{Macvtap, Namespace, Offloads, Tap, pump, tap::IdleTap};
use tempfile::TempDir;

use self::{
    channel::Channel,
    machine::{BOOT_LIMIT, Model, Qemu},
};
use super::{Duty, Facts, Guest, GuestBackend, Hardware, Kind};
use crate::{
    host::{
        cpus::Placement,
        job::{self, Job},
        plan::GuestId,
        scratch,
        wait::OnSignal,
    },
    station::task::Task,
    testbed::{
        device::{Device, NicCounters},
        vm_image::{self, Image, Packages},
    },
};

pub use {machine::Accelerator, tests_machine::TestsMachine};

/// The guest's network card, as its kernel calls it.
const CARD: &str = "eth0";
/// For a command of a moment, in a busy guest without KVM.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);

/// Boots virtual machines.
pub struct QemuBackend {
    model: Model,
    facts: Facts,
    /// What machines that may be stations boot.
    _folder: Option<TempDir>,
}

impl QemuBackend {
    /// Finds QEMU and an accelerator, and makes the image where there is none yet.
    pub fn new(packages: &Packages, vhost: bool, placement: Placement, stations: bool) -> Result<Self> {
        machine::check_vhost(vhost)?;
        let qemu = Qemu::find(packages)?;
        let mut image = Image::of_guest(packages)?;
        let folder = stations.then(|| scratch::folder("stations")).transpose()?;
        if let Some(folder) = &folder {
            let own = env::current_exe().context("finding this program's own file")?;
            image = image.with_program(&own, folder.path())?;
        }
        let model = Model::new(qemu, image, vhost, placement)?;
        let facts = Facts {
            kind: Kind::Qemu,
            vmm: Some(format!("QEMU {}", model.qemu.version)),
            accelerator: Some(model.accelerator),
            vhost,
            kernel: Some(model.image.release.clone()),
            iperf3: format!("iperf3 {}", packages.version("iperf3")?),
            sockperf: format!("sockperf {}", packages.version("sockperf")?),
        };
        Ok(Self {
            model,
            facts,
            _folder: folder,
        })
    }
}

impl GuestBackend for QemuBackend {
    fn boot(
        &self,
        host: &Namespace,
        id: GuestId,
        hardware: Hardware,
        device: Device,
        _duty: Duty,
    ) -> Result<Box<dyn Guest>> {
        let (tap, open) = host.run(|| match device {
            // QEMU could make the tap, but not before it is to be set up.
            Device::Tap => {
                let tap = Tap::builder(id.tap()).mtu(hardware.mtu).persistent().open()?;
                tap.up()?;
                Ok::<_, lab::Error>((Some(tap.close()?), None))
            }
            // QEMU sets what it needs itself, and no offload before the guest's driver takes it.
            Device::Macvtap => Ok((None, Some(Macvtap::open(id.tap(), Offloads::None)?))),
        })?;
        let start = Instant::now();
        let machine = self.model.start(host, id, hardware, open)?;
        Ok(Box::new(QemuGuest {
            id,
            start,
            channel: Rc::new(Channel::new(machine)),
            _tap: tap,
        }))
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn busybox(&self) -> String {
        "busybox".into()
    }
}

struct QemuGuest {
    id: GuestId,
    start: Instant,
    /// Before the tap, so that the machine goes first.
    channel: Rc<Channel>,
    /// Goes with the guest, unless it is a macvtap.
    _tap: Option<IdleTap>,
}

impl Guest for QemuGuest {
    fn id(&self) -> GuestId {
        self.id
    }

    fn wait_until_booted(&mut self) -> Result<f64> {
        self.channel
            .wait_until_ready(BOOT_LIMIT)
            .with_context(|| format!("booting {}", self.id.name()))?;
        Ok(self.start.elapsed().as_secs_f64())
    }

    fn vmm(&self) -> u32 {
        self.channel.process_id()
    }

    fn nic_counters(&self) -> Result<NicCounters> {
        let mut devices = self.start(&["cat", "/proc/net/dev"])?;
        super::nic_counters_in(&job::finish(&mut *devices, COMMAND_LIMIT, OnSignal::GoOn)?)
    }

    fn answers(&self) -> String {
        vm_image::ANSWERS.into()
    }

    fn start(&self, words: &[&str]) -> Result<Box<dyn Job>> {
        let program = words.first().context("no program to start")?;
        let name = format!("{program} in {}", self.id.name());
        Ok(Box::new(self.channel.start(name, words)?))
    }

    /// By a program of the guest's, which has the card's packet socket.
    fn perform(&self, task: &Task) -> Result<Box<dyn Job>> {
        let (number, task) = (self.id.0.to_string(), serde_json::to_string(task)?);
        let station = [
            "station",
            "--number",
            &number,
            "--interface",
            CARD,
            "--task",
            &task,
        ];
        self.start(&[&vm_image::PROGRAM[..], &station].concat())
    }

    fn reaches(&self, address: IpAddr) -> Result<bool> {
        let bracketed = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let (status, _) = self.channel.request(&format!("reaches {address} {bracketed}"))?;
        Ok(status == 0)
    }

    fn stop(self: Box<Self>) -> Result<Option<pump::Report>> {
        let channel = Rc::try_unwrap(self.channel)
            .ok()
            .context("a program in the guest is still used")?;
        channel.stop()?;
        Ok(None)
    }
}
