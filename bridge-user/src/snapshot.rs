//! What there is, read at one moment: ports, what keeps frames from going past bridges, what was counted, and the
//! forwarding databases.

mod configuration;
pub mod fdb;
pub mod obstacles;
pub mod overview;
pub mod problem;
pub mod statistics;

use crate::error::{Error, Result};

/// Keeps what is of the bridge that is asked for, if one is.
fn keep_only<T>(bridges: &mut Vec<T>, only: Option<&str>, name: impl Fn(&T) -> Option<&str>) -> Result<()> {
    let Some(only) = only else { return Ok(()) };
    bridges.retain(|bridge| name(bridge) == Some(only));
    if bridges.is_empty() {
        return Err(Error::NoBridge {
            name: only.to_owned(),
        });
    }
    Ok(())
}
