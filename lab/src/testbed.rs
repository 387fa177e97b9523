//! Two guests that a datapath connects, which is what every measurement is made with.

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
const GUESTS: [GuestId; 2] = [GuestId(1), GuestId(2)];

/// A namespace for the host's part of a lab: the taps and what connects them.
pub fn host() -> Result<Namespace> {
    let host = Namespace::create(&plan::own_namespace(plan::HOST))?;
    // The host is a switch and nothing else: its own packets would be in the counters.
    host.run(netns::disable_ipv6)?;
    Ok(host)
}

/// Two guests and their datapath. Dropping it takes all apart.
pub struct Testbed<'host> {
    /// Before the guests, whose taps it holds.
    pub attachment: Box<dyn Attachment + 'host>,
    pub first: Box<dyn Guest>,
    pub second: Box<dyn Guest>,
    pub boot: Boot,
}

/// How the guests have booted.
#[derive(Debug, Clone, Copy)]
pub struct Boot {
    /// How often they were: 2 if they did not reach each other at first.
    pub times: u32,
    /// Of each guest the last time, in seconds.
    pub seconds: [f64; 2],
}

impl<'host> Testbed<'host> {
    /// Boots two guests, connects them, and waits until packets get from one to the other.
    pub fn connect(
        host: &'host Namespace,
        backend: &dyn GuestBackend,
        setup: &Setup,
        choice: Choice,
        progress: &Progress,
    ) -> Result<Self> {
        for times in 1.. {
            let mut testbed = Self::boot(host, backend, setup, choice, progress)?;
            testbed.boot.times = times;
            let Err(error) = testbed.wait_for_traffic() else {
                return Ok(testbed);
            };
            testbed.explain(&error);
            // Once in a hundred times a virtual machine boots with a network card that is dead.
            if error.is::<Interrupted>() || backend.facts().kind == guest::Kind::Netns || times == 2 {
                return Err(error);
            }
            progress.step(&format!("{error:#}: booting both once more"));
        }
        unreachable!("the second time is the last")
    }

    fn boot(
        host: &'host Namespace,
        backend: &dyn GuestBackend,
        setup: &Setup,
        choice: Choice,
        progress: &Progress,
    ) -> Result<Self> {
        let datapath = choice.datapath(setup)?;
        progress.step(&format!("booting two guests: {}", backend.facts().text()));
        let hardware = setup.hardware();
        let device = datapath.prepare(host, &GUESTS, hardware)?;
        let [first, second] = GUESTS.map(|id| backend.boot(host, id, hardware, device));
        let (mut first, mut second) = (first?, second?);
        let seconds = [first.wait_until_booted()?, second.wait_until_booted()?];
        progress.step(&format!(
            "booted in {:.1} and {:.1} s, processes {} and {}; connecting them",
            seconds[0],
            seconds[1],
            first.vmm(),
            second.vmm()
        ));
        let attachment = datapath.attach(host, &GUESTS.map(GuestId::tap))?;
        if let Some(facts) = attachment.facts() {
            progress.step(&format!("connected by {facts}"));
        }
        Ok(Self {
            attachment,
            first,
            second,
            boot: Boot { times: 1, seconds },
        })
    }

    fn wait_for_traffic(&self) -> Result<()> {
        let id = self.second.id();
        wait_for_peer(&*self.first, id.ipv4().into())?;
        wait_for_peer(&*self.first, id.ipv6().into())
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
    pub fn end(self) -> Result<Option<[pump::Report; 2]>> {
        self.attachment.detach()?;
        let pumps = [self.first.stop()?, self.second.stop()?];
        Ok(match pumps {
            [Some(first), Some(second)] => Some([first, second]),
            _ => None,
        })
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
