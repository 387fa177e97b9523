//! `fdb`: which address is behind which port.

use anyhow::Result;
use clap::Subcommand;
use tapbridge::{Error, fastpath::FastPath, netlink::Netlink, state::State};

use super::{
    Which,
    gone::{self, Address},
};
use crate::output;

#[derive(Subcommand)]
pub enum Fdb {
    /// Show the addresses that the bridges know
    Show(Which),
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
        Fdb::Show(Which { bridge }) => bridge,
        Fdb::Add { address, dev } => return Err(gone::add(&address, &dev)),
        Fdb::Del { address } => return Err(gone::del(&address)),
        Fdb::Flush { dev, bridge } => return Err(gone::flush(dev.as_deref(), bridge.as_deref())),
    };
    let mut entries = Vec::new();
    if let Some(folder) = state.read()?
        && let Some(fast) = FastPath::open(&folder)?
    {
        let netlink = Netlink::connect()?;
        entries = fast.fdb(&netlink.links().await?, netlink.bridge_entries().await?)?;
    }
    if let Some(name) = only {
        entries.retain(|entry| entry.master == name);
        // A bridge has entries of its own address at least.
        if entries.is_empty() {
            return Err(Error::NoBridge { name }.into());
        }
    }
    output::fdb(&entries, json)
}
