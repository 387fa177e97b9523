//! Guests that a datapath connects, which is what every measurement is made with.

pub mod datapath;
pub mod device;
pub mod guest;
pub mod setup;
pub mod stale;
pub mod vm_image;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Error, Result};
use lab::{Namespace, netns, pump};

use crate::{
    host::{
        interrupt::Interrupted,
        plan::{self, GuestId},
        wait::{self, OnSignal},
    },
    testbed::{
        datapath::Attachment,
        guest::{Guest, GuestBackend},
        setup::{Choice, Setup},
    },
};

const REACH_LIMIT: Duration = Duration::from_mins(1);

/// A namespace for the host's part of a lab: the taps and what connects them.
pub fn host() -> Result<Namespace> {
    let host = Namespace::create(&plan::own_namespace(plan::HOST))?;
    // The host is a switch and nothing else: its own packets would be in the counters.
    host.run(netns::disable_ipv6)?;
    Ok(host)
}

/// Guests, two at least, and their datapath. Dropping it takes all apart.
pub struct Testbed<'host> {
    /// Before the guests, whose taps it holds.
    pub attachment: Box<dyn Attachment + 'host>,
    /// In the order of their ids, from 1.
    pub guests: Vec<Box<dyn Guest>>,
    pub boot: Boot,
}

/// How the guests have booted.
#[derive(Debug, Clone)]
pub struct Boot {
    /// How often they were: 2 if they did not reach each other at first.
    pub times: u32,
    /// Of each guest the last time, in seconds.
    pub seconds: Vec<f64>,
}

impl<'host> Testbed<'host> {
    /// Boots so many guests, connects them, and waits until packets get from the first of each pair to the second.
    pub fn connect(
        host: &'host Namespace,
        backend: &dyn GuestBackend,
        setup: &Setup,
        choice: Choice,
        guests: u8,
        progress: &Progress,
    ) -> Result<Self> {
        for times in 1.. {
            let mut testbed = Self::boot(host, backend, setup, choice, guests, progress)?;
            testbed.boot.times = times;
            let Err(error) = testbed.wait_for_traffic() else {
                return Ok(testbed);
            };
            testbed.explain(&error);
            // Once in a hundred times a virtual machine boots with a network card that is dead.
            if error.is::<Interrupted>() || backend.facts().kind == guest::Kind::Netns || times == 2 {
                return Err(error);
            }
            progress.step(&format!("{error:#}: booting all once more"));
        }
        unreachable!("the second time is the last")
    }

    fn boot(
        host: &'host Namespace,
        backend: &dyn GuestBackend,
        setup: &Setup,
        choice: Choice,
        guests: u8,
        progress: &Progress,
    ) -> Result<Self> {
        let ids: Vec<_> = (1..=guests).map(GuestId).collect();
        let datapath = choice.datapath(setup)?;
        progress.step(&format!("booting {guests} guests: {}", backend.facts().text()));
        let hardware = setup.hardware();
        let device = datapath.prepare(host, &ids, hardware)?;
        let booting = ids.iter().map(|&id| backend.boot(host, id, hardware, device));
        let mut guests = booting.collect::<Result<Vec<_>>>()?;
        let seconds = guests.iter_mut().map(|guest| guest.wait_until_booted());
        let seconds = seconds.collect::<Result<Vec<_>>>()?;
        let list = |texts: &mut dyn Iterator<Item = String>| texts.collect::<Vec<_>>().join(", ");
        progress.step(&format!(
            "booted in {} s, processes {}; connecting them",
            list(&mut seconds.iter().map(|seconds| format!("{seconds:.1}"))),
            list(&mut guests.iter().map(|guest| guest.vmm().to_string())),
        ));
        let taps: Vec<_> = ids.into_iter().map(GuestId::tap).collect();
        let attachment = datapath.attach(host, &taps)?;
        if let Some(facts) = attachment.facts() {
            progress.step(&format!("connected by {facts}"));
        }
        Ok(Self {
            attachment,
            guests,
            boot: Boot { times: 1, seconds },
        })
    }

    fn wait_for_traffic(&self) -> Result<()> {
        for pair in self.guests.chunks_exact(2) {
            let id = pair[1].id();
            wait_for_peer(&*pair[0], id.ipv4().into())?;
            wait_for_peer(&*pair[0], id.ipv6().into())?;
        }
        Ok(())
    }

    /// Has a measurement find the ports as new ones, not on the hooks that the last one has left them on.
    pub fn renew(&self) -> Result<()> {
        self.attachment.renew()?;
        self.wait_for_traffic()
    }

    /// Where the frames went is in the datapath's counters, as long as it is there.
    pub fn explain(&self, error: &Error) {
        if !error.is::<Interrupted>()
            && let Ok(Some(stats)) = self.attachment.stats_text()
        {
            eprintln!("the datapath's counters when it failed:\n{stats}");
        }
    }

    /// Takes all apart in order; unlike a drop it tells what went wrong. Returns what the guests' VMMs have counted, if
    /// they count.
    pub fn end(self) -> Result<Vec<pump::Report>> {
        self.attachment.detach()?;
        let reports = self.guests.into_iter().map(|guest| guest.stop());
        let reports = reports.collect::<Result<Vec<_>>>()?;
        Ok(reports.into_iter().flatten().collect())
    }
}

fn wait_for_peer(guest: &dyn Guest, peer: IpAddr) -> Result<()> {
    let what = format!("{} to reach {peer} by TCP and UDP", guest.id().name());
    wait::until(&what, REACH_LIMIT, OnSignal::Stop, || {
        Ok(guest.reaches(peer)?.then_some(()))
    })
}

/// A line on standard error for every step.
pub struct Progress {
    start: Instant,
    label: String,
}

impl Progress {
    /// Starts counting the time.
    pub fn new(label: String) -> Self {
        Self {
            start: Instant::now(),
            label,
        }
    }

    /// Says what comes next.
    pub fn step(&self, what: &str) {
        eprintln!(
            "{} [{:4.1} s] {what}",
            self.label,
            self.start.elapsed().as_secs_f64()
        );
    }
}
