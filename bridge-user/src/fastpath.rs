//! The fast path: programs at the ports of Linux bridges. It changes nothing of a bridge, nor of its ports, and where it
//! ends the bridge goes on.
//!
//! The programs and maps of a network namespace are pinned in a folder of the state, whose name begins with '@' and goes on
//! with the namespace's cookie.

mod baseline;
mod counted;
mod counters;
mod current;
mod events;
mod instructions;
mod loaded;
mod log;
mod observer;
mod offsets;
mod other_programs;
mod pinned;
mod pins;
mod ports;
mod scratch;
mod upgrade;

pub use self::{
    counted::Counted,
    counters::{Counters, Paths},
    loaded::{load, offsets, verified_instructions},
    pinned::FastPath,
    ports::Wish,
};
pub(crate) use self::{
    events::Events,
    log::{FrameLog, is_wanted as are_frames_logged},
    observer::{Observer, Program},
    other_programs::{refuse_other_xdp, refuse_strangers},
};
