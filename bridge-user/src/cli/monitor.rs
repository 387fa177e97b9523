//! `monitor`: what happens to ports, as it happens.

use std::io::{self, Write as _};

use anyhow::Result;
use tapbridge::{
    common::{
        Hook,
        fastpath::{Cause, EventKind},
    },
    events::{self, Happened, Lost, News},
    kernel::requirements,
    state::State,
};

use super::{
    print::{self, counted},
    signals::asked_to_end,
};

/// Prints until a signal asks it to end.
pub async fn run(state: &State, json: bool) -> Result<()> {
    requirements::check_version()?;
    events::watch(state, asked_to_end(), |news| print(&news, json)).await
}

fn print(news: &News, as_json: bool) -> Result<()> {
    match news {
        News::Ready => print::say("watching the ports of this network namespace; Ctrl-C ends"),
        News::Happened(happened) if as_json => print::json(happened)?,
        News::Lost(lost) if as_json => print::json(lost)?,
        News::Happened(happened) => writeln!(io::stdout(), "{} {}", happened.time, sentence(happened))?,
        News::Lost(Lost { time, events, .. }) => {
            let lost = counted(*events, "event was lost", "events were lost");
            writeln!(
                io::stdout(),
                "{time} {lost}: they came faster than they were read"
            )?;
        }
    }
    Ok(())
}

fn sentence(happened: &Happened) -> String {
    let port = match &happened.master {
        Some(master) => format!("{master}: {}", happened.ifname),
        None => happened.ifname.clone(),
    };
    let hooks = happened.hooks.as_deref().unwrap_or_default().join(" + ");
    let reason = happened.reason.unwrap_or_default();
    match happened.kind {
        EventKind::Attached => format!("{port} is attached by {hooks}"),
        EventKind::Hooks => format!("{port} has {hooks} now ({reason})"),
        EventKind::Detached => {
            let why = match reason {
                reason if reason == Cause::Gone.name() => ": its device is gone",
                reason if reason == Cause::Undone.name() => ": the command that attached it has failed",
                _ => "",
            };
            format!("{port} is detached{why}")
        }
        EventKind::Stopped => {
            let words = happened.text.as_deref().unwrap_or(reason);
            format!("{port} is not accelerated any more ({reason}): {words}")
        }
        EventKind::Left => {
            let is_tcx = happened.hook == Some(Hook::Tcx.name());
            let to = if is_tcx { "the bridge" } else { "tcx" };
            format!("{port}: first frame left to {to} ({reason})")
        }
    }
}
