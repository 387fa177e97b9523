//! `run`: attaches what a configuration asks for, and keeps ports on the hooks that fit their traffic.

use std::{
    env, future,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::json;
use tapbridge::{
    Error,
    config::{Config, DEFAULT_CONFIG},
    control::{self, Followed, Notice, Presence},
    kernel::requirements,
    metrics::{Address, Paths, Server},
    state::State,
};

use tokio::signal::unix::{SignalKind, signal};

use super::{
    print::{self, error},
    service_manager::ServiceManager,
    signals::asked_to_end,
};

#[derive(Args)]
pub struct Run {
    /// Which ports of which bridges are to be attached, as they come; 'tapbridge check' explains what is wrong with it
    /// [default: /etc/tapbridge/tapbridge.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Answer scrapes of Prometheus there, by HTTP at /metrics: PORT of this machine's loopback, ADDRESS:PORT, or unix:PATH
    /// (mode 0660)
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<Address>,

    /// How many paths a scrape tells of, the busiest; 'all' or 'none' of them
    #[arg(long, value_name = "N|all|none", default_value_t, requires = "metrics")]
    metrics_paths: Paths,
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
    // Where there is nothing to read again, it ends the process as it always does, unless that is a service's reload.
    let mut hangups = match followed {
        None if env::var_os("NOTIFY_SOCKET").is_none() => None,
        _ => Some(signal(SignalKind::hangup())?),
    };
    let reload = async || match &mut hangups {
        Some(hangups) => drop(hangups.recv().await),
        None => future::pending().await,
    };
    // Before anything is served: a second one that is refused has nothing to say.
    let presence = Presence::claim(state).await?;
    let _server = match arguments.metrics {
        Some(address) => Some(serve(state, &address, arguments.metrics_paths).await?),
        None => None,
    };
    let mut manager = ServiceManager::new();
    let report = |notice| {
        manager.tell(&notice);
        print(&notice, json)
    };
    let ended = control::run(state, presence, followed, reload, asked_to_end(), report).await;
    ended.map_err(|error| {
        if print::is_broken_pipe(&error) {
            // Not in silence, and not as if it were done: who looks after services starts it again.
            anyhow!("standard output: whoever read it has ended; start 'tapbridge run' again, ports keep their hooks meanwhile")
        } else {
            error
        }
    })
}

/// Answers scrapes from now on.
async fn serve(state: &State, address: &Address, paths: Paths) -> Result<Server> {
    let server = Server::start(state, address, paths).await?;
    match server.address() {
        Address::Tcp(address) => print::say(format_args!("metrics are at http://{address}/metrics")),
        Address::Unix(path) => print::say(format_args!("metrics are at {}", path.display())),
    }
    Ok(server)
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
        Notice::Alive(_) | Notice::Reloading => {}
        Notice::Ready | Notice::Following { .. } => print::say(notice),
        Notice::Rejected(_) | Notice::Failed(_) => error(&notice.to_string(), as_json),
        Notice::Vanished(vanished) if as_json => print::json(vanished)?,
        Notice::Vanished(_) => error(&notice.to_string(), false),
        Notice::Changed(change) if as_json => print::json(change)?,
        Notice::Attached(attached) if as_json => {
            print::json(
                &json!({ "event": notice.event(), "ifname": attached.ifname, "ifindex": attached.ifindex,
                "master": attached.master, "hook": attached.hook, "hooks": attached.hooks }),
            )?;
        }
        Notice::Changed(_) | Notice::Attached(_) => writeln!(io::stdout(), "{notice}")?,
    }
    Ok(())
}
