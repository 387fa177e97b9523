//! Guests: whoever has a network card that a tap of the host leads to, and can run programs.

mod namespace;
mod qemu;
mod station;

use std::{net::IpAddr, path::Path};

use anyhow::{Context, Result};
use clap::ValueEnum;
use lab::{Namespace, pump};
use serde::{Deserialize, Serialize};

use crate::{
    host::{cpus::Placement, job::Job, plan::GuestId},
    station::task::{Report, Task},
    testbed::{
        device::{Device, Hardware, NicCounters},
        vm_image::Packages,
    },
};

pub use namespace::{GUEST_TAP, READY};
pub use qemu::{Accelerator, TestsMachine};
pub use station::STATION_READY;

/// The kinds of guests there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Network namespaces, each with a frame pump in place of a VMM
    Netns,
    /// Virtual machines with virtio network cards: under KVM where that works, else under TCG
    Qemu,
}

/// What a guest is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// To run programs, by the network of its kernel.
    Programs,
    /// To generate and to receive frames. A virtual machine can do both.
    Station,
}

/// Makes guests of one kind.
pub trait GuestBackend {
    /// Starts a guest, with its device in the host's namespace, up.
    fn boot(
        &self,
        host: &Namespace,
        id: GuestId,
        hardware: Hardware,
        device: Device,
        duty: Duty,
    ) -> Result<Box<dyn Guest>>;

    /// What the guests are.
    fn facts(&self) -> &Facts;

    /// What busybox is called in the guests; they need not have it.
    fn busybox(&self) -> String;
}

/// A guest. Dropping it ends it, and its tap with it.
pub trait Guest {
    /// Its place in the plan.
    fn id(&self) -> GuestId;

    /// Waits until programs can be started in it; returns how long it took, in seconds.
    fn wait_until_booted(&mut self) -> Result<f64>;

    /// The process that copies the guest's frames from and to its tap.
    fn vmm(&self) -> u32;

    /// What its network card has sent and received so far.
    fn nic_counters(&self) -> Result<NicCounters>;

    /// A folder of the guest's with a small file, `answer`.
    fn answers(&self) -> String;

    /// Starts a program in the guest.
    fn start(&self, words: &[&str]) -> Result<Box<dyn Job>>;

    /// Has a station do something, which prints what a task of it does.
    fn perform(&self, task: &Task) -> Result<Box<dyn Job>>;

    /// Tries once whether packets of every kind get from this guest to an address and back, for a few seconds at most.
    fn reaches(&self, address: IpAddr) -> Result<bool>;

    /// Ends the guest; returns what its VMM has counted, if it counts.
    fn stop(self: Box<Self>) -> Result<Option<pump::Report>>;
}

/// What the guests of a run are, for its report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub kind: Kind,
    /// The machine monitor and its version; null for namespaces.
    pub vmm: Option<String>,
    /// What runs the guests' code; null for namespaces.
    pub accelerator: Option<Accelerator>,
    /// Whether the host's kernel copies the frames instead of the VMM.
    pub vhost: bool,
    /// The release of the guests' kernel; null for namespaces, which use the host's.
    pub kernel: Option<String>,
    pub iperf3: String,
    pub sockperf: String,
}

impl Facts {
    /// A line for people.
    pub fn text(&self) -> String {
        let (Some(vmm), Some(accelerator), Some(kernel)) = (&self.vmm, self.accelerator, &self.kernel) else {
            return "network namespaces with frame pumps".into();
        };
        let vhost = if self.vhost { ", vhost" } else { "" };
        format!("{vmm} with {accelerator}{vhost}, Linux {kernel}")
    }
}

/// What a task of a station has printed last.
pub fn report_in(output: &str) -> Result<Report> {
    let line = output.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("a station's report: {output}"))
}

/// The only card but the loopback, in the form of /proc/net/dev.
fn nic_counters_in(devices: &str) -> Result<NicCounters> {
    let mut cards = devices.lines().filter_map(|line| line.split_once(':'));
    let (_, counters) = cards
        .find(|(name, _)| name.trim() != "lo")
        .context("no network card in /proc/net/dev")?;
    let numbers: Vec<u64> = counters
        .split_whitespace()
        .map(|word| word.parse().with_context(|| format!("/proc/net/dev: {counters}")))
        .collect::<Result<_>>()?;
    let of = |column: usize| {
        numbers
            .get(column)
            .copied()
            .context("a short line in /proc/net/dev")
    };
    Ok(NicCounters {
        rx_bytes: of(0)?,
        rx_frames: of(1)?,
        tx_bytes: of(8)?,
        tx_frames: of(9)?,
    })
}

/// Finds what making guests of a kind takes; an error says what is missing. `packages` are those of virtual machines. A
/// guest's VMM and its programs will be on the CPU that the placement has for it. `stations` is whether there will be some.
pub fn backend(
    kind: Kind,
    packages: Option<&Path>,
    vhost: bool,
    placement: Placement,
    stations: bool,
) -> Result<Box<dyn GuestBackend>> {
    let packages = packages.map(Packages::open).transpose()?;
    Ok(match kind {
        Kind::Netns => Box::new(namespace::NamespaceBackend::new(packages.as_ref(), placement)?),
        Kind::Qemu => {
            let packages = packages
                .context("--guest qemu needs --vm FOLDER, which `cargo xtask lab --guest qemu` sets up")?;
            Box::new(qemu::QemuBackend::new(&packages, vhost, placement, stations)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_told_from_the_loopback() {
        let devices = "Inter-|   Receive                 |  Transmit\n face |bytes    packets errs drop fifo frame \
            compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:    1    2 0 0 0 0 0 0 \
            3 4 0 0 0 0 0 0\n  eth0: 100 10 0 0 0 0 0 0 2000 20 0 0 0 0 0 0\n";
        let card = nic_counters_in(devices).unwrap();
        assert_eq!((card.rx_bytes, card.rx_frames), (100, 10));
        assert_eq!((card.tx_bytes, card.tx_frames), (2000, 20));
        assert!(nic_counters_in("lo: 1 2").is_err());
    }

    #[test]
    fn a_reader_is_told_what_ran_the_guests_code() {
        let mut facts = Facts {
            kind: Kind::Qemu,
            vmm: Some("QEMU 10.0.2".into()),
            accelerator: Some(Accelerator::Tcg),
            vhost: false,
            kernel: Some("6.1.0".into()),
            iperf3: String::new(),
            sockperf: String::new(),
        };
        assert_eq!(facts.text(), "QEMU 10.0.2 with TCG, Linux 6.1.0");
        facts.accelerator = Some(Accelerator::Kvm);
        facts.vhost = true;
        assert_eq!(facts.text(), "QEMU 10.0.2 with KVM, vhost, Linux 6.1.0");
    }
}
