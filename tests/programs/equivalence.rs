//! What the programs read in the kernel's memory is what the bridge was told: random frames and changes, and for each
//! frame the verdict of both programs, which is that of the decision over a model of the bridge. So both hooks agree
//! too.

use std::collections::BTreeMap;

use aya::programs::TcAttachType;
use tapbridge::common::{
    Hook,
    forwarding::{Reason, Retag, Verdict},
    mac::Mac,
};

use crate::{
    Test,
    cases::{TC_ACT_REDIRECT, TCX_NEXT, XDP_PASS, XDP_REDIRECT},
    frames::{Frame, complete, partial},
    model::Model,
    packet::{Shape, Tag},
    programs::{Frames, Ran},
    rig::{BRIDGE, ON_0, ON_1, ON_2, Rig, STATIONS, TAPS, UNKNOWN, shell},
};

pub const TESTS: &[Test] = &[(
    "both_programs_do_with_random_frames_what_the_bridges_tables_say",
    random_frames,
)];

const FRAMES: usize = 4000;
/// One change comes with so many frames, on the average.
const FRAMES_PER_CHANGE: usize = 20;
/// On a busy machine the bridge may not have seen a source for a second.
const ATTEMPTS: usize = 20;

fn random_frames() {
    let mut rig = Rig::new(Frames::Native);
    let mut model = Model::new([0, 1, 2].map(|tap| rig.ifindex(tap)));
    let mut random = Random(0x7a9b_11d9_e000_0001);
    let mut reasons = BTreeMap::<_, usize>::new();
    for number in 0..FRAMES {
        if random.below(FRAMES_PER_CHANGE) == 0 {
            change(&mut rig, &mut model, &mut random);
        }
        let from = random.tap();
        let frame = random_frame(&mut random, from);
        // What one hook remembers of this frame, the other may know.
        rig.programs.clear();
        for hook in Hook::ALL {
            let expected = model.verdict(from, &frame.bytes, hook);
            let verdict = (0..ATTEMPTS)
                .map(|_| run(&mut rig, &model, hook, from, &frame))
                .find(|verdict| *verdict != Verdict::Leave(Reason::SourceRefresh));
            assert_eq!(
                verdict,
                Some(expected),
                "frame {number}, {hook:?}, from tap {from}: {frame:02x?}\n{model:?}"
            );
            let reason = match expected {
                Verdict::Forward(..) => None,
                Verdict::Leave(reason) => Some(reason.name()),
            };
            *reasons.entry((hook.name(), reason)).or_default() += 1;
        }
    }
    // Frames must have met all that changes for this to prove something.
    let met =
        |hook: Hook, reason: Option<Reason>| reasons.get(&(hook.name(), reason.map(Reason::name))).copied();
    for hook in Hook::ALL {
        assert!(met(hook, None) > Some(FRAMES / 10), "{reasons:?}");
        for reason in [
            Reason::NotAPort,
            Reason::IngressState,
            Reason::Promiscuous,
            Reason::BridgeFilter,
            Reason::IngressHook,
            Reason::IngressFilter,
            Reason::SourceUnknown,
            Reason::SourceElsewhere,
            Reason::DestinationUnknown,
            Reason::Host,
            Reason::SamePort,
            Reason::EgressState,
            Reason::Isolated,
            Reason::EgressMtu,
        ] {
            assert!(
                met(hook, Some(reason)).is_some(),
                "{}: {reasons:?}",
                reason.name()
            );
        }
    }
    for reason in [Reason::EgressFilter, Reason::Queueing] {
        assert!(met(Hook::Xdp, Some(reason)).is_some(), "{reasons:?}");
    }
}

/// Runs a program on a frame from a station that the bridge has just seen, where that is where it should be.
fn run(rig: &mut Rig, model: &Model, hook: Hook, from: usize, frame: &Frame) -> Verdict {
    let source = Mac(frame.bytes[6..12].try_into().expect("6 bytes"));
    if model.entries.get(&source) == Some(&Some(from)) {
        rig.greet(from, source);
    }
    rig.programs.clear_counts();
    let ifindex = rig.ifindex(from);
    let ran = match hook {
        Hook::Xdp => rig.programs.xdp(&frame.bytes, ifindex),
        Hook::Tcx => rig.programs.tcx(&frame.bytes, ifindex, 0),
    };
    let taken = rig.programs.taken();
    let left = rig.programs.counters()[&ifindex].left[hook as usize];
    let left: Vec<Reason> = Reason::ALL
        .into_iter()
        .filter(|&reason| left[reason as usize] != 0)
        .collect();
    let (verdict, code, bytes) = match (&taken[..], &left[..]) {
        (&[taken], &[]) => {
            assert_eq!((taken.path.from, taken.via), (ifindex, hook));
            assert_eq!(taken.traffic.bytes, frame.bytes.len() as u64);
            let verdict = Verdict::Forward(taken.path.to, Retag::Keep);
            match hook {
                Hook::Xdp => (verdict, XDP_REDIRECT, &frame.leaves_xdp),
                Hook::Tcx => (verdict, TC_ACT_REDIRECT, &frame.leaves_tcx),
            }
        }
        (&[], &[reason]) => {
            let code = match hook {
                Hook::Xdp => XDP_PASS,
                Hook::Tcx => TCX_NEXT,
            };
            (Verdict::Leave(reason), code, &frame.bytes)
        }
        other => panic!("{hook:?} counts {other:?}"),
    };
    let expected = Ran {
        code,
        bytes: bytes.clone(),
    };
    assert_eq!(ran, expected, "{hook:?}, {verdict:?}");
    verdict
}

/// An administrator changes something; what was changed before is changed back first, half of the time.
fn change(rig: &mut Rig, model: &mut Model, random: &mut Random) {
    let tap = random.tap();
    let port = &mut model.ports[tap];
    let toggle = |flag: &mut bool| {
        *flag = !*flag;
        if *flag { "on" } else { "off" }
    };
    match random.below(12) {
        0 => {
            port.mtu = *random.of(&[576, 1500, 1500, 9000]);
            shell(&format!("ip link set vm{tap} mtu {}", port.mtu));
        }
        1 => {
            port.up = !port.up;
            shell(&format!(
                "ip link set vm{tap} {}",
                if port.up { "up" } else { "down" }
            ));
            if port.enslaved {
                port.state = if port.up { 3 } else { 0 };
            }
        }
        2 if port.enslaved && port.up => {
            port.state = *random.of(&[0, 1, 2, 3, 3, 3]);
            shell(&format!("bridge link set dev vm{tap} state {}", port.state));
        }
        3 if port.enslaved => {
            let learning = toggle(&mut port.learning);
            shell(&format!("bridge link set dev vm{tap} learning {learning}"));
        }
        4 if port.enslaved => {
            let isolated = toggle(&mut port.isolated);
            shell(&format!("bridge link set dev vm{tap} isolated {isolated}"));
        }
        5 => {
            let promiscuous = toggle(&mut model.promiscuous);
            shell(&format!("ip link set br0 promisc {promiscuous}"));
        }
        6 => {
            toggle(&mut model.rule);
            shell(if model.rule {
                "nft add table bridge t; nft add chain bridge t c {type filter hook forward priority 0;}"
            } else {
                "nft delete table bridge t"
            });
        }
        7 => {
            // Detached, both are.
            let device = format!("vm{tap}");
            if port.ingress_filter || port.egress_filter {
                [port.ingress_filter, port.egress_filter] = [false; 2];
                rig.programs.detach_other(&device);
            } else if random.below(2) == 0 {
                port.ingress_filter = true;
                rig.programs.attach_other(&device, TcAttachType::Ingress);
            } else {
                port.egress_filter = true;
                rig.programs.attach_other(&device, TcAttachType::Egress);
            }
        }
        8 => {
            toggle(&mut port.ingress_hook);
            shell(&if port.ingress_hook {
                format!(
                    "nft add table netdev t{tap}; nft add chain netdev t{tap} c \
                     {{type filter hook ingress device vm{tap} priority 0;}}"
                )
            } else {
                format!("nft delete table netdev t{tap}")
            });
        }
        9 => {
            toggle(&mut port.shaper);
            shell(&if port.shaper {
                format!("tc qdisc add dev vm{tap} root tbf rate 1gbit burst 10kb latency 1ms")
            } else {
                format!("tc qdisc del dev vm{tap} root")
            });
        }
        10 => {
            if port.enslaved {
                port.enslaved = false;
                shell(&format!("ip link set vm{tap} nomaster"));
                model.entries.retain(|_, at| *at != Some(tap));
            } else {
                port.join();
                shell(&format!("ip link set vm{tap} master br0"));
            }
        }
        _ => move_station(model, random, tap),
    }
    mend(rig, model, random);
}

/// A station moves to a tap, or is forgotten.
fn move_station(model: &mut Model, random: &mut Random, tap: usize) {
    let station = *random.of(&STATIONS);
    let at = model.entries.get(&station).copied().flatten();
    match at {
        Some(at) if random.below(4) == 0 => {
            shell(&format!("bridge fdb del {station} dev vm{at} master"));
            model.entries.remove(&station);
        }
        _ if model.ports[tap].enslaved => {
            shell(&format!("bridge fdb replace {station} dev vm{tap} master static"));
            model.entries.insert(station, Some(tap));
        }
        _ => {}
    }
}

/// Changes that keep all frames would leave nothing to see if they stayed.
fn mend(rig: &mut Rig, model: &mut Model, random: &mut Random) {
    if model.promiscuous && random.below(2) == 0 {
        model.promiscuous = false;
        shell("ip link set br0 promisc off");
    }
    if model.rule && random.below(2) == 0 {
        model.rule = false;
        shell("nft delete table bridge t");
    }
    for tap in 0..TAPS {
        let port = &mut model.ports[tap];
        if !port.up && random.below(3) == 0 {
            port.up = true;
            shell(&format!("ip link set vm{tap} up"));
            if port.enslaved {
                port.state = 3;
            }
        }
        if !port.enslaved && random.below(3) == 0 {
            port.join();
            shell(&format!("ip link set vm{tap} master br0"));
        }
        if port.enslaved && port.up && port.state != 3 && random.below(3) == 0 {
            port.state = 3;
            shell(&format!("bridge link set dev vm{tap} state 3"));
        }
        if port.ingress_filter && random.below(3) == 0 {
            port.ingress_filter = false;
            rig.programs.detach_other(&format!("vm{tap}"));
        }
        if port.ingress_hook && random.below(3) == 0 {
            port.ingress_hook = false;
            shell(&format!("nft delete table netdev t{tap}"));
        }
        if port.shaper && random.below(3) == 0 {
            port.shaper = false;
            shell(&format!("tc qdisc del dev vm{tap} root"));
        }
    }
    for (station, home) in STATIONS.into_iter().zip(0..) {
        if model.entries.get(&station) != Some(&Some(home))
            && model.ports[home].enslaved
            && random.below(3) == 0
        {
            shell(&format!(
                "bridge fdb replace {station} dev vm{home} master static"
            ));
            model.entries.insert(station, Some(home));
        }
    }
}

fn random_frame(random: &mut Random, from: usize) -> Frame {
    let shapes: Vec<Shape> = Shape::all().collect();
    let shape = *random.of(&shapes);
    let payload = match random.below(4) {
        0 => random.below(30),
        1 => random.below(200),
        _ => random.below(1480),
    };
    let build = if random.below(2) == 0 { partial } else { complete };
    let group = Mac([3, 0, 0, 0, 0, 1]);
    // Mostly the station that is there when nothing has been changed.
    let source = match random.below(4) {
        0 => *random.of(&[ON_0, ON_1, ON_2, UNKNOWN, group]),
        _ => STATIONS[from],
    };
    let destination = match random.below(6) {
        0 => *random.of(&[UNKNOWN, BRIDGE, Mac([0xff; 6])]),
        _ => *random.of(&STATIONS),
    };
    let identifier = u16::try_from(random.below(3)).expect("a small number");
    let mut frame = build(shape, payload).between(source, destination);
    if shape.tag != Tag::None {
        for bytes in [&mut frame.bytes, &mut frame.leaves_xdp, &mut frame.leaves_tcx] {
            bytes[14..16].copy_from_slice(&identifier.to_be_bytes());
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

    fn tap(&mut self) -> usize {
        self.below(TAPS)
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
