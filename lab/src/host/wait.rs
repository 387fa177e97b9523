//! Waiting with a limit, for something that has a name.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::host::interrupt;

/// Whether a signal that asks the process to stop ends the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSignal {
    /// The wait ends with [`interrupt::Interrupted`].
    Stop,
    /// The wait goes on: it is part of cleaning up, or too short to matter.
    GoOn,
}

/// Asks `ready` again and again until it has a value, at most for `limit`; the error names `what` was waited for.
pub fn until<T>(
    what: &str,
    limit: Duration,
    on_signal: OnSignal,
    mut ready: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if on_signal == OnSignal::Stop
            && let Some(interrupted) = interrupt::received()
        {
            return Err(interrupted.into());
        }
        let waited = start.elapsed();
        if waited >= limit {
            bail!("waited {:.0} s in vain for {what}", limit.as_secs_f64());
        }
        // Prompt at first, later seldom enough not to disturb what is being measured.
        thread::sleep((waited / 10).clamp(Duration::from_millis(1), Duration::from_millis(50)));
    }
}

/// Sleeps for so long, unless a signal asks the process to stop.
pub fn sleep(time: Duration) -> Result<()> {
    let begin = Instant::now();
    while begin.elapsed() < time {
        if let Some(interrupted) = interrupt::received() {
            return Err(interrupted.into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_says_what_was_waited_for() {
        let never = || Ok(None::<()>);
        let error = until("Godot", Duration::from_millis(5), OnSignal::GoOn, never).unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s in vain for Godot");
    }

    #[test]
    fn the_value_ends_the_wait() {
        let mut left = 3;
        let value = until("three turns", Duration::from_secs(5), OnSignal::GoOn, || {
            left -= 1;
            Ok((left == 0).then_some("done"))
        });
        assert_eq!(value.unwrap(), "done");
    }
}
