//! All that `stats` and `show` tell, of one moment.

use std::time::{Duration, Instant};

use bridge_common::fastpath::Path;

use super::{
    Read, Selection,
    overview::{self, Overview},
    statistics::{self, Statistics},
};
use crate::{
    SCHEMA,
    control::is_running,
    error::Result,
    fastpath::FastPath,
    state::{State, Unreadable},
};

/// How often it is read again where commands take away what is being read.
const ATTEMPTS: usize = 5;

/// A snapshot of everything.
#[derive(Clone, Debug)]
pub struct Whole {
    /// What `stats` tells.
    pub statistics: Statistics,
    /// What `show` tells.
    pub overview: Overview,
    /// How many paths are counted in the network namespace: from a port that is attached to a device, by either hook.
    pub paths: usize,
    /// Whether it is all that there is, and fits together: what is attached could be read, and no command changed it meanwhile.
    pub complete: bool,
    /// How long it took to read it.
    pub duration: Duration,
}

/// Reads all bridges of the calling thread's network namespace, or one. Needs a tokio runtime that runs on the thread.
pub async fn read(state: &State, only: Option<&str>) -> Result<Whole> {
    let begin = Instant::now();
    let mut attempts = 1;
    loop {
        let before = inode(state);
        match read_once(state, only).await {
            Err(_) if attempts < ATTEMPTS && inode(state) != before => attempts += 1,
            whole => {
                return whole.map(|whole| Whole {
                    duration: begin.elapsed(),
                    ..whole
                });
            }
        }
    }
}

/// What tells the pins from earlier and later ones.
fn inode(state: &State) -> Option<u64> {
    let folder = state.read().ok()??;
    FastPath::inode(&folder).ok()?
}

async fn read_once(state: &State, only: Option<&str>) -> Result<Whole> {
    let running = is_running(state).await;
    let (read, unreadable) = Read::new(state).await?;
    // What is attached here may be among it.
    let readable = !unreadable.iter().any(Unreadable::is_of_namespace);
    let mut whole = Whole {
        statistics: Statistics::new(Vec::new(), unreadable.clone())?,
        overview: Overview {
            schema: SCHEMA,
            running,
            bridges: Vec::new(),
            unreadable,
        },
        paths: 0,
        complete: readable,
        duration: Duration::ZERO,
    };
    if let Some(read) = &read {
        whole.statistics.bridges = statistics::of(&read.counted, &read.links);
        whole.overview.bridges = overview::of(read).await?;
        let paths = read.counted.paths.iter();
        whole.paths = paths.filter(|(path, _)| path.from != Path::GONE).count();
        whole.complete &= read.counted.steady;
    }
    let only = Selection::from(only);
    only.apply(&mut whole.statistics.bridges, &[])?;
    only.apply(&mut whole.overview.bridges, &[])?;
    Ok(whole)
}
