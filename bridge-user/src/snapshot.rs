//! What there is, read at one moment: ports, what keeps frames from going past bridges, what was counted, and the
//! forwarding databases.

mod configuration;
pub mod fdb;
pub mod obstacles;
pub mod overview;
pub mod problem;
mod selection;
pub mod since;
pub mod statistics;
pub mod whole;

pub use self::selection::Selection;

use crate::{
    error::Result,
    fastpath::{Counted, FastPath},
    kernel::netlink::{Link, Netlink},
    state::{State, Unreadable},
};

/// What a snapshot is made of.
struct Read {
    fast: FastPath,
    counted: Counted,
    links: Vec<Link>,
    netlink: Netlink,
}

impl Read {
    /// Reads what is attached in the calling thread's network namespace, none if nothing is, and what can't be read.
    async fn new(state: &State) -> Result<(Option<Self>, Vec<Unreadable>)> {
        let Some(folder) = state.read()? else {
            return Ok((None, Vec::new()));
        };
        let (fast, unreadable) = FastPath::open_or_list(&folder)?;
        let Some(fast) = fast else {
            return Ok((None, unreadable));
        };
        let counted = match fast.counted() {
            // A command has just removed the last port.
            Err(_) if matches!(FastPath::open(&folder), Ok(None)) => return Ok((None, unreadable)),
            counted => counted?,
        };
        // After the ports: one that is attached meanwhile would be one whose device is gone.
        let netlink = Netlink::connect()?;
        let links = netlink.links().await?;
        let read = Self {
            fast,
            counted,
            links,
            netlink,
        };
        Ok((Some(read), unreadable))
    }
}
