//! Guests that a datapath connects, which is what every measurement is made with.

pub mod datapath;
pub mod device;
pub mod guest;
pub mod setup;
pub mod stale;
pub mod stations;
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
        guest::{Duty, Guest, GuestBackend},
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
    duties: Vec<Duty>,
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
    /// Boots guests for these duties, connects them, and waits until packets get from the first to the second of each
    /// pair whose duties are the same.
    pub fn connect(
        host: &'host Namespace,
        backend: &dyn GuestBackend,
        setup: &Setup,
        choice: Choice,
        duties: &[Duty],
        progress: &Progress,
    ) -> Result<Self> {
        for times in 1.. {
            let mut testbed = Self::boot(host, backend, setup, choice, duties, progress)?;
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
        duties: &[Duty],
        progress: &Progress,
    ) -> Result<Self> {
        let ids: Vec<_> = (1..).map(GuestId).take(duties.len()).collect();
        let datapath = choice.datapath(setup)?;
        let (count, guests) = (ids.len(), backend.facts().text());
        progress.step(&format!("booting {count} guests: {guests}"));
        let hardware = setup.hardware();
        let device = datapath.prepare(host, &ids, hardware)?;
        let booting = ids.iter().zip(duties);
        let booting = booting.map(|(&id, &duty)| backend.boot(host, id, hardware, device, duty));
        let mut guests = booting.collect::<Result<Vec<_>>>()?;
        let seconds = guests.iter_mut().map(|guest| guest.wait_until_booted());
        let seconds = seconds.collect::<Result<Vec<_>>>()?;
        let longest = seconds.iter().copied().fold(0.0, f64::max);
        let vmms = guests.iter().map(|guest| guest.vmm().to_string());
        let vmms = vmms.collect::<Vec<_>>().join(", ");
        progress.step(&format!(
            "booted in {longest:.1} s, processes {vmms}; connecting them"
        ));
        let taps: Vec<_> = ids.into_iter().map(GuestId::tap).collect();
        let attachment = datapath.attach(host, &taps)?;
        if let Some(facts) = attachment.facts() {
            progress.step(&format!("connected by {facts}"));
        }
        Ok(Self {
            attachment,
            guests,
            duties: duties.to_vec(),
            boot: Boot { times: 1, seconds },
        })
    }

    fn wait_for_traffic(&self) -> Result<()> {
        for (pair, duties) in self.guests.chunks_exact(2).zip(self.duties.chunks_exact(2)) {
            let (first, second) = (&*pair[0], &*pair[1]);
            match duties {
                [Duty::Programs, Duty::Programs] => {
                    wait_for_peer(first, second.id().ipv4().into())?;
                    wait_for_peer(first, second.id().ipv6().into())?;
                }
                [Duty::Station, Duty::Station] => {
                    let flow = stations::flow(first.id(), second.id());
                    stations::wait_for_answers(first, second, flow)?;
                }
                _ => {}
            }
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
        let reports = self.guests.into_iter().map(<dyn Guest>::stop);
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
