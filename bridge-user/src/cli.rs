//! Commands: what the user may say, what is done then, and what is printed; each in a file of its own.

mod attach;
mod check;
mod config;
mod detach;
mod estimate;
mod examples;
mod fdb;
mod generate;
mod gone;
mod metrics;
mod monitor;
pub mod print;
mod run;
mod service_manager;
mod show;
mod signals;
mod stats;
mod status;
mod syscalls;
mod upgrade;
mod watch;

use std::{path::PathBuf, time::Duration};

use self::print::color::When;
use anyhow::Result;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use tapbridge::{
    kernel::{namespace, requirements},
    snapshot::Selection,
    state::{DEFAULT_STATE, State},
};

/// Makes Linux bridges faster: eBPF programs at their ports carry frames between virtual machines past them.
///
/// The bridge decides where frames go, and carries all that the programs leave to it. Nothing has to keep running: the
/// programs stay in the kernel until they are detached.
#[derive(Parser)]
#[command(name = "tapbridge", version, max_term_width = 100, after_help = examples::EXIT_CODES)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,

    /// Print JSON, and why a command failed as JSON too
    #[arg(short, long, global = true)]
    pub json: bool,

    /// Print one line per port, with the same columns always and no heads, for scripts; also -br: 'show' and 'stats'
    #[arg(long, global = true)]
    brief: bool,

    /// Do it in this network namespace of 'ip netns', or in that of a file such as /proc/PID/ns/net
    #[arg(short, long, global = true, value_name = "NETNS")]
    netns: Option<String>,

    /// Print names, addresses and states in colours, where 'show', 'stats' and 'fdb show' have them [default: never;
    /// without WHEN: always]
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = When::Never,
        default_missing_value = "always",
        hide_default_value = true
    )]
    color: When,

    /// Folder in a bpffs that holds what is attached
    #[arg(long, global = true, value_name = "FOLDER", default_value = DEFAULT_STATE, env = "TAPBRIDGE_STATE")]
    state: PathBuf,

    /// What is told on standard error besides errors; debug: all that the kernel's verifier says of a program that it
    /// refuses; trace: programs that are loaded tell of each frame, which 'monitor' prints
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
    #[command(after_help = examples::ATTACH)]
    Attach(attach::Attach),
    /// Attach what a configuration asks for, as it comes, and keep ports of '--hook auto' on the hooks that fit their
    /// traffic, until Ctrl-C
    ///
    /// A device that comes, changes or is moved is attached if a rule of the configuration is about it; SIGHUP has the
    /// file read again, and what can't be used leaves the rules as they were. A rule that is gone detaches nothing.
    ///
    /// Looks at the counters of all ports of this network namespace up to five times a second: XDP goes off a tap that
    /// sends in bulk, and comes back when short frames are most of what it sends. No frame is lost or overtaken by
    /// that. Each change is printed. When this program has ended every port keeps the hooks that it has.
    #[command(after_help = examples::RUN)]
    Run(run::Run),
    /// Say whether a configuration of 'run' can be used, and what following it would change
    ///
    /// '+' is a port that would be attached, '~' one that would be changed. Nothing is changed.
    #[command(after_help = examples::CHECK)]
    Check(check::Check),
    /// Write a configuration
    Config {
        #[command(subcommand)]
        command: config::Config,
    },
    /// Say what 'run' does: since when, by which file, what it did last, and what it could not do and why
    #[command(after_help = examples::STATUS)]
    Status,
    /// Say what attaching would save, or saves, of CPU time, and of which frames; nothing is changed
    ///
    /// First, for some seconds, what frames cost on this machine is measured on taps of its own. Then a program that only
    /// looks counts what would become of the frames of the ports, and the time is measured that the processes which hold the
    /// taps are in the kernel. The program goes when the command ends, however that is.
    #[command(after_help = examples::ESTIMATE)]
    Estimate(estimate::Estimate),
    /// Take the programs off ports, and devices out of the bridge that 'attach' has put them in
    #[command(after_help = examples::DETACH)]
    Detach(detach::Detach),
    /// Show bridges and their ports, and what keeps frames from going past a bridge
    #[command(after_help = examples::SHOW)]
    Show(show::Show),
    /// Show the forwarding databases of the bridges: which address is behind which port
    Fdb {
        #[command(subcommand)]
        command: fdb::Fdb,
    },
    /// Show how many frames went which way, and which were left to the bridge and why
    #[command(after_help = examples::STATS)]
    Stats(stats::Stats),
    /// Print what 'stats' and 'show' tell as metrics for Prometheus
    ///
    /// For node_exporter's textfile collector; 'tapbridge run --metrics' gives them to Prometheus itself.
    #[command(after_help = examples::METRICS)]
    Metrics(metrics::Metrics),
    /// Print what happens to ports as it happens, until Ctrl-C
    ///
    /// Ports that are attached or detached, hooks that change, why the first frame of a port was left to its bridge, and why
    /// none goes past it any more. With -j each is an object on a line of its own. Any number of these may run. (Addresses
    /// that are learned or moved are printed by 'bridge monitor fdb'.)
    #[command(after_help = examples::MONITOR)]
    Monitor,
    /// Give the ports of this network namespace the programs of this version
    ///
    /// No port is detached by it, no frame is lost, and what was counted stays. After an update of tapbridge; attach, detach
    /// and run do it by themselves where the programs are too old for them. If it fails all stays as it is.
    #[command(after_help = examples::UPGRADE)]
    Upgrade,
    /// Gone: 'ip link' changes a bridge's settings
    #[command(hide = true)]
    Set(gone::Set),
    /// Count the system calls of processes, such as VMMs, until Ctrl-C
    #[command(after_help = examples::SYSCALLS)]
    Syscalls(syscalls::Syscalls),
    /// Write manual pages and completions for shells
    #[command(hide = true)]
    Generate(generate::Generate),
}

/// Which of the ports.
#[derive(Args)]
struct Which {
    /// Only these ports, by any of their names
    #[arg(value_name = "PORT", conflicts_with = "bridge")]
    ports: Vec<String>,

    /// Only this bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
}

impl From<Which> for Selection {
    fn from(Which { ports, bridge }: Which) -> Self {
        Self { bridge, ports }
    }
}

/// In which form something is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For scripts: a line for each port.
    Brief,
}

/// Wrong usage that clap does not see by itself: an option of all commands can come before the command's name.
fn misused(kind: ErrorKind, message: impl std::fmt::Display) -> anyhow::Error {
    CommandLine::command().error(kind, message).into()
}

impl CommandLine {
    /// Reads the words that the process was called with.
    pub fn read() -> Result<Self, clap::Error> {
        // As iproute2 has it; to clap it would be -b and -r.
        let mut is_option = true;
        let words = std::env::args_os().map(move |word| {
            is_option &= word != "--";
            if is_option && word == "-br" {
                "--brief".into()
            } else {
                word
            }
        });
        Self::try_parse_from(words)
    }

    /// Enters the network namespace that was asked for. Before any other thread is started, which would stay where it is.
    pub fn enter_netns(&self) -> Result<()> {
        if let Some(name) = &self.netns {
            if matches!(self.command, Command::Syscalls(_)) {
                let message =
                    "the argument '--netns' cannot be used with 'syscalls', which is about processes";
                return Err(misused(ErrorKind::ArgumentConflict, message));
            }
            namespace::enter(name)?;
        }
        Ok(())
    }

    fn form(&self) -> Result<Form> {
        let conflict = |message| Err(misused(ErrorKind::ArgumentConflict, message));
        match (self.brief, self.json) {
            (false, false) => Ok(Form::Text),
            (false, true) => Ok(Form::Json),
            (true, true) => conflict("the argument '--brief' cannot be used with '--json'"),
            (true, false) if !matches!(self.command, Command::Show(_) | Command::Stats(_)) => {
                conflict("the argument '--brief' can be used with 'show' and 'stats' only")
            }
            (true, false) => Ok(Form::Brief),
        }
    }
}

/// Does what the user said.
pub async fn run(command_line: CommandLine) -> Result<()> {
    let form = command_line.form()?;
    print::color::choose(command_line.color);
    // Whether a file can be used, and what 'run' does, everybody may ask; and packages are made without root.
    if !matches!(
        command_line.command,
        Command::Check(_) | Command::Status | Command::Generate(_)
    ) {
        requirements::check_permission()?;
    }
    let state = State::new(command_line.state);
    let json = command_line.json;
    match command_line.command {
        Command::Attach(arguments) => attach::run(&state, arguments, json).await,
        Command::Run(arguments) => run::run(&state, arguments, json).await,
        Command::Check(arguments) => check::run(&state, arguments, json).await,
        Command::Config { command } => config::run(&state, command, json).await,
        Command::Status => status::run(&state, json).await,
        Command::Estimate(arguments) => estimate::run(&state, arguments, json).await,
        Command::Detach(arguments) => detach::run(&state, arguments, json).await,
        Command::Show(arguments) => show::run(&state, arguments, form).await,
        Command::Fdb { command } => fdb::run(&state, command, json).await,
        Command::Stats(arguments) => stats::run(&state, arguments, form).await,
        Command::Metrics(arguments) => metrics::run(&state, arguments, json).await,
        Command::Monitor => monitor::run(&state, json).await,
        Command::Upgrade => upgrade::run(&state, json).await,
        Command::Set(arguments) => Err(gone::set(&arguments)),
        Command::Syscalls(arguments) => syscalls::run(arguments, json).await,
        Command::Generate(arguments) => generate::run(&arguments),
    }
}

/// A number of seconds within these bounds; fractions are fine.
fn seconds(text: &str, least: f64, most: f64) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (least..=most).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("must be a number from {least} to {most}")),
    }
}
