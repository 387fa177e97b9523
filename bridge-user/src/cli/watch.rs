//! Reading and printing again and again.

use std::{pin::pin, time::Duration};

use anyhow::Result;
use tokio::time::MissedTickBehavior;

use super::signals::asked_to_end;

/// Does something once, or with a period every so often until a signal asks it to end.
pub async fn watch(period: Option<Duration>, mut once: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let Some(period) = period else {
        return once().await;
    };
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut end = pin!(asked_to_end());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut end => return Ok(()),
        }
        once().await?;
    }
}
