//! Commands: what the user may say, and what is done then.

mod fdb;
mod syscalls;

use std::{
    path::PathBuf,
    pin::pin,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tapbridge::{
    Error,
    attach::{self, attach},
    bridge::{Bridge, Opened, Reading, Report, Unreadable},
    common::{
        fdb::DEFAULT_AGEING_SECONDS,
        layout::{DEFAULT_MAX_PORTS, MAX_PORTS_LIMIT},
        port::HookMode,
    },
    detach::{clear_abandoned, detach, detach_all},
    fastpath::FastPath,
    kernel,
    monitor::monitor,
    netlink::Netlink,
    run,
    show::show,
    state::{DEFAULT_STATE, Locked, State},
    stats::{self, Statistics},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

use self::{fdb::Fdb, syscalls::Syscalls};
use crate::output::{self, progress::Progress};

/// The bridge that ports go to unless the user names another.
const DEFAULT_BRIDGE: &str = "tapbridge";

/// A switch for virtual machines: eBPF programs on the guests' tap devices pass frames from one to the other.
///
/// Forwarding goes on when this program has ended: what it sets up is pinned in the kernel until it is detached.
#[derive(Parser)]
#[command(name = "tapbridge", version, max_term_width = 100)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,

    /// Print JSON
    #[arg(short, long, global = true)]
    pub json: bool,

    /// Folder in a bpffs that holds the bridges
    #[arg(long, global = true, value_name = "FOLDER", default_value = DEFAULT_STATE, env = "TAPBRIDGE_STATE")]
    state: PathBuf,

    /// What is told on standard error besides errors; debug: all that the kernel's verifier says of a program that it
    /// refuses
    #[arg(long, global = true, value_enum, value_name = "LEVEL", default_value_t = LogLevel::Warn)]
    pub log_level: LogLevel,
}

/// Which messages of the log are printed: these and graver ones.
#[derive(Clone, Copy, ValueEnum)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Make network devices ports of a bridge: all of them, or on an error none
    Attach(Attach),
    /// Keep ports of '--hook auto' on the hooks that fit their traffic, until Ctrl-C
    ///
    /// Looks at the counters of all bridges of this network namespace five times a second: XDP goes off a tap that
    /// sends in bulk, and comes back when short frames are most of what it sends. No frame is lost or overtaken by
    /// that. Each change is printed. When this program has ended every port keeps the hooks that it has.
    Run,
    /// Give ports back as they were; a bridge goes with its last port
    Detach(Detach),
    /// Show bridges and their ports
    Show(Which),
    /// Show or change the forwarding database: which address is behind which port
    Fdb {
        #[command(subcommand)]
        command: Fdb,
    },
    /// Show how many frames went which way, and which were dropped and why
    Stats(Stats),
    /// Print addresses as they are learned and moved, until Ctrl-C
    Monitor(Monitor),
    /// Change a bridge's settings
    Set(Set),
    /// Count the system calls of processes, such as VMMs, until Ctrl-C
    Syscalls(Syscalls),
}

/// Which hooks a tap gets.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HookChoice {
    /// As xdp to begin with; then as 'tapbridge run' finds to fit the tap's traffic
    Auto,
    /// Native XDP for what it can carry, tcx for the rest
    Xdp,
    /// tcx alone: better for bulk senders
    Tcx,
}

impl From<HookChoice> for HookMode {
    fn from(choice: HookChoice) -> Self {
        match choice {
            HookChoice::Auto => Self::Auto,
            HookChoice::Xdp => Self::Xdp,
            HookChoice::Tcx => Self::Tcx,
        }
    }
}

#[derive(Args)]
struct Attach {
    /// Ports of a Linux bridge: it goes on as before, and what it would send from one of them to one other port goes past
    /// it. Or taps, veths and other Ethernet devices that have no bridge: they become ports of one of our own
    #[arg(required_unless_present = "masters", value_name = "IFACE")]
    interfaces: Vec<String>,

    /// All ports of this Linux bridge; can be given several times
    #[arg(long = "master", value_name = "BRIDGE")]
    masters: Vec<String>,

    /// Of ports of a Linux bridge: no rule of netfilter (nftables, ebtables, or iptables) is meant for frames
    /// between ports that were attached with this: known unicast passes all rules by
    #[arg(long, overrides_with = "no_bypass_netfilter")]
    bypass_netfilter: bool,

    /// Rules are meant for them again
    #[arg(long, overrides_with = "bypass_netfilter")]
    no_bypass_netfilter: bool,

    /// Bridge of our own to attach to devices that have none; made if there is none of this name
    #[arg(long, value_name = "NAME", default_value = DEFAULT_BRIDGE)]
    bridge: String,

    /// Hooks of taps; other devices always have tcx alone [default: auto for new ports; others keep theirs]
    #[arg(long, value_enum)]
    hook: Option<HookChoice>,

    /// Ports that a new bridge has room for: 2 to 1024. Counters take N x N x 32 octets per CPU [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=i64::from(MAX_PORTS_LIMIT)))]
    max_ports: Option<u32>,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Targets {
    /// Ports to detach
    #[arg(value_name = "IFACE", conflicts_with = "all")]
    interfaces: Vec<String>,

    /// All attached ports of this Linux bridge; can be given several times
    #[arg(long = "master", value_name = "BRIDGE", conflicts_with = "all")]
    masters: Vec<String>,

    /// Detach every port: of one bridge, or of all in this network namespace
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
struct Detach {
    #[command(flatten)]
    targets: Targets,

    /// Only this bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
}

#[derive(Args)]
struct Which {
    /// Only this bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
}

#[derive(Args)]
struct Stats {
    #[command(flatten)]
    which: Which,

    /// Print again every so many seconds, with rates, until Ctrl-C: 0.1 to 86400
    #[arg(long, value_name = "SECONDS", value_parser = |text: &str| seconds(text, 0.1, 86_400.0))]
    watch: Option<Duration>,
}

#[derive(Args)]
struct Monitor {
    /// Bridge to watch
    #[arg(long, value_name = "NAME", default_value = DEFAULT_BRIDGE)]
    bridge: String,
}

#[derive(Args)]
struct Set {
    /// Bridge to change
    #[arg(long, value_name = "NAME", default_value = DEFAULT_BRIDGE)]
    bridge: String,

    /// Seconds that a learned address lives without a frame from it: 1 to 1000000 (300 in a new bridge)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    ageing_time: u64,
}

/// Does what the user said.
pub async fn run(command_line: CommandLine) -> Result<()> {
    kernel::check_permission()?;
    let state = State::new(command_line.state);
    let json = command_line.json;
    match command_line.command {
        Command::Attach(arguments) => make_ports(&state, arguments, json).await,
        Command::Run => {
            kernel::check_version()?;
            run::run(&state, asked_to_end(), |notice| output::notice(&notice, json)).await
        }
        Command::Detach(Detach { targets, bridge }) => {
            let bridge = bridge.as_deref();
            let mut progress = Progress::new("detached", json);
            let tell = |done, all| progress.tell(done, all);
            let mut cleared = Vec::new();
            let detached = match (state.lock_existing()?, bridge) {
                (Some(locked), _) if targets.all => {
                    cleared = clear_abandoned(&locked, bridge)?;
                    output::cleared(&cleared, json);
                    if bridge.is_some() && !cleared.is_empty() {
                        Report {
                            ports: Vec::new(),
                            unreadable: Vec::new(),
                        }
                    } else {
                        uninterrupted(Box::pin(detach_all(&locked, bridge, tell))).await?
                    }
                }
                (Some(locked), _) => {
                    let Targets {
                        interfaces, masters, ..
                    } = &targets;
                    uninterrupted(Box::pin(detach(&locked, interfaces, masters, bridge, tell))).await?
                }
                (None, Some(name)) => {
                    return Err(Error::NoBridge {
                        name: name.to_owned(),
                    }
                    .into());
                }
                (None, None) if targets.all => Report {
                    ports: Vec::new(),
                    unreadable: Vec::new(),
                },
                (None, None) => {
                    let name = targets.interfaces.first().or(targets.masters.first());
                    return Err(not_attached(name.map_or("", |name| name)).into());
                }
            };
            drop(progress);
            output::detached(&detached, &cleared, json)?;
            if detached.unreadable.is_empty() || !targets.all {
                return Ok(());
            }
            // It was to be everything.
            bail!(
                "{} of the bridges could not be detached, see above",
                detached.unreadable.len()
            )
        }
        Command::Show(Which { bridge }) => output::overview(&show(&state, bridge.as_deref()).await?, json),
        Command::Fdb { command } => fdb::run(&state, command, json).await,
        Command::Stats(Stats { which, watch }) => match watch {
            None => output::statistics(&statistics(&state, which.bridge.as_deref()).await?, None, json),
            Some(period) => watch_statistics(&state, which.bridge.as_deref(), period, json).await,
        },
        Command::Monitor(Monitor { bridge }) => {
            monitor(&state, &bridge, asked_to_end(), |event| {
                output::event(&event, json)
            })
            .await
        }
        Command::Set(Set { bridge, ageing_time }) => {
            let locked = change(&state, &bridge)?;
            let mut bridge = Bridge::open(&locked, &bridge)?;
            let mut config = bridge.config()?;
            config.ageing = ageing_time * 1_000_000_000;
            Ok(bridge.set_config(config)?)
        }
        Command::Syscalls(arguments) => syscalls::run(arguments, json).await,
    }
}

async fn make_ports(state: &State, arguments: Attach, json: bool) -> Result<()> {
    kernel::check_version()?;
    let options = attach::Options {
        bridge: arguments.bridge,
        hook: arguments.hook.map(HookMode::from),
        max_ports: arguments.max_ports,
        masters: arguments.masters,
        bypass_netfilter: match (arguments.bypass_netfilter, arguments.no_bypass_netfilter) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
    };
    let locked = state.lock()?;
    let cleared = clear_abandoned(&locked, None)?;
    output::cleared(&cleared, json);
    let mut progress = Progress::new("attached", json);
    let work = attach(&locked, &arguments.interfaces, &options, |done, all| {
        progress.tell(done, all);
    });
    let attached = uninterrupted(work).await?;
    drop(progress);
    // Nobody shall wait for whoever reads what is printed.
    drop(locked);
    output::attached(&attached, &cleared, &options.bridge, json)
}

/// Finishes what has begun even if a signal asks the process to end meanwhile: it takes milliseconds, and half of it
/// is worse. A killed command is undone by the next one.
async fn uninterrupted<T>(work: impl Future<Output = T>) -> T {
    // Listening to a signal is what keeps it from ending the process.
    let listeners = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ]
    .map(signal);
    let result = work.await;
    drop(listeners);
    result
}

/// Done when a signal asks the process to end, from this call on. Where none can be listened to, it ends the process.
fn asked_to_end() -> impl Future<Output = ()> {
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async {
        match signals {
            [Ok(mut interrupt), Ok(mut terminate)] => tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            },
            _ => std::future::pending().await,
        }
    }
}

fn not_attached(name: &str) -> Error {
    Error::NotAttached {
        name: name.to_owned(),
        bridge: None,
    }
}

/// Opens bridges for reading. Without any state there is nothing to read, and no bridge of a given name.
fn read(state: &State, only: Option<&str>) -> Result<Opened<Reading>> {
    let mut opened = Opened {
        bridges: Vec::new(),
        unreadable: Vec::new(),
    };
    match (state.read()?, only) {
        (None, Some(name)) => {
            return Err(Error::NoBridge {
                name: name.to_owned(),
            }
            .into());
        }
        (None, None) => {}
        (Some(folder), Some(name)) => opened.bridges.push(Reading::open(&folder, name)?),
        (Some(folder), None) => opened = Reading::open_all(&folder)?,
    }
    Ok(opened)
}

/// Locks for changing a bridge that there must be.
fn change(state: &State, bridge: &str) -> Result<Locked> {
    Ok(state.lock_existing()?.ok_or_else(|| Error::NoBridge {
        name: bridge.to_owned(),
    })?)
}

async fn statistics(state: &State, only: Option<&str>) -> Result<Statistics> {
    let links = Netlink::connect()?.links().await?;
    let mut statistics = Statistics {
        schema: stats::SCHEMA,
        bridges: Vec::new(),
        accelerated: Vec::new(),
        unreadable: Vec::new(),
    };
    if let Some(folder) = state.read()? {
        match FastPath::statistics_of(&folder, &links) {
            Ok(read) => statistics.accelerated = read,
            Err(error) => {
                let entry = error.unreadable_fast_path().ok_or(error)?;
                statistics.unreadable.push(entry);
            }
        }
        let is_wanted = |name: Option<&str>| only.is_none_or(|only| name == Some(only));
        statistics
            .accelerated
            .retain(|bridge| is_wanted(bridge.bridge.as_deref()));
        if only.is_some() && !statistics.accelerated.is_empty() {
            return Ok(statistics);
        }
    }
    let opened = read(state, only)?;
    statistics.unreadable.extend(opened.unreadable);
    for bridge in opened.bridges {
        match bridge.statistics(&links) {
            Ok(read) => statistics.bridges.push(read),
            Err(error) if only.is_some() => return Err(error.into()),
            Err(error) => statistics.unreadable.push(Unreadable {
                bridge: bridge.name.clone(),
                error: error.to_string(),
            }),
        }
    }
    Ok(statistics)
}

async fn watch_statistics(state: &State, only: Option<&str>, period: Duration, json: bool) -> Result<()> {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(Statistics, Instant)> = None;
    let mut end = pin!(asked_to_end());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut end => return Ok(()),
        }
        let (now, at) = (statistics(state, only).await?, Instant::now());
        let earlier = before
            .as_ref()
            .map(|(before, then)| (before, at.duration_since(*then)));
        output::statistics(&now, earlier, json)?;
        before = Some((now, at));
    }
}

/// A number of seconds within these bounds; fractions are fine.
fn seconds(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (least..=most).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("must be a number from {least} to {most}")),
    }
}

/// Keeps the help texts above true.
const _: () = {
    assert!(DEFAULT_MAX_PORTS == 64 && MAX_PORTS_LIMIT == 1024);
    assert!(DEFAULT_AGEING_SECONDS == 300);
};
