//! What ports need that choose their hooks by what they forward: a testbed for one case alone, in which `tapbridge run`
//! watches them, and that case's frames until they have chosen.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{case::Case, fastpath::PortHooks};
use crate::{
    host::wait::{self, OnSignal},
    testbed::datapath::Watcher,
};

/// Between two looks at the hooks.
const TURN: Duration = Duration::from_millis(100);
/// A second of frames, so that there was something to choose by.
const TURNS: u32 = 10;
/// Half a second.
const CALM_TURNS: u32 = 5;
const LIMIT: Duration = Duration::from_secs(5);

/// Ports that have chosen.
pub struct Auto {
    pub case: Case,
    watcher: Watcher,
    since: Instant,
}

impl Auto {
    /// Has a new testbed do what the case is about until its ports have chosen: `send` does it for so long, and `hooks`
    /// reads what they have. `tapbridge` is the command, without words, in the testbed's host.
    pub fn settle(
        tapbridge: Command,
        case: Case,
        send: impl Fn(Duration) -> Result<()>,
        hooks: impl Fn() -> Result<Vec<PortHooks>>,
    ) -> Result<Self> {
        let watcher = Watcher::start(tapbridge)?;
        let mut settling = Settling::new(hooks()?);
        let what = format!("hooks that stay as they are for half a second of {}", case.name);
        wait::until(&what, LIMIT, OnSignal::Stop, || {
            send(TURN)?;
            Ok(settling.look(hooks()?).then_some(()))
        })?;
        eprintln!("{}: {}", case.name, text(&settling.hooks));
        Ok(Self {
            case,
            watcher,
            since: Instant::now(),
        })
    }

    /// Ends what watches. Unlike a drop it tells what went wrong, and whether the ports have kept to their choice.
    pub fn end(self) -> Result<()> {
        let changes = self.watcher.changes()?;
        for change in changes.iter().filter(|change| change.at > self.since) {
            let (case, after) = (self.case.name, change.at - self.since);
            let hooks = change.hooks.join(" + ");
            eprintln!(
                "{case}: after {:.1} s {} had {hooks}",
                after.as_secs_f64(),
                change.ifname
            );
        }
        self.watcher.stop()
    }
}

/// Whether hooks stay as they are.
struct Settling {
    hooks: Vec<PortHooks>,
    turns: u32,
    /// In which they were as they are.
    calm: u32,
}

impl Settling {
    fn new(hooks: Vec<PortHooks>) -> Self {
        Self {
            hooks,
            turns: 0,
            calm: 0,
        }
    }

    /// After a turn.
    fn look(&mut self, hooks: Vec<PortHooks>) -> bool {
        self.turns += 1;
        self.calm = if hooks == self.hooks { self.calm + 1 } else { 0 };
        self.hooks = hooks;
        self.turns >= TURNS && self.calm >= CALM_TURNS
    }
}

fn text(ports: &[PortHooks]) -> String {
    let port = |port: &PortHooks| format!("{} has {}", port.ifname, port.hooks.join(" + "));
    ports.iter().map(port).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(hooks: [&'static str; 2]) -> Vec<PortHooks> {
        let port = |(ifname, hooks): (&str, &'static str)| PortHooks {
            ifname: ifname.into(),
            hooks: hooks.split('+').collect(),
        };
        ["vm0", "vm1"].into_iter().zip(hooks).map(port).collect()
    }

    #[test]
    fn hooks_have_settled_when_they_stay_and_there_were_frames_to_choose_by() {
        let (first, then) = (["xdp+tcx", "xdp+tcx"], ["tcx", "xdp+tcx"]);
        let settled_after = |change: u32| {
            let mut settling = Settling::new(ports(first));
            let looks = 1..=100;
            looks.into_iter().find(|&turn| {
                let hooks = if turn < change { first } else { then };
                settling.look(ports(hooks))
            })
        };
        assert_eq!(settled_after(200), Some(10));
        assert_eq!(settled_after(4), Some(10));
        assert_eq!(settled_after(9), Some(14));
    }

    #[test]
    fn they_are_told_port_by_port() {
        assert_eq!(text(&ports(["tcx", "xdp+tcx"])), "vm0 has tcx, vm1 has xdp + tcx");
    }
}
