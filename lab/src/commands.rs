//! What the lab's commands do, a file each.

pub mod check;
pub mod pump;
pub mod report;
pub mod run;
mod sample;
pub mod settings;
pub mod spin;
pub mod station;
pub mod vm_run;
