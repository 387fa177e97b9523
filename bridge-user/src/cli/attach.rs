//! `attach`: makes bridges faster at ports.

use std::io::{self, Write as _};

use anyhow::Result;
use clap::{Args, ValueEnum};
use tapbridge::{
    SCHEMA,
    common::port::HookMode,
    fastpath::FastPath,
    kernel::requirements,
    operations::attach::{self, Attachment, attach},
    state::{Cleared, State},
};

use super::{
    print::{self, progress::Progress},
    signals::uninterrupted,
};

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
pub struct Attach {
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

/// Keeps the help texts above true.
const _: () = assert!(matches!(attach::DEFAULT_BRIDGE.as_bytes(), b"tapbridge"));

/// Attaches and prints what became of each device.
pub async fn run(state: &State, arguments: Attach, json: bool) -> Result<()> {
    requirements::check_version()?;
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
    let progress = Progress::new("attaching", "attached", json);
    let locked = state.lock()?;
    let cleared = FastPath::clear_abandoned(&locked)?;
    print::cleared(&cleared, json);
    let work = attach(&locked, &arguments.interfaces, &options, |done, all| {
        progress.tell(done, all);
    });
    let attached = uninterrupted(work).await?;
    drop(progress);
    // Nobody shall wait for whoever reads what is printed.
    drop(locked);
    print(&attached, &cleared, json)
}

fn print(report: &Attachment, cleared: &[Cleared], as_json: bool) -> Result<()> {
    let Attachment { ports, without_ports } = report;
    if as_json {
        let document = serde_json::json!(
            { "schema": SCHEMA, "ports": ports, "without_ports": without_ports, "cleared": cleared }
        );
        return print::json(&document);
    }
    for bridge in without_ports {
        writeln!(io::stdout(), "{bridge}: has no ports, so nothing is attached")?;
    }
    for port in ports {
        let what = if port.changed {
            "attached"
        } else {
            "was attached already"
        };
        writeln!(
            io::stdout(),
            "{}: {what} to {} ({}{}){}",
            port.ifname,
            port.master,
            port.hooks.join(" + "),
            if port.hook == "auto" { ", auto" } else { "" },
            port.note.map(|note| format!("; {note}")).unwrap_or_default()
        )?;
    }
    Ok(())
}
