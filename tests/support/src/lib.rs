//! What the tests on the real kernel share: how they are named and left out, programs that they run, frames that they
//! send and receive.

mod harness;
pub mod program;
pub mod random;
pub mod wire;

pub use harness::{Test, lacking, trials};
