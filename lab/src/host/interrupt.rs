//! SIGINT, SIGTERM and SIGHUP only leave a mark: whoever waits looks at it, and unwinding cleans up.

use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context, Result};
use nix::{
    libc::c_int,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// The process was told to stop.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("stopped by {0}")]
pub struct Interrupted(Signal);

impl Interrupted {
    /// The exit code a shell gives to a process that the signal killed: 128 and the signal's number.
    pub fn exit_code(self) -> u8 {
        u8::try_from(128 + self.0 as i32).unwrap_or(u8::MAX)
    }
}

/// From now on the signals leave a mark instead of killing the process. System calls are not restarted.
pub fn catch() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic, which is async-signal-safe, and does nothing else.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("catching {signal}"))?;
    }
    Ok(())
}

extern "C" fn note(signal: c_int) {
    RECEIVED.store(signal, Ordering::Relaxed);
}

/// Whether one of the signals has come.
pub fn received() -> Option<Interrupted> {
    Signal::try_from(RECEIVED.load(Ordering::Relaxed))
        .ok()
        .map(Interrupted)
}
