//! What changes something: ports get the programs, or lose them.

pub mod attach;
mod claim;
pub mod detach;
