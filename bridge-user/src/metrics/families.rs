//! Families of samples, whatever they are of.

use prometheus_client::registry::Unit;

use super::{Paths, catalogue};
use crate::snapshot::whole::Whole;

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever becomes more, as long as a port is attached.
    Counter,
    /// May become less.
    Gauge,
    /// Is 1, and says something by its labels.
    Info,
}

/// The labels of a sample, by name.
pub(super) type Labels = Vec<(&'static str, String)>;

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number of things.
    Number(u64),
    /// A time in seconds.
    Seconds(f64),
}

/// All samples of one name.
#[derive(Clone, Debug)]
pub struct Family {
    /// Without the unit, and without what tells a counter (`_total`) or an info (`_info`).
    pub(super) base: &'static str,
    pub(super) unit: Option<Unit>,
    /// What it means, in a sentence without a full stop.
    pub help: &'static str,
    /// What its samples are.
    pub kind: Kind,
    /// Sorted by their labels, of which no two have the same.
    pub(super) samples: Vec<(Labels, Value)>,
}

impl Family {
    /// The name of its samples.
    pub fn name(&self) -> String {
        let mut name = self.base.to_owned();
        if let Some(unit) = &self.unit {
            name = format!("{name}_{}", unit.as_str());
        }
        match self.kind {
            Kind::Counter => name + "_total",
            Kind::Gauge => name,
            Kind::Info => name + "_info",
        }
    }
}

/// All metrics.
#[derive(Clone, Debug)]
pub struct Families(pub(super) Vec<Family>);

impl Families {
    /// What a snapshot comes to.
    pub fn of(whole: &Whole, paths: Paths) -> Self {
        Self(catalogue::of(whole, paths))
    }

    /// The families, in the order in which they are printed.
    pub fn all(&self) -> &[Family] {
        &self.0
    }
}
