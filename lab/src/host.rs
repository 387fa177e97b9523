//! The machine that the lab runs on: its processes, CPUs and files, and how it is waited for them.

pub mod cgroup;
pub mod cpus;
pub mod folder;
pub mod interrupt;
pub mod job;
pub mod machine;
pub mod plan;
pub mod process;
pub mod scratch;
pub mod steady;
pub mod wait;
