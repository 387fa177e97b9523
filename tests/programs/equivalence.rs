//! A switch with both hooks does with every frame what one with tcx alone does: the same frames through two switches
//! over the same taps, which must agree after each.

use std::collections::BTreeMap;

use tapbridge::common::{
    counters::{PassReason, PortCounters, Traffic},
    fdb::FdbKey,
    mac::Mac,
    port::{Ingress, flag},
};

use crate::{
    Test,
    bench::{Bench, ON_0, ON_1, ON_2, TAPS, UNKNOWN},
    cases::{TC_ACT_REDIRECT, TC_ACT_SHOT, XDP_PASS, XDP_REDIRECT},
    frames::{Frame, complete, partial},
    packet::{Shape, Tag},
    switch::{Frames, SLOTS, Switch},
};

pub const TESTS: &[Test] = &[(
    "both_hooks_together_do_with_random_frames_what_tcx_does_alone",
    random_frames,
)];

const FRAMES: usize = 4000;

fn random_frames() {
    let mut bench = Bench::new(Frames::Native);
    let mut alone = bench.another_switch();
    let mut random = Random(0x7a9b_11d9_e000_0001);
    let [mut redirected, mut passed_up] = [0, 0];
    let mut down = None;
    for number in 0..FRAMES {
        change_state(&mut bench, &mut alone, &mut random, &mut down);
        // The kernel gives frames of a tap that is down to XDP alone.
        let Some(from) = Some(random.slot()).filter(|&slot| Some(slot) != down) else {
            continue;
        };
        let ifindex = bench.tap(from).ifindex();
        let frame = random_frame(&mut random);

        let ran = bench.switch.xdp(&frame.octets, ifindex);
        let code = alone.tcx(&frame.octets, ifindex, 0).code;
        if ran.code == XDP_REDIRECT {
            redirected += 1;
            assert_eq!(code, TC_ACT_REDIRECT, "frame {number}: {frame:x?}");
            assert_eq!(ran.octets, frame.leaves_xdp, "frame {number}");
        } else {
            passed_up += 1;
            assert_eq!(
                (ran.code, ran.octets),
                (XDP_PASS, frame.octets.clone()),
                "frame {number}"
            );
            let both = bench.switch.tcx(&frame.octets, ifindex, 0);
            assert!([TC_ACT_REDIRECT, TC_ACT_SHOT].contains(&code));
            assert_eq!(both.code, code, "frame {number}: {frame:x?}");
        }
        assert_eq!(seen(&bench.switch), seen(&alone), "frame {number}: {frame:x?}");
        for (_, tap) in bench.taps() {
            tap.drain().expect("read a tap");
        }
    }
    // Both ways must have been taken often for this to prove something.
    assert!(
        redirected > FRAMES / 10 && passed_up > FRAMES / 10,
        "{redirected} and {passed_up}"
    );
}

/// What a switch shows of its frames, without what tells the hooks apart.
#[derive(Debug, PartialEq)]
struct Seen {
    counters: Vec<PortCounters>,
    paths: BTreeMap<(u32, u32), Traffic>,
    learned: BTreeMap<FdbKey, (u16, u32)>,
}

fn seen(switch: &Switch) -> Seen {
    let counters = (0..SLOTS).map(|slot| PortCounters {
        passed_up: [0; PassReason::COUNT],
        checksums_completed: 0,
        ..switch.counters(slot)
    });
    let mut paths = BTreeMap::<_, Traffic>::new();
    for path in switch.paths() {
        *paths.entry((path.from, path.to)).or_default() += path.traffic;
    }
    let learned = switch.learned().into_iter();
    Seen {
        counters: counters.collect(),
        paths,
        learned: learned
            .map(|(key, entry)| (key, (entry.slot, entry.generation)))
            .collect(),
    }
}

/// Now and then a tap gets another MTU or goes down or up, or a port comes anew, or stops to take native frames.
fn change_state(bench: &mut Bench, alone: &mut Switch, random: &mut Random, down: &mut Option<u32>) {
    let slot = random.slot();
    match random.below(200) {
        0 => {
            let mtu = *random.of(&[576, 1500, 1500, 9000]);
            bench.tap(slot).set_mtu(mtu).expect("set an MTU");
        }
        1 => {
            *down = match *down {
                Some(slot) => bench.tap(slot).up().map(|()| None),
                None => bench.tap(slot).down().map(|()| Some(slot)),
            }
            .expect("set a tap up or down");
        }
        2 => {
            let mut port = bench.switch.port(slot);
            port.generation += 100;
            let ingress = Ingress {
                generation: port.generation,
                slot,
            };
            for switch in [&mut *bench.switch, alone] {
                switch.ports.set(slot, port, 0).expect("write PORTS");
                switch.enter(port.ifindex, ingress);
            }
        }
        3 => bench.change_port(slot, |port| port.flags ^= flag::NATIVE_TARGET),
        _ => {}
    }
}

fn random_frame(random: &mut Random) -> Frame {
    let shapes: Vec<Shape> = Shape::all().collect();
    let shape = *random.of(&shapes);
    let payload = match random.below(4) {
        0 => random.below(30),
        1 => random.below(200),
        _ => random.below(1480),
    };
    let build = if random.below(2) == 0 { partial } else { complete };
    let mut frame = build(shape, payload);
    let source = *random.of(&[
        ON_0,
        ON_1,
        ON_2,
        ON_0,
        ON_1,
        ON_2,
        UNKNOWN,
        Mac([3, 0, 0, 0, 0, 1]),
    ]);
    let destination = *random.of(&[
        ON_0,
        ON_1,
        ON_2,
        ON_0,
        ON_1,
        ON_2,
        UNKNOWN,
        Mac([0xff; 6]),
        Mac([0x01, 0x80, 0xc2, 0, 0, 3]),
    ]);
    let identifier = u16::try_from(random.below(3)).expect("a small number");
    for octets in [&mut frame.octets, &mut frame.leaves_xdp] {
        octets[..6].copy_from_slice(&destination.0);
        octets[6..12].copy_from_slice(&source.0);
        if shape.tag != Tag::None {
            octets[14..16].copy_from_slice(&identifier.to_be_bytes());
        }
    }
    frame
}

/// A generator of numbers that is the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }

    fn slot(&mut self) -> u32 {
        u32::try_from(self.below(TAPS as usize)).expect("a small number")
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
