//! `detach`: takes the programs off ports.

use std::io::{self, Write as _};

use anyhow::{Result, bail};
use clap::Args;
use tapbridge::{
    Error, SCHEMA,
    operations::detach::{Detachment, detach, detach_all},
    state::State,
};

use super::{
    print::{self, progress::Progress},
    signals::uninterrupted,
};

#[derive(Args)]
#[group(required = true, multiple = true)]
pub struct Detach {
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

/// Detaches and prints what became of each device.
pub async fn run(state: &State, arguments: Detach, json: bool) -> Result<()> {
    let Detach {
        interfaces,
        masters,
        all,
    } = arguments;
    let progress = Progress::new("detaching", "detached", json);
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
    print::cleared(&detached.cleared, json);
    print(&detached, json)?;
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

fn print(report: &Detachment, as_json: bool) -> Result<()> {
    let Detachment {
        ports,
        cleared,
        unreadable,
    } = report;
    if as_json {
        let document = serde_json::json!(
            { "schema": SCHEMA, "ports": ports, "unreadable": unreadable, "cleared": cleared }
        );
        return print::json(&document);
    }
    for entry in unreadable {
        print::error(&entry.error, false);
    }
    for port in ports {
        let what = if port.gone {
            "was gone; its place is cleared"
        } else {
            "detached"
        };
        let bridge = port.master.as_ref().map(|bridge| {
            let out = if port.released { "out of " } else { "" };
            format!(" ({out}{bridge})")
        });
        writeln!(
            io::stdout(),
            "{}: {what}{}",
            port.ifname,
            bridge.unwrap_or_default()
        )?;
    }
    Ok(())
}
