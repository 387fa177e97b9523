//! Tables of {description, state, frame → verdict, bytes, counters}, and what checks them.

use std::collections::BTreeMap;

use nix::unistd::{SysconfVar, sysconf};
use tapbridge::common::{
    Hook,
    counters::Traffic,
    fastpath::{Path, PortCounters},
    forwarding::Reason,
};

use crate::{
    frames::Frame,
    programs::{Frames, Ran, Taken},
    rig::{INGRESS, Rig, shell},
};

pub const XDP_PASS: u32 = 2;
pub const XDP_REDIRECT: u32 = 4;
pub const TC_ACT_REDIRECT: u32 = 7;
pub const TCX_NEXT: u32 = u32::MAX;

/// How often a case is tried: on a busy machine the bridge may not have seen the source for a second.
const ATTEMPTS: usize = 20;

/// What a program makes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    /// It sends it to this tap.
    To(usize),
    /// It leaves it to what comes behind it.
    Left(Reason),
}

/// A frame that the first tap of a [`Rig`] receives.
#[derive(Clone)]
pub struct Case {
    description: String,
    /// Commands that change something, and that change it back.
    state: Option<(&'static str, &'static str)>,
    /// What becomes of the frame before the one and after the other.
    otherwise: Goes,
    frame: Frame,
    xdp: Goes,
    tcx: Goes,
    gso_size: u32,
}

impl Case {
    /// A frame of which both programs make the same.
    pub fn new(description: impl Into<String>, goes: Goes, frame: Frame) -> Self {
        Self {
            description: description.into(),
            state: None,
            otherwise: Goes::To(1),
            frame,
            xdp: goes,
            tcx: goes,
            gso_size: 0,
        }
    }

    /// It is so between these commands; before and after them the frame goes to the second tap.
    pub fn during(self, change: &'static str, undo: &'static str) -> Self {
        let state = Some((change, undo));
        Self { state, ..self }
    }

    /// What becomes of the frame before and after that.
    pub fn otherwise(self, otherwise: Goes) -> Self {
        Self { otherwise, ..self }
    }

    /// XDP leaves the frame to tcx all the same.
    pub fn left_by_xdp(self, reason: Reason) -> Self {
        let xdp = Goes::Left(reason);
        Self { xdp, ..self }
    }

    /// A frame of several segments.
    pub fn gso(self, gso_size: u32) -> Self {
        Self { gso_size, ..self }
    }

    /// Whether a program leaves the frame for this reason.
    pub fn is_left_for(&self, reason: Reason) -> bool {
        [self.xdp, self.tcx].contains(&Goes::Left(reason))
    }

    fn traffic(&self) -> Traffic {
        let bytes = self.frame.bytes.len() as u64;
        Traffic { frames: 1, bytes }
    }

    /// What tcx counts of it as more than native XDP can take, which has 640 bytes of a page for other things.
    fn bulk(&self) -> Traffic {
        let page = sysconf(SysconfVar::PAGE_SIZE)
            .expect("ask for it")
            .expect("a size");
        let fits = self.frame.bytes.len() + 640 <= usize::try_from(page).expect("a size");
        if fits && self.gso_size == 0 {
            Traffic::default()
        } else {
            self.traffic()
        }
    }

    /// What a program does with the frame.
    fn expected(&self, hook: Hook, goes: Goes, ifindex: impl Fn(usize) -> u32) -> Seen {
        let mut counters = PortCounters::default();
        let mut taken = Vec::new();
        let redirected = match goes {
            Goes::Left(reason) => {
                counters.left[hook as usize][reason as usize] = 1;
                let stops = hook == Hook::Tcx && Reason::stops_port(reason as u32);
                counters.stopped_at = u64::from(stops);
                false
            }
            Goes::To(tap) => {
                let path = Path {
                    from: ifindex(INGRESS),
                    to: ifindex(tap),
                };
                let traffic = self.traffic();
                taken.push(Taken {
                    path,
                    via: hook,
                    traffic,
                });
                true
            }
        };
        let mut bytes = &self.frame.bytes;
        let code = match (hook, redirected) {
            (Hook::Xdp, true) => {
                bytes = &self.frame.leaves_xdp;
                counters.checksums_completed = u64::from(*bytes != self.frame.bytes);
                XDP_REDIRECT
            }
            (Hook::Xdp, false) => XDP_PASS,
            (Hook::Tcx, redirected) => {
                counters.gso = u64::from(self.gso_size != 0);
                counters.bulk = self.bulk();
                if redirected {
                    bytes = &self.frame.leaves_tcx;
                    TC_ACT_REDIRECT
                } else {
                    counters.left_traffic = self.traffic();
                    TCX_NEXT
                }
            }
        };
        Seen {
            ran: Ran {
                code,
                bytes: bytes.clone(),
            },
            counters: BTreeMap::from([(ifindex(INGRESS), counters)])
                .into_iter()
                .filter(has_counted)
                .collect(),
            taken,
        }
    }

    fn run(&self, rig: &mut Rig, hook: Hook) -> Seen {
        rig.programs.clear();
        let ifindex = rig.ifindex(INGRESS);
        let ran = match hook {
            Hook::Xdp => rig.programs.xdp(&self.frame.bytes, ifindex),
            Hook::Tcx => rig.programs.tcx(&self.frame.bytes, ifindex, self.gso_size),
        };
        let counters = rig.programs.counters().into_iter().map(|(ifindex, counters)| {
            // When it was can't be foreseen.
            let stopped_at = u64::from(counters.stopped_at != 0);
            (
                ifindex,
                PortCounters {
                    stopped_at,
                    ..counters
                },
            )
        });
        Seen {
            ran,
            counters: counters.filter(has_counted).collect(),
            taken: rig.programs.taken(),
        }
    }

    /// Runs a program on the frame: before the change, after it, and when it is undone; once, where there is none.
    fn runs(&self, rig: &mut Rig, hook: Hook) -> Vec<(Goes, Seen)> {
        let goes = match hook {
            Hook::Xdp => self.xdp,
            Hook::Tcx => self.tcx,
        };
        rig.refresh();
        let Some((change, undo)) = self.state else {
            return vec![(goes, self.run(rig, hook))];
        };
        let before = self.run(rig, hook);
        shell(change);
        let changed = self.run(rig, hook);
        shell(undo);
        rig.refresh();
        let after = self.run(rig, hook);
        vec![(self.otherwise, before), (goes, changed), (self.otherwise, after)]
    }

    fn check(&self, rig: &mut Rig, hook: Hook) {
        for _ in 0..ATTEMPTS {
            let runs = self.runs(rig, hook);
            let is_late = |(goes, seen): &(Goes, Seen)| {
                *goes != Goes::Left(Reason::SourceRefresh) && seen.is_left_for(hook, Reason::SourceRefresh)
            };
            if runs.iter().any(is_late) {
                continue;
            }
            for (number, (goes, seen)) in runs.into_iter().enumerate() {
                let expected = self.expected(hook, goes, |tap| rig.ifindex(tap));
                let same_bytes = seen.ran.bytes == expected.ran.bytes;
                assert_eq!(
                    seen, expected,
                    "{}, {hook:?}, run {number}, same bytes: {same_bytes}",
                    self.description
                );
            }
            return;
        }
        panic!(
            "{}: the bridge has not seen the source for a second, {ATTEMPTS} times",
            self.description
        );
    }
}

fn has_counted((_, counters): &(u32, PortCounters)) -> bool {
    *counters != PortCounters::default()
}

/// What shows of a run.
#[derive(Debug, PartialEq)]
struct Seen {
    ran: Ran,
    /// Of the devices that have counted something.
    counters: BTreeMap<u32, PortCounters>,
    taken: Vec<Taken>,
}

impl Seen {
    fn is_left_for(&self, hook: Hook, reason: Reason) -> bool {
        self.counters
            .values()
            .any(|counters| counters.left[hook as usize][reason as usize] != 0)
    }
}

/// Runs the cases through XDP as native frames.
pub fn check_xdp(cases: &[Case]) {
    let mut rig = Rig::new(Frames::Native);
    check_on(&mut rig, Hook::Xdp, cases);
}

/// Runs the cases through tcx.
pub fn check_tcx(cases: &[Case]) {
    let mut rig = Rig::new(Frames::Generic);
    check_on(&mut rig, Hook::Tcx, cases);
}

/// Runs the cases through a program at a bridge that is set up already.
pub fn check_on(rig: &mut Rig, hook: Hook, cases: &[Case]) {
    for case in cases {
        // A frame of several segments is never native.
        if case.gso_size == 0 || hook == Hook::Tcx {
            case.check(rig, hook);
        }
    }
}
