//! How many frames taps receive at one time, beside another time.

use std::{collections::BTreeMap, fs, time::Instant};

use crate::kernel::sysfs::Sysfs;

/// What the kernel has counted of taps until a moment.
pub(super) struct Counted {
    frames: BTreeMap<String, u64>,
    at: Instant,
}

impl Counted {
    /// Now. A tap that is gone is left out.
    pub fn now<'taps>(taps: impl IntoIterator<Item = &'taps str>, sysfs: &Sysfs) -> Self {
        let count = |tap: &str| -> Option<u64> {
            let path = sysfs.path(&format!("class/net/{tap}/statistics/rx_packets"));
            fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let frames = taps
            .into_iter()
            .filter_map(|tap| Some((tap.to_owned(), count(tap)?)));
        Self {
            frames: frames.collect(),
            at: Instant::now(),
        }
    }

    /// Frames per second of each tap from an earlier moment on.
    pub fn since(&self, earlier: &Self) -> BTreeMap<String, f64> {
        let seconds = (self.at - earlier.at).as_secs_f64();
        let rate = |(tap, now): (&String, &u64)| {
            let before = earlier.frames.get(tap)?;
            #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
            let frames = now.saturating_sub(*before) as f64;
            Some((tap.clone(), frames / seconds.max(f64::EPSILON)))
        };
        self.frames.iter().filter_map(rate).collect()
    }
}

/// How many times as many frames came at one time as at another, by taps; those of which it is not known are left out.
pub(super) fn ratios(one: &BTreeMap<String, f64>, other: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let ratio = |(tap, rate): (&String, &f64)| {
        let other = other.get(tap).copied().filter(|rate| *rate > 0.0)?;
        Some((tap.clone(), rate / other))
    };
    one.iter().filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn more_frames_in_the_same_time_are_a_greater_pace() {
        let begin = Instant::now();
        let counted = |seconds, frames: &[(&str, u64)]| Counted {
            frames: frames
                .iter()
                .map(|&(tap, frames)| (tap.to_owned(), frames))
                .collect(),
            at: begin + Duration::from_secs(seconds),
        };
        let [first, second, third] = [
            counted(0, &[("vm1", 100), ("vm2", 7), ("vm3", 0), ("vm4", 0)]),
            counted(2, &[("vm1", 700), ("vm2", 7), ("vm3", 50)]),
            counted(12, &[("vm1", 1700), ("vm2", 107), ("vm3", 50)]),
        ];
        let before = second.since(&first);
        let rates: Vec<_> = before.iter().map(|(tap, rate)| (&**tap, *rate)).collect();
        assert_eq!(rates, [("vm1", 300.0), ("vm2", 0.0), ("vm3", 25.0)]);
        let ratios = ratios(&before, &third.since(&second));
        let ratios: Vec<_> = ratios.iter().map(|(tap, ratio)| (&**tap, *ratio)).collect();
        assert_eq!(ratios, [("vm1", 3.0), ("vm2", 0.0)]);
    }
}
