//! What the program that only looks counts of frames: what the hooks would make of each.

use crate::{forwarding::Reason, hook::Hook};

/// Different frames that are told apart, see [`Key`].
pub const MAX_OBSERVED: u32 = 16_384;

/// What is counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct Key {
    /// Index of the device that the frames came in by.
    pub from: u32,
    /// Index of the device that tcx would send them to; 0 if it would leave them.
    pub to: u32,
    /// What each hook would make of them, and how long they are: a byte each.
    codes: u32,
}

impl Key {
    /// Of a frame.
    #[inline(always)]
    pub const fn new(from: u32, to: u32, xdp: Outcome, tcx: Outcome, class: SizeClass) -> Self {
        Self {
            from,
            to,
            codes: xdp.0 | tcx.0 << 8 | (class as u32) << 16,
        }
    }

    /// What a hook would make of them: XDP, if it met them in native mode before tcx does.
    pub const fn outcome(self, hook: Hook) -> Outcome {
        Outcome(self.codes >> (8 * hook as u32) & 0xff)
    }

    /// How long they are.
    pub const fn class(self) -> SizeClass {
        SizeClass::ALL[(self.codes >> 16) as usize % SizeClass::ALL.len()]
    }
}

/// What a hook would make of a frame, as a number: the [`Reason`] to leave it, or one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(u32);

impl Outcome {
    /// It carries it.
    pub const CARRIED: Self = Self(0xff);
    /// XDP completes its checksum, and carries it.
    pub const COMPLETED: Self = Self(0xfe);

    /// It leaves it.
    #[inline(always)]
    pub const fn left(reason: Reason) -> Self {
        Self(reason as u32)
    }

    /// Why it leaves it; none if it carries it.
    pub fn reason(self) -> Option<Reason> {
        Reason::ALL.get(self.0 as usize).copied()
    }
}

/// How long frames are, tags included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SizeClass {
    /// At most 128 bytes.
    To128 = 0,
    /// At most 512 bytes.
    To512 = 1,
    /// At most 1024 bytes.
    To1024 = 2,
    /// At most 1518 bytes.
    To1518 = 3,
    /// Longer.
    Longer = 4,
    /// Several segments that are cut later.
    Gso = 5,
}

impl SizeClass {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::To128,
        Self::To512,
        Self::To1024,
        Self::To1518,
        Self::Longer,
        Self::Gso,
    ];

    /// Of a frame.
    #[inline(always)]
    pub const fn of(bytes: u32, gso: bool) -> Self {
        match bytes {
            _ if gso => Self::Gso,
            0..=128 => Self::To128,
            129..=512 => Self::To512,
            513..=1024 => Self::To1024,
            1025..=1518 => Self::To1518,
            _ => Self::Longer,
        }
    }

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::To128 => "to_128",
            Self::To512 => "to_512",
            Self::To1024 => "to_1024",
            Self::To1518 => "to_1518",
            Self::Longer => "longer",
            Self::Gso => "gso",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_what_it_is_made_of() {
        let reasons = Reason::ALL.map(Outcome::left);
        let outcomes = reasons.into_iter().chain([Outcome::CARRIED, Outcome::COMPLETED]);
        for xdp in outcomes.clone() {
            for tcx in outcomes.clone() {
                for class in SizeClass::ALL {
                    let key = Key::new(7, 8, xdp, tcx, class);
                    assert_eq!((key.from, key.to, key.class()), (7, 8, class));
                    assert_eq!((key.outcome(Hook::Xdp), key.outcome(Hook::Tcx)), (xdp, tcx));
                }
            }
        }
    }

    #[test]
    fn what_is_carried_has_no_reason_to_be_left() {
        for reason in Reason::ALL {
            assert_eq!(Outcome::left(reason).reason(), Some(reason));
        }
        assert_eq!(Outcome::CARRIED.reason(), None);
        assert_eq!(Outcome::COMPLETED.reason(), None);
    }

    #[test]
    fn classes_end_at_their_names() {
        let classes = [
            (60, SizeClass::To128),
            (128, SizeClass::To128),
            (129, SizeClass::To512),
            (512, SizeClass::To512),
            (1024, SizeClass::To1024),
            (1025, SizeClass::To1518),
            (1518, SizeClass::To1518),
            (1519, SizeClass::Longer),
        ];
        for (bytes, class) in classes {
            assert_eq!(SizeClass::of(bytes, false), class, "{bytes}");
            assert_eq!(SizeClass::of(bytes, true), SizeClass::Gso);
        }
    }
}
