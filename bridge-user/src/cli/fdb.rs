//! `fdb`: which address is behind which port.

use anyhow::Result;
use clap::{Args, Subcommand};
use tapbridge::{
    snapshot::fdb::{self, Entry},
    state::State,
};

use super::{
    examples,
    gone::{self, Address},
    print::{
        self,
        color::Color,
        progress::Progress,
        table::{NOTHING, Table},
    },
};

#[derive(Args)]
pub struct Bridge {
    /// Only this bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
}

#[derive(Subcommand)]
pub enum Fdb {
    /// Show the addresses that the bridges know
    #[command(after_help = examples::FDB_SHOW)]
    Show(Bridge),
    /// Gone: 'bridge fdb add' does it
    #[command(hide = true)]
    Add {
        #[command(flatten)]
        address: Address,

        /// The port
        #[arg(long, value_name = "IFACE")]
        dev: String,
    },
    /// Gone: 'bridge fdb del' does it
    #[command(hide = true)]
    Del {
        #[command(flatten)]
        address: Address,
    },
    /// Gone: 'bridge fdb flush' does it
    #[command(hide = true)]
    Flush {
        /// Only those on this port
        #[arg(long, value_name = "IFACE")]
        dev: Option<String>,

        /// Only in this bridge
        #[arg(long, value_name = "NAME")]
        bridge: Option<String>,
    },
}

/// Shows the forwarding databases.
pub async fn run(state: &State, command: Fdb, json: bool) -> Result<()> {
    let only = match command {
        Fdb::Show(Bridge { bridge }) => bridge,
        Fdb::Add { address, dev } => return Err(gone::add(&address, &dev)),
        Fdb::Del { address } => return Err(gone::del(&address)),
        Fdb::Flush { dev, bridge } => return Err(gone::flush(dev.as_deref(), bridge.as_deref())),
    };
    let progress = Progress::reading(json);
    let entries = fdb::read(state, only.as_deref()).await?;
    print(&entries, json, progress)
}

fn print(entries: &[Entry], as_json: bool, progress: Progress) -> Result<()> {
    if as_json {
        return print::json(&entries);
    }
    let heads = ["MAC", "VLAN", "PORT", "BRIDGE", "FAST", "LAST SEEN"];
    let mut table = Table::new(5, &heads).paint(0, |_| Color::Address).names([2, 3]);
    for entry in entries {
        table.row([
            entry.mac.clone(),
            entry
                .vlan
                .map_or_else(|| NOTHING.to_owned(), |vlan| vlan.to_string()),
            entry.ifname.clone(),
            entry.master.clone(),
            if entry.fast { "yes" } else { NOTHING }.to_owned(),
            entry
                .updated
                .map_or_else(|| entry.state.to_owned(), |seconds| format!("{seconds} s ago")),
        ]);
    }
    let laid_out = table.lay_out();
    drop(progress);
    laid_out.print()
}
