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

pub use self::selection::Selection;
