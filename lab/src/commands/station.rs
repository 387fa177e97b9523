//! `tapbridge-lab station`: a guest that generates and receives frames, as a process of its own.

use anyhow::{Context, Result, bail};
use clap::{Args, value_parser};
use lab::{Macvtap, PacketSocket, Tap};
use nix::sys::prctl::set_timerslack;

use crate::{
    host::{interrupt, plan::GuestId},
    station::{
        Port, Station,
        orders::Orders,
        task::{READY, Task},
    },
    testbed::{guest::STATION_READY, setup::Switched},
};

/// Hold a tap as a VMM does, or a network card's packet socket, and generate and receive frames: a task, or, without
/// `--task`, those of the standard input, until that or SIGTERM ends it
#[derive(Debug, Args)]
pub struct StationArguments {
    /// The guest's number, which says what addresses it has
    #[arg(long, value_parser = value_parser!(u8).range(1..))]
    number: u8,
    /// Tap that is made, or attached to if it is there and persistent
    #[arg(long, value_name = "NAME", group = "device", required = true)]
    tap: Option<String>,
    /// Macvtap that is there
    #[arg(long, value_name = "NAME", group = "device")]
    macvtap: Option<String>,
    /// Network card that is there
    #[arg(long, value_name = "NAME", group = "device")]
    interface: Option<String>,
    /// Checksum and segmentation offloads
    #[arg(long, value_enum, default_value_t = Switched::On)]
    offloads: Switched,
    /// MTU of the tap, in bytes
    #[arg(long, default_value_t = 1500, value_parser = value_parser!(u32).range(68..=65521))]
    mtu: u32,
    /// What to do
    #[arg(long, value_name = "JSON")]
    task: Option<String>,
}

impl StationArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        // What is due is sent then, not up to 50 µs later.
        set_timerslack(1).context("setting the timer slack")?;
        let id = GuestId(self.number);
        let port = self.port()?;
        if let Some(task) = &self.task {
            let task = serde_json::from_str(task).with_context(|| format!("--task {task}"))?;
            return perform(&mut Station::new(id, port, None), task);
        }
        let mut station = Station::new(id, port, Some(Orders::new()));
        eprintln!("{STATION_READY}");
        while let Some(task) = station.rest()? {
            perform(&mut station, task)?;
        }
        Ok(())
    }

    fn port(&self) -> Result<Port> {
        Ok(match (&self.tap, &self.macvtap, &self.interface) {
            (Some(name), ..) => {
                let tap = Tap::builder(name)
                    .offloads(self.offloads.into())
                    .mtu(self.mtu)
                    .open()?;
                tap.up()?;
                Port::Tap(tap)
            }
            (_, Some(name), _) => Port::Macvtap(Macvtap::open(name, self.offloads.into())?),
            (.., Some(name)) => Port::Socket(PacketSocket::open(name)?),
            _ => bail!("a station needs a device: --tap, --macvtap or --interface"),
        })
    }
}

fn perform(station: &mut Station, task: Task) -> Result<()> {
    println!("{READY}");
    let report = station.perform(task)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
