//! Which hook fits a port's traffic: what `--hook auto` leaves to `tapbridge run`.
//!
//! XDP makes a short frame cheap, and a long one dear: any XDP program on a tap has the kernel copy a frame that native
//! XDP can't take (`netif_skb_check_for_xdp`) before the program can so much as leave it to tcx. So what XDP saves and
//! spends is set against each other, and the hook changes when the wrong one has cost as much as a change does.

use core::time::Duration;

use crate::{
    counters::{PathCounters, Traffic},
    fastpath::PortCounters,
    forwarding::Reason,
    hook::Hook,
};

/// How often a port's counters are looked at.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// How often when no port does anything that matters: each look at a hundred ports costs a quarter of a millisecond.
pub const CALM_INTERVAL: Duration = Duration::from_secs(1);

// What XDP does to a frame's cost from one tap to the other, beside tcx alone. From `cargo xtask bench` on Linux 6.18,
// cases 64, 1514-partial, vxlan-1514, 9014-partial and tso4; only what they are to each other matters.

/// Saved on a frame that XDP forwards.
const SAVED_NS: u64 = 600;
/// Spent on a frame that XDP has seen and left to tcx: between one whose checksum it has summed up (a tunnel's), 220,
/// and others, 140.
const LEFT_NS: u64 = 180;
/// Spent on a bulk frame, whatever its length.
const BULK_NS: u64 = 540;
/// Bytes of a bulk frame that are copied in a nanosecond.
const BULK_BYTES_PER_NS: u64 = 45;

/// What a change costs, in CPU time: it is made when the wrong hook has cost as much.
const CHANGE_NS: u64 = 1_000_000;
/// From one look to the next a port that could save or spend less than this does not matter: some 160 short frames.
const CALM_NS: u64 = CHANGE_NS / 10;
/// An interval is against a hook if what it costs there outweighs what it saves by one part in so many.
const MARGIN: u64 = 4;
/// So many intervals in a row must be.
const STREAK: u32 = 2;
/// How long the hook stays after a change.
const HOLD_DOWN: Duration = Duration::from_secs(1);
/// XDP that has not even saved what it cost to bring it should not have come: what tcx counts does not tell how many
/// short frames XDP would leave to it. It stays off twice as long each time that this happens, but not longer than this.
const LONGEST_HOLD_DOWN: Duration = Duration::from_secs(64);

/// A port's counters at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Its own.
    pub counters: PortCounters,
    /// Frames from it that went past the bridge, to whichever port.
    pub forwarded: PathCounters,
}

impl CounterSnapshot {
    fn passed_up(&self) -> u64 {
        self.counters.left[Hook::Xdp as usize].iter().sum()
    }

    fn vhost_net_frames(&self) -> u64 {
        self.counters.left[Hook::Xdp as usize][Reason::VhostNet as usize]
    }
}

/// What a port has received in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterDelta {
    /// All frames.
    pub frames: u64,
    /// Those that XDP forwarded.
    pub by_xdp: u64,
    /// Those that XDP left to tcx.
    pub passed_up: u64,
    /// Those that XDP left to tcx since vhost-net had sent them.
    pub vhost_net: u64,
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

impl CounterDelta {
    /// From one reading of the counters to the next, which all grow, unless the port was attached anew in between. A frame
    /// between the hooks is in one counter and not in the other yet.
    ///
    /// What tcx leaves to the bridge counts where XDP has met it before. Without XDP it tells nothing for it: XDP would
    /// leave it too.
    pub fn between(before: &CounterSnapshot, now: &CounterSnapshot, xdp: bool) -> Self {
        let left = now.counters.left_traffic.since(before.counters.left_traffic);
        Self {
            frames: now.forwarded.total().since(before.forwarded.total()).frames
                + if xdp { left.frames } else { 0 },
            by_xdp: now.forwarded.via[Hook::Xdp as usize]
                .since(before.forwarded.via[Hook::Xdp as usize])
                .frames,
            passed_up: now.passed_up().saturating_sub(before.passed_up()),
            vhost_net: now.vhost_net_frames().saturating_sub(before.vhost_net_frames()),
            bulk: now.counters.bulk.since(before.counters.bulk),
        }
    }

    /// What XDP saved and spent, or would have. Where it has just come, some of the frames have not met it.
    pub const fn balance(&self, xdp: bool) -> Balance {
        let short = self.frames.saturating_sub(self.bulk.frames);
        let left = self.passed_up.saturating_sub(self.bulk.frames);
        let (carried, left) = match xdp {
            true if left < short => (self.by_xdp, left),
            true => (self.by_xdp, short),
            false => (short, 0),
        };
        Balance {
            saved: carried * SAVED_NS,
            spent: left * LEFT_NS + self.bulk.frames * BULK_NS + self.bulk.bytes / BULK_BYTES_PER_NS,
        }
    }
}

impl Balance {
    /// Whether a port need not be looked at for a while ([`CALM_INTERVAL`]).
    pub const fn is_calm(&self) -> bool {
        self.saved.saturating_add(self.spent) < CALM_NS
    }
}

/// The policy for one port, from one interval to the next. Times are of any clock that does not go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookPolicy {
    xdp: bool,
    /// Intervals in a row that were against the hook.
    streak: u32,
    observed_at: Option<Duration>,
    /// What the hook has cost more than the other would have, in ns of CPU time.
    excess_cost: u64,
    /// What XDP has saved since it came, in ns of CPU time.
    saved_cost: u64,
    changed_at: Option<Duration>,
    /// How long XDP stays off.
    hold_down: Duration,
    /// vhost-net serves the port.
    vhost_net: bool,
}

impl HookPolicy {
    /// Of a port that has XDP, or has not.
    pub const fn new(xdp: bool) -> Self {
        Self {
            xdp,
            streak: 0,
            observed_at: None,
            excess_cost: 0,
            saved_cost: 0,
            changed_at: None,
            hold_down: HOLD_DOWN,
            vhost_net: false,
        }
    }

    /// Whether the port has XDP.
    pub const fn xdp(&self) -> bool {
        self.xdp
    }

    /// Learns what came since the last time, which may be several intervals; answers with whether XDP is to be on, if that is to change now. The answer
    /// stays until it has [`HookPolicy::changed`] or [`HookPolicy::failed`].
    pub fn observe(&mut self, delta: &CounterDelta, now: Duration) -> Option<bool> {
        let Balance { saved, spent } = delta.balance(self.xdp);
        let (against, in_favour) = if self.xdp { (spent, saved) } else { (saved, spent) };
        if self.xdp {
            self.saved_cost = self.saved_cost.saturating_add(saved);
        }
        let intervals = self.intervals_until(now);
        if against > in_favour + in_favour / MARGIN {
            self.streak = self.streak.saturating_add(intervals);
            self.excess_cost += against - in_favour;
        } else if delta.frames > 0 {
            self.streak = 0;
            self.excess_cost = self.excess_cost.saturating_sub(in_favour.saturating_sub(against));
        }
        let hold_down = if self.xdp { HOLD_DOWN } else { self.hold_down };
        let rested = self
            .changed_at
            .is_none_or(|changed_at| now.saturating_sub(changed_at) >= hold_down);
        // XDP carries none of what vhost-net sends, and only while it is there it sees who sends.
        self.vhost_net = self.xdp && delta.vhost_net > 0;
        if self.vhost_net {
            return rested.then_some(false);
        }
        (self.streak >= STREAK && self.excess_cost >= CHANGE_NS && rested).then_some(!self.xdp)
    }

    /// Since the last time, of which there is at least one.
    fn intervals_until(&mut self, now: Duration) -> u32 {
        let before = self.observed_at.replace(now);
        let passed = before.map_or(INTERVAL, |before| now.saturating_sub(before));
        let intervals = passed.as_millis() / INTERVAL.as_millis();
        u32::try_from(intervals).unwrap_or(u32::MAX).max(1)
    }

    /// XDP is on now, or off.
    pub fn changed(&mut self, xdp: bool, now: Duration) {
        if self.xdp && !xdp {
            // The first was not chosen.
            let paid_off = self.changed_at.is_none() || self.saved_cost >= CHANGE_NS;
            self.hold_down = match self.vhost_net {
                true => LONGEST_HOLD_DOWN,
                false if paid_off => HOLD_DOWN,
                false => self.longer_hold_down(),
            };
        }
        self.xdp = xdp;
        self.begin(now);
    }

    /// The change could not be made; it is tried again later, and then later still.
    pub fn failed(&mut self, now: Duration) {
        self.hold_down = self.longer_hold_down();
        self.begin(now);
    }

    fn begin(&mut self, now: Duration) {
        self.streak = 0;
        self.excess_cost = 0;
        self.saved_cost = 0;
        self.changed_at = Some(now);
    }

    fn longer_hold_down(&self) -> Duration {
        LONGEST_HOLD_DOWN.min(self.hold_down * 2)
    }
}
