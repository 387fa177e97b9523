//! A guest that is a station: one process is the VMM that holds the host's device and what runs in the guest.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use lab::{Namespace, pump};

use super::{Guest, Hardware};
use crate::{
    host::{
        cpus,
        job::{self, Job, State},
        plan::GuestId,
        process::Process,
        wait::OnSignal,
    },
    station::task::{Report, Task},
    testbed::device::{Device, NicCounters},
};

/// On the standard error of a station once it takes tasks.
pub const STATION_READY: &str = "a station";
const BOOT_LIMIT: Duration = Duration::from_secs(30);
/// For what takes a moment, on a very busy machine.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// Lines that a task prints.
const LINES: usize = 2;

pub struct StationGuest {
    id: GuestId,
    /// Seconds.
    booted_in: f64,
    control: Rc<Control>,
}

struct Control {
    process: RefCell<Process>,
    /// Tasks that it was told.
    told: Cell<usize>,
}

impl StationGuest {
    pub fn boot(
        host: &Namespace,
        id: GuestId,
        hardware: Hardware,
        device: Device,
        cpu: Option<usize>,
    ) -> Result<Self> {
        let start = Instant::now();
        let own = std::env::current_exe().context("finding this program's own file")?;
        let mut command = host.command(own)?;
        let option = format!("--{}", device.name());
        command
            .args(["station", "--number", &id.0.to_string(), &option, &id.tap()])
            .args(hardware.options());
        cpus::confine(&mut command, cpu)?;
        let mut process = Process::start_with_input(format!("station {}", id.name()), command)?;
        job::has_printed(&mut process, STATION_READY, BOOT_LIMIT)?;
        Ok(Self {
            id,
            booted_in: start.elapsed().as_secs_f64(),
            control: Rc::new(Control {
                process: RefCell::new(process),
                told: Cell::new(0),
            }),
        })
    }
}

impl Guest for StationGuest {
    fn id(&self) -> GuestId {
        self.id
    }

    fn wait_until_booted(&mut self) -> Result<f64> {
        Ok(self.booted_in)
    }

    fn vmm(&self) -> u32 {
        self.control.process.borrow().id()
    }

    fn nic_counters(&self) -> Result<NicCounters> {
        let mut rest = self.perform(&Task::Rest)?;
        let output = job::finish(&mut *rest, REST_LIMIT, OnSignal::GoOn)?;
        let report: Report = super::report_in(&output)?;
        Ok(report.card)
    }

    fn answers(&self) -> String {
        String::new()
    }

    fn start(&self, words: &[&str]) -> Result<Box<dyn Job>> {
        bail!(
            "{} is a station, which runs no {}",
            self.id.name(),
            words.join(" ")
        )
    }

    fn perform(&self, task: &Task) -> Result<Box<dyn Job>> {
        Ok(Box::new(Told {
            number: self.control.tell(task)?,
            control: Rc::clone(&self.control),
            name: format!("a task of {}", self.id.name()),
        }))
    }

    fn reaches(&self, address: IpAddr) -> Result<bool> {
        bail!(
            "{} is a station, which does not speak to {address}",
            self.id.name()
        )
    }

    fn stop(self: Box<Self>) -> Result<Option<pump::Report>> {
        let control = Rc::try_unwrap(self.control).ok();
        control
            .context("a task of a station is still waited for")?
            .process
            .into_inner()
            .stop()?;
        Ok(None)
    }
}

impl Control {
    /// Ends the task before; returns how many there were.
    fn tell(&self, task: &Task) -> Result<usize> {
        let line = serde_json::to_string(task)? + "\n";
        self.process.borrow().write(line.as_bytes())?;
        Ok(self.told.replace(self.told.get() + 1))
    }

    /// What it has printed of a task, whole lines.
    fn printed(&self, number: usize) -> Vec<String> {
        let output = self.process.borrow().stdout();
        let lines = output.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines
            .skip(number * LINES)
            .take(LINES)
            .map(str::to_owned)
            .collect()
    }
}

/// A task that a station was told. Dropping it ends it.
struct Told {
    name: String,
    control: Rc<Control>,
    number: usize,
}

impl Job for Told {
    fn name(&self) -> &str {
        &self.name
    }

    fn state(&mut self) -> Result<State> {
        if self.control.printed(self.number).len() == LINES {
            return Ok(State::Succeeded);
        }
        let process = &mut *self.control.process.borrow_mut();
        match process.state()? {
            State::Running => Ok(State::Running),
            State::Succeeded => Err(anyhow!("{} ended before its task did", process.name())),
            State::Failed(how) => Ok(State::Failed(how)),
        }
    }

    fn stdout(&self) -> String {
        self.control.printed(self.number).concat()
    }

    fn stderr(&self) -> String {
        self.control.process.borrow().stderr()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let last = self.control.told.get() == self.number + 1;
        if last && self.control.printed(self.number).len() < LINES {
            // Where it can't be told it has ended.
            let _ = self.control.tell(&Task::Rest);
        }
    }
}
