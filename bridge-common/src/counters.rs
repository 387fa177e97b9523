//! What the programs count, per CPU.

use crate::hook::Hook;

/// Frames and their bytes: from the destination address to the end of the payload, tags included, without FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Traffic {
    /// Frames; a GSO frame is one.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one frame.
    #[inline(always)]
    pub const fn count(&mut self, bytes: u32) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }

    /// What has come since an earlier moment; nothing if it was counted anew in between.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            frames: self.frames.saturating_sub(before.frames),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }
}

impl core::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// Frames that went from one port to another, by hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PathCounters {
    /// Indexed by [`Hook`].
    pub via: [Traffic; Hook::ALL.len()],
}

impl PathCounters {
    /// By whichever hook.
    pub fn total(&self) -> Traffic {
        let mut total = Traffic::default();
        self.via.iter().for_each(|traffic| total += *traffic);
        total
    }
}

impl core::ops::AddAssign for PathCounters {
    fn add_assign(&mut self, other: Self) {
        for (sum, traffic) in self.via.iter_mut().zip(other.via) {
            *sum += traffic;
        }
    }
}
