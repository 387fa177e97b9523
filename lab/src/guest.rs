//! Guests: whoever has a network card that a tap of the host leads to, and can run programs.

pub mod namespace;

use std::net::IpAddr;

use anyhow::Result;
use lab::{Namespace, Offloads, pump};

use crate::{job::Job, plan::Seat};

/// A guest that has booted. Dropping it ends it, and its tap with it.
pub trait Guest {
    /// Its place in the plan.
    fn seat(&self) -> Seat;

    /// Starts a program in the guest.
    fn start(&self, words: &[&str]) -> Result<Box<dyn Job>>;

    /// Tries once whether packets of every kind get from this guest to an address and back, in less than a second.
    fn reaches(&self, address: IpAddr) -> Result<bool>;

    /// Ends the guest; returns what its VMM has counted.
    fn stop(self: Box<Self>) -> Result<pump::Report>;
}

/// What all guests of a lab have in common.
#[derive(Debug, Clone, Copy)]
pub struct Hardware {
    /// Bytes, on the guest's network card and on the host's tap.
    pub mtu: u32,
    /// What the guest's network card has.
    pub offloads: Offloads,
}

/// Boots the guest of a seat, with its tap in the host's namespace, up.
pub fn boot(host: &Namespace, seat: Seat, hardware: Hardware) -> Result<Box<dyn Guest>> {
    Ok(Box::new(namespace::NamespaceGuest::boot(host, seat, hardware)?))
}
