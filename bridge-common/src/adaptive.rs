//! Which hook fits a port's traffic: what `--hook auto` leaves to `tapbridge run`.
//!
//! XDP makes a short frame cheap, and a long one dear: any XDP program on a tap has the kernel copy a frame that native
//! XDP can't take (`netif_skb_check_for_xdp`) before the program can so much as leave it to tcx. So what XDP would save
//! and spend on the frames of an interval is set against each other, and the hook follows, with hysteresis.

use core::time::Duration;

use crate::counters::{PortCounters, Traffic};

/// How often a port's counters are looked at.
pub const INTERVAL: Duration = Duration::from_millis(200);

// What XDP does to a frame's cost from one tap to the other, beside tcx alone. From `cargo xtask bench` on Linux 6.18,
// cases 64, 1514-partial, 9014-partial and tso4; only what they are to each other matters.

/// Saved on a frame that XDP forwards.
const SAVED_NS: u64 = 600;
/// Spent on a frame that XDP has seen and left to tcx.
const LEFT_NS: u64 = 200;
/// Spent on a bulk frame, whatever its length.
const BULK_NS: u64 = 540;
/// Octets of a bulk frame that are copied in a nanosecond.
const BULK_OCTETS_PER_NS: u64 = 45;

/// Less than one part in so many of one CPU's time is not worth a change.
const WORTH: u64 = 1000;
/// One side must outweigh the other by one part in so many.
const MARGIN: u64 = 4;
/// For so many intervals in a row.
const STREAK: u32 = 2;
/// How long the hook stays after a change.
const PATIENCE: Duration = Duration::from_secs(1);
/// XDP that goes sooner than this should not have come: what tcx counts does not tell how many short frames XDP would
/// leave to it. It stays off twice as long each time that this happens.
const TRIAL: Duration = Duration::from_secs(3);
/// But not longer than this.
const MOST_PATIENCE: Duration = Duration::from_secs(64);

/// What a port has received in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// All frames.
    pub frames: u64,
    /// Those that XDP left to tcx.
    pub passed_up: u64,
    /// Those that native XDP can't take.
    pub bulk: Traffic,
}

/// What XDP saves and spends, in nanoseconds of a CPU's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// On frames that it forwards.
    pub saved: u64,
    /// On frames that it does not.
    pub spent: u64,
}

impl Growth {
    /// From one look at the counters to the next. A frame between the hooks is in one counter and not in the other yet.
    pub const fn between(before: &PortCounters, now: &PortCounters) -> Self {
        Self {
            frames: now.received.frames.saturating_sub(before.received.frames),
            passed_up: now.passed_up.saturating_sub(before.passed_up),
            bulk: Traffic {
                frames: now.bulk.frames.saturating_sub(before.bulk.frames),
                bytes: now.bulk.bytes.saturating_sub(before.bulk.bytes),
            },
        }
    }

    /// What XDP saved and spent, or would have.
    pub const fn balance(&self, xdp: bool) -> Balance {
        let short = self.frames.saturating_sub(self.bulk.frames);
        let left = if xdp {
            let left = self.passed_up.saturating_sub(self.bulk.frames);
            if left < short { left } else { short }
        } else {
            0
        };
        Balance {
            saved: (short - left) * SAVED_NS,
            spent: left * LEFT_NS + self.bulk.frames * BULK_NS + self.bulk.bytes / BULK_OCTETS_PER_NS,
        }
    }
}

/// What an interval says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Xdp,
    TcxAlone,
    Even,
    /// Too little happened to say anything.
    Quiet,
}

impl Balance {
    fn verdict(self, interval: Duration) -> Verdict {
        let Self { saved, spent } = self;
        let worth = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX) / WORTH;
        if saved + spent <= worth {
            Verdict::Quiet
        } else if saved > spent + worth.max(spent / MARGIN) {
            Verdict::Xdp
        } else if spent > saved + worth.max(saved / MARGIN) {
            Verdict::TcxAlone
        } else {
            Verdict::Even
        }
    }
}

/// The choice for one port, from one interval to the next. Times are of any clock that does not go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    xdp: bool,
    streak: u32,
    changed_at: Option<Duration>,
    /// How long XDP stays off.
    patience: Duration,
}

impl Choice {
    /// Of a port that has XDP, or has not.
    pub const fn new(xdp: bool) -> Self {
        Self {
            xdp,
            streak: 0,
            changed_at: None,
            patience: PATIENCE,
        }
    }

    /// Whether the port has XDP.
    pub const fn xdp(&self) -> bool {
        self.xdp
    }

    /// Learns what an interval brought; answers with whether XDP is to be on, if that is to change now. The answer
    /// stays until it has [`Choice::changed`] or [`Choice::failed`].
    pub fn observe(&mut self, growth: &Growth, interval: Duration, now: Duration) -> Option<bool> {
        match (growth.balance(self.xdp).verdict(interval), self.xdp) {
            (Verdict::Xdp, false) | (Verdict::TcxAlone, true) => self.streak += 1,
            // The traffic that comes after silence may be what was before it.
            (Verdict::Quiet, _) => {}
            _ => self.streak = 0,
        }
        let patience = if self.xdp { PATIENCE } else { self.patience };
        let rested = self
            .changed_at
            .is_none_or(|changed_at| now.saturating_sub(changed_at) >= patience);
        (self.streak >= STREAK && rested).then_some(!self.xdp)
    }

    /// XDP is on now, or off.
    pub fn changed(&mut self, xdp: bool, now: Duration) {
        if self.xdp && !xdp {
            let kept = self
                .changed_at
                .is_none_or(|changed_at| now.saturating_sub(changed_at) >= TRIAL);
            self.patience = if kept { PATIENCE } else { self.longer() };
        }
        self.xdp = xdp;
        self.streak = 0;
        self.changed_at = Some(now);
    }

    /// The change could not be made; it is tried again later, and then later still.
    pub fn failed(&mut self, now: Duration) {
        self.patience = self.longer();
        self.streak = 0;
        self.changed_at = Some(now);
    }

    fn longer(&self) -> Duration {
        MOST_PATIENCE.min(self.patience * 2)
    }
}
