//! Commands: what the user may say, and what is done then.

mod fdb;
mod gone;
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
    attach::{self, DEFAULT_BRIDGE, attach},
    common::port::HookMode,
    detach::{Detachment, detach, detach_all},
    fastpath::FastPath,
    kernel, run,
    show::show,
    state::{DEFAULT_STATE, State},
    stats::{Statistics, statistics},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::MissedTickBehavior,
};

use self::{fdb::Fdb, gone::Set, syscalls::Syscalls};
use crate::output::{self, progress::Progress};

/// Makes Linux bridges faster: eBPF programs at their ports carry frames between virtual machines past them.
///
/// The bridge decides where frames go, and carries all that the programs leave to it. Nothing has to keep running: the
/// programs stay in the kernel until they are detached.
#[derive(Parser)]
#[command(name = "tapbridge", version, max_term_width = 100)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,

    /// Print JSON
    #[arg(short, long, global = true)]
    pub json: bool,

    /// Folder in a bpffs that holds what is attached
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
    /// Make bridges faster at these ports: all of them, or on an error none
    Attach(Attach),
    /// Keep ports of '--hook auto' on the hooks that fit their traffic, until Ctrl-C
    ///
    /// Looks at the counters of all ports of this network namespace five times a second: XDP goes off a tap that
    /// sends in bulk, and comes back when short frames are most of what it sends. No frame is lost or overtaken by
    /// that. Each change is printed. When this program has ended every port keeps the hooks that it has.
    Run,
    /// Take the programs off ports, and devices out of the bridge that 'attach' has put them in
    Detach(Detach),
    /// Show bridges and their ports, and what keeps frames from going past a bridge
    Show(Which),
    /// Show the forwarding databases of the bridges: which address is behind which port
    Fdb {
        #[command(subcommand)]
        command: Fdb,
    },
    /// Show how many frames went which way, and which were left to the bridge and why
    Stats(Stats),
    /// Gone: 'bridge monitor fdb' prints addresses as they are learned and moved
    #[command(hide = true)]
    Monitor(gone::Anything),
    /// Gone: 'ip link' changes a bridge's settings
    #[command(hide = true)]
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
    /// Ports of Linux bridges, such as taps. A device that has no bridge becomes a port of one first
    #[arg(required_unless_present = "masters", value_name = "IFACE")]
    interfaces: Vec<String>,

    /// All ports of this Linux bridge; can be given several times
    #[arg(long = "master", value_name = "BRIDGE")]
    masters: Vec<String>,

    /// No rule of netfilter (nftables, ebtables, or iptables) is meant for frames between ports that were attached with
    /// this: known unicast passes all rules by
    #[arg(long, overrides_with = "no_bypass_netfilter")]
    bypass_netfilter: bool,

    /// Rules are meant for them again
    #[arg(long, overrides_with = "bypass_netfilter")]
    no_bypass_netfilter: bool,

    /// Bridge that devices without one become ports of, made if there is none of this name [default: tapbridge]
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,

    /// Hooks of taps; other devices always have tcx alone [default: auto for new ports; others keep theirs]
    #[arg(long, value_enum)]
    hook: Option<HookChoice>,
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct Detach {
    /// Ports to detach
    #[arg(value_name = "IFACE", conflicts_with = "all")]
    interfaces: Vec<String>,

    /// All attached ports of this Linux bridge; can be given several times
    #[arg(long = "master", value_name = "BRIDGE", conflicts_with = "all")]
    masters: Vec<String>,

    /// Every port in this network namespace, and whatever is left of older versions and killed commands
    #[arg(long)]
    all: bool,
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
        Command::Detach(arguments) => give_back(&state, arguments, json).await,
        Command::Show(Which { bridge }) => output::overview(&show(&state, bridge.as_deref()).await?, json),
        Command::Fdb { command } => fdb::run(&state, command, json).await,
        Command::Stats(Stats { which, watch }) => match watch {
            None => output::statistics(&statistics(&state, which.bridge.as_deref()).await?, None, json),
            Some(period) => watch_statistics(&state, which.bridge.as_deref(), period, json).await,
        },
        Command::Monitor(_) => Err(gone::monitor()),
        Command::Set(arguments) => Err(gone::set(&arguments)),
        Command::Syscalls(arguments) => syscalls::run(arguments, json).await,
    }
}

async fn make_ports(state: &State, arguments: Attach, json: bool) -> Result<()> {
    kernel::check_version()?;
    let options = attach::Options {
        bridge: arguments.bridge,
        hook: arguments.hook.map(HookMode::from),
        masters: arguments.masters,
        bypass_netfilter: match (arguments.bypass_netfilter, arguments.no_bypass_netfilter) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
    };
    let locked = state.lock()?;
    let cleared = FastPath::clear_abandoned(&locked)?;
    output::cleared(&cleared, json);
    let mut progress = Progress::new("attached", json);
    let work = attach(&locked, &arguments.interfaces, &options, |done, all| {
        progress.tell(done, all);
    });
    let attached = uninterrupted(work).await?;
    drop(progress);
    // Nobody shall wait for whoever reads what is printed.
    drop(locked);
    output::attached(&attached, &cleared, json)
}

async fn give_back(state: &State, arguments: Detach, json: bool) -> Result<()> {
    let Detach {
        interfaces,
        masters,
        all,
    } = arguments;
    let mut progress = Progress::new("detached", json);
    let tell = |done, all| progress.tell(done, all);
    let detached = match state.lock_existing()? {
        Some(locked) if all => uninterrupted(Box::pin(detach_all(&locked, tell))).await?,
        Some(locked) => uninterrupted(Box::pin(detach(&locked, &interfaces, &masters, tell))).await?,
        None if all => Detachment::default(),
        None => {
            return Err(match (&interfaces[..], &masters[..]) {
                ([name, ..], _) => Error::NotAttached { name: name.clone() },
                ([], names) => Error::NoPortOf {
                    bridge: names.concat(),
                },
            }
            .into());
        }
    };
    drop(progress);
    output::cleared(&detached.cleared, json);
    output::detached(&detached, json)?;
    if detached.unreadable.is_empty() {
        return Ok(());
    }
    // It was to be everything.
    bail!(
        "{} things in {} are not tapbridge's, see above",
        detached.unreadable.len(),
        state.root().display()
    )
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
const _: () = assert!(matches!(DEFAULT_BRIDGE.as_bytes(), b"tapbridge"));
