//! QEMU: which one, with which accelerator, and the command line of a guest.

use std::{
    ffi::OsString,
    fmt, fs,
    os::fd::RawFd,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lab::{Macvtap, Namespace, Offloads};
use serde::{Deserialize, Serialize};

use super::channel::Channel;
use crate::{
    host::{
        cpus::{self, Placement},
        plan::{GuestId, IPV4_PREFIX, IPV6_PREFIX},
        process::{self, Process},
    },
    testbed::{
        device::Hardware,
        vm_image::{Image, Packages},
    },
};

const PROGRAM: &str = "qemu-system-x86_64";
/// The oldest that is used from the host: 7.2 broke with guests newer than itself.
const OLDEST: u32 = 8;

/// Without KVM a boot takes 4 s on an idle machine; this is for a very busy one: ten times as busy as it has CPUs, two
/// minutes did not do.
pub const BOOT_LIMIT: Duration = Duration::from_mins(5);
/// A host where KVM works boots the guest in a second.
const TRIAL_LIMIT: Duration = Duration::from_secs(20);

/// What runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator: about ten times slower.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
        })
    }
}

/// A QEMU that can be started.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
    /// The root its packages were unpacked into; none for the host's own QEMU.
    root: Option<PathBuf>,
    /// What it says it is, such as "10.0.2".
    pub version: String,
}

impl Qemu {
    /// The host's own, if it is new enough, else that of the packages.
    pub fn find(packages: &Packages) -> Result<Self> {
        if let Ok(own) = Self::examine(PathBuf::from(PROGRAM), None)
            && major(&own.version).is_some_and(|major| major >= OLDEST)
        {
            return Ok(own);
        }
        let root = packages.qemu().with_context(|| {
            format!(
                "neither the host nor the packages have {PROGRAM}; `cargo xtask lab --guest qemu` fetches it"
            )
        })?;
        Self::examine(root.join("usr/bin").join(PROGRAM), Some(root))
    }

    fn examine(program: PathBuf, root: Option<PathBuf>) -> Result<Self> {
        let mut qemu = Self {
            program,
            root,
            version: String::new(),
        };
        let mut command = qemu.command(None)?;
        command.arg("--version");
        let output = process::call(command)?;
        let version = version(&output).with_context(|| format!("no version in '{output}'"))?;
        qemu.version = version.into();
        Ok(qemu)
    }

    /// In a namespace, or in the process's own.
    fn command(&self, host: Option<&Namespace>) -> Result<Command> {
        let mut command = match host {
            Some(host) => host.command(&self.program)?,
            None => Command::new(&self.program),
        };
        if let Some(root) = &self.root {
            let folders =
                ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|folder| root.join(folder));
            command.env("LD_LIBRARY_PATH", join(&folders)?);
            command.env("QEMU_MODULE_DIR", root.join("usr/lib/x86_64-linux-gnu/qemu"));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(root.join(firmware));
            }
        }
        Ok(command)
    }
}

fn join(folders: &[PathBuf]) -> Result<OsString> {
    std::env::join_paths(folders)
        .context("the cache folder's path has a colon; TAPBRIDGE_CACHE names another one")
}

/// From "QEMU emulator version 10.0.2 (Debian …)".
fn version(output: &str) -> Option<&str> {
    let (_, rest) = output.split_once("version ")?;
    rest.split_whitespace().next()
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// All that guests need beside an id: QEMU, what it boots, and how.
#[derive(Debug)]
pub struct Model {
    pub qemu: Qemu,
    pub image: Image,
    pub accelerator: Accelerator,
    pub vhost: bool,
    placement: Placement,
}

impl Model {
    /// With the accelerator that works here, which is tried.
    pub fn new(qemu: Qemu, image: Image, vhost: bool, placement: Placement) -> Result<Self> {
        let mut model = Self {
            qemu,
            image,
            accelerator: Accelerator::Kvm,
            vhost,
            placement,
        };
        if let Err(error) = model.try_kvm() {
            if error.is::<crate::host::interrupt::Interrupted>() {
                return Err(error);
            }
            eprintln!(
                "KVM starts no guest here, so TCG translates the guests' code, which is much slower: {error:#}"
            );
            model.accelerator = Accelerator::Tcg;
        }
        Ok(model)
    }

    /// That /dev/kvm is there says little: a virtual machine's may offer it and not support what QEMU needs.
    fn try_kvm(&self) -> Result<()> {
        fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .context("/dev/kvm")?;
        let channel = Channel::new(self.start_alone("QEMU with KVM")?);
        channel.wait_until_ready(TRIAL_LIMIT)
    }

    /// Starts a machine that has no network card.
    pub fn start_alone(&self, name: &str) -> Result<Process> {
        let mut command = self.qemu.command(None)?;
        self.describe(&mut command, "");
        Process::start_with_input(name, command)
    }

    /// Starts a guest's machine, whose tap is there, unless it is to use an open macvtap.
    pub fn start(
        &self,
        host: &Namespace,
        id: GuestId,
        hardware: Hardware,
        macvtap: Option<Macvtap>,
    ) -> Result<Process> {
        let mut command = self.qemu.command(Some(host))?;
        cpus::confine(&mut command, self.placement.cpu(id))?;
        self.describe(&mut command, &addresses(id, hardware));
        let inherited = macvtap.map(|macvtap| process::inherit(&mut command, macvtap));
        command
            .arg("-netdev")
            .arg(network(id, inherited, self.vhost))
            .arg("-device")
            .arg(card(id, hardware));
        Process::start_with_input(format!("QEMU of {}", id.name()), command)
    }

    /// All but the network card.
    fn describe(&self, command: &mut Command, addresses: &str) {
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-M",
            "q35",
        ]);
        match self.accelerator {
            Accelerator::Kvm => command.args(["-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "1G"]),
            // Repeated string instructions are slow in translated code: 0.5 against 1.3 Gbit/s. A second CPU costs
            // more than it gains.
            Accelerator::Tcg => command
                .args(["-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm"])
                .args(["-smp", "1", "-m", &format!("{}M", self.image.memory)]),
        };
        // Requests and answers have a virtio port of their own: a serial port under TCG loses an interrupt now and
        // then, and its output with it until the next input. There the kernel's last words go. The guest finds the port
        // by its name; the number here is not the first one, which other VMMs give to other ports, too.
        command
            .args(["-chardev", "stdio,id=requests,signal=off"])
            .args(["-device", "virtio-serial-pci"])
            .args(["-device", "virtserialport,chardev=requests,name=requests,nr=2"])
            .args(["-chardev", "file,id=kernel,path=/proc/self/fd/2,append=on"])
            .args(["-serial", "chardev:kernel"]);
        command
            .arg("-kernel")
            .arg(&self.image.kernel)
            .arg("-initrd")
            .arg(&self.image.initramfs);
        // Nothing here defends the guest or finds out about hardware: it lives for a measurement.
        let boot = "console=ttyS0 quiet mitigations=off nokaslr no_timer_check tsc=reliable random.trust_cpu=on panic=-1";
        command.arg("-append").arg(format!("{boot}{addresses}"));
    }
}

/// What the guest's first program sets up.
fn addresses(id: GuestId, hardware: Hardware) -> String {
    format!(
        " tb.ip4={}/{IPV4_PREFIX} tb.ip6={}/{IPV6_PREFIX} tb.mtu={}",
        id.ipv4(),
        id.ipv6(),
        hardware.mtu
    )
}

fn network(id: GuestId, inherited: Option<RawFd>, vhost: bool) -> String {
    let device = match inherited {
        Some(number) => format!("fd={number}"),
        None => format!("ifname={},script=no,downscript=no", id.tap()),
    };
    let vhost = if vhost { "on" } else { "off" };
    format!("tap,id=net,{device},vhost={vhost}")
}

fn card(id: GuestId, hardware: Hardware) -> String {
    // Booting from the network is not wanted: no ROM.
    let mut card = format!("virtio-net-pci,netdev=net,mac={},romfile=", id.mac());
    if hardware.offloads == Offloads::None {
        card.push_str(",csum=off,guest_csum=off,gso=off");
    }
    card
}

/// An error if vhost is wanted where the host has none.
pub fn check_vhost(vhost: bool) -> Result<()> {
    if vhost && !Path::new("/dev/vhost-net").exists() {
        bail!("--vhost: /dev/vhost-net is missing: 'modprobe vhost_net' loads the driver");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_version_is_read() {
        let output = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright (c)\n";
        assert_eq!(version(output), Some("10.0.2"));
        assert_eq!(major("10.0.2"), Some(10));
        assert_eq!(major("unknown"), None);
    }

    #[test]
    fn the_card_without_offloads_promises_none() {
        let hardware = |offloads| Hardware { mtu: 1500, offloads };
        let with = card(GuestId(2), hardware(Offloads::All));
        assert_eq!(with, "virtio-net-pci,netdev=net,mac=02:00:00:00:00:02,romfile=");
        let without = card(GuestId(2), hardware(Offloads::None));
        assert_eq!(without, format!("{with},csum=off,guest_csum=off,gso=off"));
    }

    #[test]
    fn the_guest_is_told_its_addresses() {
        let hardware = Hardware {
            mtu: 9000,
            offloads: Offloads::All,
        };
        assert_eq!(
            addresses(GuestId(1), hardware),
            " tb.ip4=10.0.0.1/24 tb.ip6=fd00::1/64 tb.mtu=9000"
        );
    }

    #[test]
    fn qemu_makes_no_tap_where_it_inherits_a_device() {
        let own = network(GuestId(1), None, true);
        assert_eq!(own, "tap,id=net,ifname=vm1,script=no,downscript=no,vhost=on");
        assert_eq!(network(GuestId(1), Some(7), false), "tap,id=net,fd=7,vhost=off");
    }
}
