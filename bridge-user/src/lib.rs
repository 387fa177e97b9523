//! The user side of `tapbridge`: it loads the programs, keeps the maps, and reads what they counted.
//!
//! Nothing here has to keep running: what is attached is pinned in a folder of bpffs ([`state`], [`fastpath`]).
//! [`operations`] move the programs to ports of Linux bridges and off them, a [`snapshot`] is what there is at one moment,
//! and [`control`] may run beside it, to attach what a [`config`] asks for and to fit hooks to traffic; [`events`] say what happens meanwhile, and [`metrics`] are a
//! snapshot for Prometheus. An [`estimate`] says beforehand what attaching would save. All of them ask the [`kernel`]. [`syscalls`] has nothing to do
//! with bridges: it counts what a VMM asks of the kernel, and leaves nothing behind.
//!
//! ```no_run
//! use tapbridge::{
//!     operations::{attach, detach},
//!     snapshot::statistics,
//!     state::{DEFAULT_STATE, State},
//! };
//!
//! # async fn example() -> tapbridge::Result<()> {
//! let state = State::new(DEFAULT_STATE);
//! let options = attach::Options {
//!     masters: vec!["br0".into()],
//!     ..attach::Options::default()
//! };
//! let attached = attach::attach(&state.lock()?, &[], &options, |_, _| ()).await?;
//! println!("{} ports", attached.ports.len());
//!
//! for bridge in statistics::read(&state, Some("br0")).await?.bridges {
//!     for path in bridge.paths {
//!         println!("{} frames by {} from {}", path.frames, path.via, path.from);
//!     }
//! }
//!
//! if let Some(locked) = state.lock_existing()? {
//!     detach::detach(&locked, &[], &["br0".into()], |_, _| ()).await?;
//! }
//! # Ok(())
//! # }
//! ```

pub mod config;
pub mod control;
pub mod error;
pub mod estimate;
pub mod events;
pub mod fastpath;
pub mod kernel;
pub mod metrics;
pub mod operations;
pub mod own_bridge;
pub mod port;
pub mod snapshot;
pub mod state;
pub mod syscalls;

pub use bridge_common as common;
pub use error::{Error, Result};

/// Version of the JSON that the commands print.
pub const SCHEMA: u32 = 2;
