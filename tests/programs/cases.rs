//! Tables of {description, state, frame → verdict, output, counters, lesson}, and what checks them.

use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};
use tapbridge::common::{
    Hook,
    counters::{DropReason, PassReason, PortCounters, Traffic},
    decision::Lesson,
    fdb::{FdbEntry, FdbKey},
    mac::Mac,
};

use crate::{
    bench::{Bench, INGRESS, generation, untagged},
    frames::Frame,
    switch::{Frames, Path, Ran, SLOTS, now},
};

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_REDIRECT: u32 = 4;
pub const TC_ACT_SHOT: u32 = 2;
pub const TC_ACT_REDIRECT: u32 = 7;

/// Long enough for a frame to arrive on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a frame from slot 0 goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    To(u32),
    /// A copy to each of these.
    ToAll(&'static [u32]),
    Nowhere(DropReason),
}

/// What native XDP does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xdp {
    /// Sends it where tcx would.
    Redirects,
    /// Leaves it to tcx, untouched.
    PassesUp(PassReason),
    /// Drops it and counts why, since tcx would never meet it.
    Drops,
}

/// A frame received on slot 0 of [`Bench`].
#[derive(Clone)]
pub struct Case {
    description: String,
    /// What is done to the bench before.
    state: Option<fn(&mut Bench)>,
    frame: Frame,
    goes: Goes,
    xdp: Xdp,
    lesson: Lesson,
    gso_size: u32,
}

impl Case {
    /// A frame that teaches nothing; XDP takes it if it goes to one port.
    pub fn new(description: impl Into<String>, goes: Goes, frame: Frame) -> Self {
        Self {
            description: description.into(),
            state: None,
            frame,
            goes,
            xdp: match goes {
                Goes::To(_) => Xdp::Redirects,
                Goes::ToAll(_) | Goes::Nowhere(_) => Xdp::PassesUp(PassReason::NotForwarded),
            },
            lesson: Lesson::Nothing,
            gso_size: 0,
        }
    }

    /// Changes the bench before the frame comes.
    pub fn given(self, state: fn(&mut Bench)) -> Self {
        let state = Some(state);
        Self { state, ..self }
    }

    /// A frame that XDP leaves to tcx all the same, for its checksum's sake.
    pub fn passed_up(self) -> Self {
        self.passed_up_for(PassReason::Checksum)
    }

    /// A frame that XDP leaves to tcx all the same.
    pub fn passed_up_for(self, reason: PassReason) -> Self {
        let xdp = Xdp::PassesUp(reason);
        Self { xdp, ..self }
    }

    /// A frame that goes nowhere and that XDP does not leave to tcx.
    pub fn dropped_by_xdp(self) -> Self {
        let xdp = Xdp::Drops;
        Self { xdp, ..self }
    }

    /// What the frame's source is known to be afterwards.
    pub fn teaches(self, lesson: Lesson) -> Self {
        Self { lesson, ..self }
    }

    /// A frame of several segments.
    pub fn gso(self, gso_size: u32) -> Self {
        Self { gso_size, ..self }
    }

    pub fn goes(&self) -> Goes {
        self.goes
    }

    fn traffic(&self) -> Traffic {
        let bytes = self.frame.octets.len() as u64;
        Traffic { frames: 1, bytes }
    }

    /// What tcx counts of it as more than native XDP can take, which has 640 octets of a page for other things.
    fn bulk(&self) -> Traffic {
        let page = sysconf(SysconfVar::PAGE_SIZE)
            .expect("ask for it")
            .expect("a size");
        let fits = self.frame.octets.len() + 640 <= usize::try_from(page).expect("a size");
        if fits && self.gso_size == 0 {
            Traffic::default()
        } else {
            self.traffic()
        }
    }

    /// What the ingress port counts when the switch takes the frame.
    fn received(&self) -> PortCounters {
        PortCounters {
            received: self.traffic(),
            learned: u64::from(self.lesson == Lesson::Learn),
            moved: u64::from(self.lesson == Lesson::Move),
            ..PortCounters::default()
        }
    }

    fn path(&self, to: u32, via: Hook) -> Path {
        Path {
            from: INGRESS,
            to,
            via,
            traffic: self.traffic(),
        }
    }
}

/// Runs the cases through XDP as native frames.
pub fn check_xdp(cases: &[Case]) {
    let mut bench = Bench::new(Frames::Native);
    for case in cases {
        // A frame of several segments is never native.
        assert_eq!(case.gso_size, 0, "{}", case.description);
        let mut counters = [PortCounters::default(); SLOTS as usize];
        let (code, octets, paths, lesson) = match (case.xdp, case.goes) {
            (Xdp::Redirects, Goes::To(slot)) => {
                let completed = case.frame.octets != case.frame.leaves_xdp;
                counters[INGRESS as usize] = PortCounters {
                    checksums_completed: u64::from(completed),
                    ..case.received()
                };
                let paths = vec![case.path(slot, Hook::Xdp)];
                (XDP_REDIRECT, &case.frame.leaves_xdp, paths, case.lesson)
            }
            (Xdp::Drops, Goes::Nowhere(reason)) => {
                counters[INGRESS as usize] = case.received();
                counters[INGRESS as usize].dropped[reason as usize] = 1;
                (XDP_DROP, &case.frame.octets, Vec::new(), Lesson::Nothing)
            }
            (Xdp::PassesUp(reason), _) => {
                counters[INGRESS as usize].passed_up[reason as usize] = 1;
                (XDP_PASS, &case.frame.octets, Vec::new(), Lesson::Nothing)
            }
            (xdp, goes) => panic!("{}: {xdp:?} contradicts {goes:?}", case.description),
        };
        let ran = check_effects(&mut bench, case, &counters, &paths, lesson, |bench, ifindex| {
            bench.switch.xdp(&case.frame.octets, ifindex)
        });
        assert_eq!(ran.code, code, "{}: XDP action", case.description);
        assert_eq!(&ran.octets, octets, "{}: the frame afterwards", case.description);
    }
}

/// Runs the cases through tcx.
pub fn check_tcx(cases: &[Case]) {
    let mut bench = Bench::new(Frames::Generic);
    for case in cases {
        let mut counters = [PortCounters::default(); SLOTS as usize];
        let ingress = &mut counters[INGRESS as usize];
        *ingress = PortCounters {
            gso: u64::from(case.gso_size != 0),
            bulk: case.bulk(),
            ..case.received()
        };
        let mut paths = Vec::new();
        let mut copies: &[u32] = &[];
        let code = match case.goes {
            Goes::To(slot) => {
                paths.push(case.path(slot, Hook::Tcx));
                TC_ACT_REDIRECT
            }
            Goes::ToAll(slots) => {
                ingress.flooded = case.traffic();
                for &slot in slots {
                    counters[slot as usize].flood_copies = case.traffic();
                }
                // The last one gets the frame itself: a test run only says that it would.
                copies = &slots[..slots.len() - 1];
                TC_ACT_REDIRECT
            }
            Goes::Nowhere(reason) => {
                ingress.dropped[reason as usize] = 1;
                TC_ACT_SHOT
            }
        };
        let ran = check_effects(
            &mut bench,
            case,
            &counters,
            &paths,
            case.lesson,
            |bench, ifindex| bench.switch.tcx(&case.frame.octets, ifindex, case.gso_size),
        );
        assert_eq!(ran.code, code, "{}: tcx action", case.description);
        assert_eq!(
            ran.octets, case.frame.octets,
            "{}: tcx changes no frame",
            case.description
        );
        check_copies(&bench, case, copies);
    }
}

/// Runs a program on one frame and checks what it counted and learned.
fn check_effects(
    bench: &mut Bench,
    case: &Case,
    counters: &[PortCounters],
    paths: &[Path],
    lesson: Lesson,
    run: impl FnOnce(&Bench, u32) -> Ran,
) -> Ran {
    bench.reset();
    let ifindex = bench.tap(INGRESS).ifindex();
    if let Some(change) = case.state {
        bench.change(change);
    }
    let mut learned = bench.switch.learned();
    let before = now();
    let ran = run(bench, ifindex);
    for (slot, expected) in (0..).zip(counters) {
        let counted = bench.switch.counters(slot);
        assert_eq!(
            &counted, expected,
            "{}: counters of slot {slot}",
            case.description
        );
    }
    assert_eq!(bench.switch.paths(), paths, "{}: paths", case.description);

    let mut afterwards = bench.switch.learned();
    if lesson != Lesson::Nothing {
        let source = source(case);
        let entry = afterwards.remove(&source).expect("the source");
        assert!(
            (before..=now()).contains(&entry.last_seen),
            "{}: {entry:?}",
            case.description
        );
        let expected = FdbEntry {
            last_seen: entry.last_seen,
            generation: generation(INGRESS),
            slot: 0,
            reserved: 0,
        };
        assert_eq!(entry, expected, "{}: the source's entry", case.description);
        learned.remove(&source);
    }
    assert_eq!(afterwards, learned, "{}: what else is learned", case.description);
    ran
}

/// The key of a frame's source; frames that teach have no tag.
fn source(case: &Case) -> FdbKey {
    let source = case.frame.octets[6..12].try_into().expect("6 octets");
    untagged(Mac(source))
}

/// Checks that the frame has come out of these taps, once and unchanged, and out of no other.
fn check_copies(bench: &Bench, case: &Case, slots: &[u32]) {
    for &slot in slots {
        let (_, octets) = bench
            .tap(slot)
            .receive(PATIENCE)
            .expect("read a tap")
            .unwrap_or_else(|| panic!("{}: no copy on slot {slot}", case.description));
        assert_eq!(
            octets, case.frame.octets,
            "{}: the copy on slot {slot}",
            case.description
        );
    }
    for (slot, tap) in bench.taps() {
        assert_eq!(
            tap.drain().expect("read a tap"),
            0,
            "{}: too much on slot {slot}",
            case.description
        );
    }
}
