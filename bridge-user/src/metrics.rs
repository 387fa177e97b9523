//! Metrics for Prometheus: what a [snapshot](crate::snapshot::whole) tells, as families of samples, in the two formats of text
//! that there are, and an endpoint of HTTP that gives them.

mod address;
mod catalogue;
mod families;
mod negotiation;
mod paths;
mod render;
mod server;
mod socket;

pub use self::{
    address::Address,
    families::{Families, Family, Kind},
    paths::Paths,
    render::Format,
    server::Server,
};
use crate::{error::Result, snapshot::whole, state::State};

/// How many paths are told of unless somebody asks for more or fewer. As many as 32 machines have that all talk to each
/// other, and about as many samples as the ports of a host with 100 of them have.
pub const DEFAULT_PATHS: usize = 1000;

/// Reads the metrics of all bridges of the calling thread's network namespace, or of one. Needs a tokio runtime that runs on
/// the thread.
pub async fn read(state: &State, only: Option<&str>, paths: Paths) -> Result<Families> {
    Ok(Families::of(&whole::read(state, only).await?, paths))
}

#[cfg(test)]
mod tests;
