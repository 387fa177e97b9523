//! `run`: attaches what a configuration asks for, and keeps ports on the hooks that fit their traffic.

use std::{
    future,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tapbridge::{
    Error,
    common::forwarding::Reason,
    config::{Config, DEFAULT_CONFIG},
    control::{self, Change, Followed, Notice, Vanished},
    kernel::requirements,
    state::State,
};

use tokio::signal::unix::{SignalKind, signal};

use super::{
    print::{self, counted, error},
    signals::asked_to_end,
};

#[derive(Args)]
pub struct Run {
    /// Which ports of which bridges are to be attached, as they come; 'tapbridge check' explains what is wrong with it
    /// [default: /etc/tapbridge/tapbridge.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Keeps the help text above true.
const _: () = assert!(matches!(
    DEFAULT_CONFIG.as_bytes(),
    b"/etc/tapbridge/tapbridge.toml"
));

/// Runs until a signal asks it to end, and prints what it does.
pub async fn run(state: &State, arguments: Run, json: bool) -> Result<()> {
    requirements::check_version()?;
    let followed = match arguments.config {
        Some(path) => Some(read(path)?),
        None => Config::read(DEFAULT_CONFIG.as_ref())?.map(|config| Followed {
            path: DEFAULT_CONFIG.into(),
            config,
        }),
    };
    // Where there is nothing to read again, it ends the process as it always does.
    let mut hangups = match followed {
        Some(_) => Some(signal(SignalKind::hangup())?),
        None => None,
    };
    let reload = async || match &mut hangups {
        Some(hangups) => drop(hangups.recv().await),
        None => future::pending().await,
    };
    control::run(state, followed, reload, asked_to_end(), |notice| {
        print(&notice, json)
    })
    .await
}

/// A file that must be there.
pub(super) fn read(path: PathBuf) -> Result<Followed> {
    match Config::read(&path)? {
        Some(config) => Ok(Followed { path, config }),
        None => Err(Error::NoConfig { path }.into()),
    }
}

/// Changes go to standard output, the rest to standard error.
fn print(notice: &Notice, as_json: bool) -> Result<()> {
    match notice {
        Notice::Ready => eprintln!("watching the ports of '--hook auto'; Ctrl-C ends"),
        Notice::Following { path, rules } => eprintln!(
            "{}: {}",
            path.display(),
            counted(u64::try_from(*rules)?, "rule is followed", "rules are followed")
        ),
        Notice::Rejected(cause) => error(&format!("{cause}; the rules stay as they were"), as_json),
        Notice::Attached(attached) if as_json => {
            print::json(
                &json!({ "event": "attached", "ifname": attached.ifname, "ifindex": attached.ifindex,
                "master": attached.master, "hook": attached.hook, "hooks": attached.hooks }),
            )?;
        }
        Notice::Attached(attached) => writeln!(
            io::stdout(),
            "{}: {} is attached by {}",
            attached.master,
            attached.ifname,
            attached.hooks.join(" + ")
        )?,
        Notice::Failed(failure) => error(&format!("{failure}; trying again"), as_json),
        Notice::Vanished(vanished) if as_json => print::json(vanished)?,
        Notice::Vanished(Vanished { ports, .. }) => {
            let text = format!(
                "the programs on {0} are gone though no command has detached them: their bpffs was unmounted, or their \
                 folder removed; their bridges go on without them, and 'tapbridge attach {0}' attaches them again",
                ports.join(" ")
            );
            error(&text, as_json);
        }
        Notice::Changed(change) if as_json => print::json(change)?,
        Notice::Changed(change) => {
            let milliseconds = |nanoseconds: u64| Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3;
            let Change {
                ifname,
                master,
                interval_ms,
                frames,
                bulk_frames,
                ..
            } = change;
            if change.reason == Reason::VhostNet.name() {
                writeln!(
                    io::stdout(),
                    "{master}: {ifname} has {} now: vhost-net sends its frames, in batches that XDP would reorder",
                    change.hooks.join(" + ")
                )?;
                return Ok(());
            }
            writeln!(
                io::stdout(),
                "{master}: {ifname} has {} now: in {interval_ms} ms, of {} {bulk_frames} in bulk, XDP saves {:.1} \
                 ms and costs {:.1} ms",
                change.hooks.join(" + "),
                counted(*frames, "frame", "frames"),
                milliseconds(change.xdp_saves_ns),
                milliseconds(change.xdp_costs_ns)
            )?;
        }
    }
    Ok(())
}
