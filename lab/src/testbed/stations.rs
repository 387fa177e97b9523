//! Tasks of stations, by whichever guests.

use std::{
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::Result;

use super::guest::{self, Guest};
use crate::{
    host::{
        job::{self, Job},
        plan::{GuestId, StationNetwork},
        wait::{self, OnSignal},
    },
    station::task::{Flow, READY, Report, Task},
};

/// Fifteen times what a program took to start in the slowest guest on a busy machine.
pub const START_LIMIT: Duration = Duration::from_mins(1);
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
/// What a task may take beyond its own time: for frames on their way, or none that come.
const MARGIN: Duration = Duration::from_mins(1);

/// A number that no other task of this process has, but of one long ago.
pub fn number() -> u16 {
    static LAST: AtomicU16 = AtomicU16::new(0);
    LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

/// Straight from one station to another.
pub fn flow(from: GuestId, to: GuestId) -> Flow {
    Flow {
        from: from.station(StationNetwork::First),
        to: to.station(StationNetwork::First),
        to_mac: to.mac_bytes(),
    }
}

/// Has a station do something; returns when it does.
pub fn start(guest: &dyn Guest, task: &Task) -> Result<Box<dyn Job>> {
    let mut job = guest.perform(task)?;
    job::has_printed(&mut *job, READY, START_LIMIT)?;
    Ok(job)
}

/// Waits until all of them are being done.
pub fn wait_until_started(jobs: &mut [Box<dyn Job>]) -> Result<()> {
    jobs.iter_mut()
        .try_for_each(|job| job::has_printed(&mut **job, READY, START_LIMIT))
}

/// Waits for the end of a task of so many seconds.
pub fn finish(job: &mut dyn Job, seconds: f64) -> Result<Report> {
    let limit = MARGIN + Duration::from_secs_f64(seconds);
    guest::report_in(&job::finish(job, limit, OnSignal::Stop)?)
}

/// Waits until a station's requests are answered by another one.
pub fn wait_for_answers(asker: &dyn Guest, answerer: &dyn Guest, flow: Flow) -> Result<()> {
    let number = number();
    let _echo = start(answerer, &Task::Echo { number })?;
    let ask = Task::Ask {
        number,
        flow,
        payload: 18,
        rate: None,
        time_ms: 5,
    };
    let [asks, answers] = [asker, answerer].map(|guest| guest.id().name());
    let what = format!("{answers} to answer {asks}");
    wait::until(&what, ANSWER_LIMIT, OnSignal::Stop, || {
        let report = finish(&mut *asker.perform(&ask)?, 0.0)?;
        Ok((report.received > 0).then_some(()))
    })
}
