//! What has happened to a port behind our back.

use serde::Serialize;

/// Something that keeps a port from its work, or others from theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// "detached": a program is attached no more. "replaced": the device is gone, and another has its name. "moved": it is
    /// in another network namespace. `"no_bridge"`: it is no port of a bridge.
    pub problem: &'static str,
    /// In words, with the way out.
    pub text: String,
}
