//! From when statistics count that somebody wants to begin at zero: what was counted by then is pinned beside the counters, which
//! themselves go on. It goes with them, and whoever can read them can read it.

use std::path::PathBuf;

use super::pinned::FastPath;
use crate::{
    error::{Context as _, Result},
    kernel::{blob, link},
    state::StateLock,
};

impl FastPath {
    /// The name of the baseline's pin.
    pub(crate) const BASELINE: &str = "BASELINE";

    fn baseline_path(&self) -> PathBuf {
        self.pin(Self::BASELINE)
    }

    /// What was counted by then, in the form that it was given; none if there is no baseline.
    pub fn baseline(&self) -> Result<Option<Vec<u8>>> {
        let path = self.baseline_path();
        blob::read(&path).at(path.display(), "read the baseline")
    }

    /// Sets the baseline, or removes it.
    pub fn set_baseline(&self, _: &StateLock, counted: Option<&[u8]>) -> Result<()> {
        let path = self.baseline_path();
        match counted {
            Some(counted) => blob::write(&path, counted).at(path.display(), "pin the baseline"),
            None => blob::remove(&path).at(path.display(), "remove the baseline"),
        }
    }

    /// Has the same baseline as another, whose place it is to take.
    pub(super) fn take_over_baseline(&self, old: &Self) -> Result<()> {
        let path = old.baseline_path();
        if !path.exists() {
            return Ok(());
        }
        let pin = || link::pin(&link::open(&path)?, &self.baseline_path());
        pin().at(path.display(), "pin it once more")
    }
}
