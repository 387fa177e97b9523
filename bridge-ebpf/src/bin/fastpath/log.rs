//! What becomes of each frame, told to who debugs: by programs that were loaded at log level trace. In others the verifier
//! knows the level to be lower and leaves this out.

use aya_log_ebpf::{
    macro_support::{Level, level_enabled},
    trace,
};
use bridge_common::{
    Hook,
    forwarding::{NAME_BYTES, Reason},
    frame::{Ethernet, Frame},
};

/// By number, since data of programs holds no pointers.
static REASONS: [[u8; NAME_BYTES]; Reason::COUNT] = Reason::padded_names();

/// Tells of a frame that a hook redirects.
#[inline(always)]
pub fn forwarded(frame: &impl Frame, hook: Hook, from: u32, to: u32) {
    if !level_enabled(Level::Trace) {
        return;
    }
    let (source, destination) = stations(frame);
    trace!(
        (),
        "{}: {:mac} > {:mac}: from device {} to device {}",
        hook.name(),
        source,
        destination,
        from,
        to
    );
}

/// Tells of a frame that a hook leaves for the [`Reason`] of this number.
#[inline(always)]
pub fn left(frame: &impl Frame, hook: Hook, from: u32, reason: u32) {
    if !level_enabled(Level::Trace) {
        return;
    }
    let (source, destination) = stations(frame);
    if let Some(name) = REASONS.get(reason as usize) {
        // SAFETY: names are of letters, and filled up with spaces.
        let name = unsafe { core::str::from_utf8_unchecked(name) };
        trace!(
            (),
            "{}: {:mac} > {:mac}: from device {}, left: {}",
            hook.name(),
            source,
            destination,
            from,
            name
        );
    }
}

/// Source and destination; zeros if the frame ends before.
#[inline(always)]
fn stations(frame: &impl Frame) -> ([u8; 6], [u8; 6]) {
    Ethernet::read(frame, None)
        .map(|ethernet| (ethernet.source.0, ethernet.destination.0))
        .unwrap_or_default()
}
