//! What the cache of reasons changes about decisions: nothing, in a world that stays as it is; and in one that changes
//! only that frames go by the bridge which need not, until the clock ticks.

use bridge_common::{
    Hook,
    forwarding::{
        Filtering, Membership, NegativeCache, Options, PortVlan, Reason, Received, STATE_FORWARDING, Tables,
        Verdict, decide, port_flag,
    },
};
use proptest::prelude::*;

const PORTS: usize = 4;
const STATIONS: usize = 6;
const BLOCKING: u8 = 4;
/// Index of the first port's device.
const FIRST: usize = 10;

/// A bridge, its ports numbered as they come in, and a frame at one of them.
#[derive(Clone, Debug)]
struct World {
    /// The port that each station is known at.
    stations: [Option<usize>; STATIONS],
    /// Whether the bridge has just seen it.
    fresh: [bool; STATIONS],
    forwarding: [bool; PORTS],
    isolated: [bool; PORTS],
    learning: [bool; PORTS],
    carrier: [bool; PORTS],
    /// What keeps a native redirect from the port.
    shaped: [bool; PORTS],
    rules: bool,
    ingress: usize,
}

/// The first two ports have a station each, and nothing is in the way.
const USUAL: World = World {
    stations: [Some(0), Some(1), None, None, None, None],
    fresh: [true; STATIONS],
    forwarding: [true; PORTS],
    isolated: [false; PORTS],
    learning: [true; PORTS],
    carrier: [true; PORTS],
    shaped: [false; PORTS],
    rules: false,
    ingress: 0,
};

fn station(number: usize) -> u64 {
    2 | (number as u64 + 1) << 40
}

impl Tables for World {
    crate::tables::one_plain_bridge!();

    fn ingress(&self) -> Option<usize> {
        Some(self.ingress)
    }
    fn flags(&self, port: usize) -> u64 {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        flag(self.learning[port], port_flag::LEARNING) | flag(self.isolated[port], port_flag::ISOLATED)
    }
    fn state(&self, port: usize) -> u8 {
        if self.forwarding[port] {
            STATE_FORWARDING
        } else {
            BLOCKING
        }
    }
    fn options(&self, (): ()) -> Options {
        Options::default()
    }
    fn filtering(&self, _: Options) -> Filtering {
        if self.rules {
            Filtering::Rules
        } else {
            Filtering::Nothing
        }
    }
    fn vlan_protocol(&self, (): ()) -> u16 {
        0
    }
    fn port_vlan(&self, _: usize) -> PortVlan {
        PortVlan { id: 0, state: 0 }
    }
    fn membership(&self, _: usize, _: u16) -> Option<Membership> {
        None
    }
    fn entry(&self, (): (), _: u16, address: u64) -> Option<usize> {
        (0..STATIONS).find(|&number| station(number) == address && self.stations[number].is_some())
    }
    fn entry_port(&self, entry: usize) -> Option<usize> {
        self.stations[entry]
    }
    fn is_fresh(&self, (): (), entry: usize) -> bool {
        self.fresh[entry]
    }
    fn device(&self, port: usize) -> usize {
        FIRST + port
    }
    fn index(&self, device: usize) -> u32 {
        u32::try_from(device).unwrap()
    }
    fn has_carrier(&self, device: usize) -> bool {
        self.carrier[device - FIRST]
    }
    fn native_obstacle(&self, device: usize) -> Option<Reason> {
        self.shaped[device - FIRST].then_some(Reason::Queueing)
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A frame from one station to another, and how long it is, at a hook of a port.
    Frame {
        port: usize,
        from: usize,
        to: usize,
        length: u32,
        hook: Hook,
    },
    Tick,
    Moves(usize, Option<usize>),
    Seen(usize, bool),
    Forwards(usize, bool),
    Isolates(usize, bool),
    Learns(usize, bool),
    Carries(usize, bool),
    Shapes(usize, bool),
    Rules(bool),
}

fn frame() -> impl Strategy<Value = Step> {
    let hook = prop_oneof![Just(Hook::Xdp), Just(Hook::Tcx)];
    // Too long for the MTU, now and then.
    let length = prop_oneof![9 => Just(60), 1 => Just(9000)];
    (0..PORTS, 0..STATIONS, 0..STATIONS, length, hook).prop_map(|(port, from, to, length, hook)| {
        Step::Frame {
            port,
            from,
            to,
            length,
            hook,
        }
    })
}

fn change() -> impl Strategy<Value = Step> {
    let port = 0..PORTS;
    prop_oneof![
        (0..STATIONS, proptest::option::of(0..PORTS)).prop_map(|(station, port)| Step::Moves(station, port)),
        (0..STATIONS, any::<bool>()).prop_map(|(station, fresh)| Step::Seen(station, fresh)),
        (port.clone(), any::<bool>()).prop_map(|(port, is)| Step::Forwards(port, is)),
        (port.clone(), any::<bool>()).prop_map(|(port, is)| Step::Isolates(port, is)),
        (port.clone(), any::<bool>()).prop_map(|(port, is)| Step::Learns(port, is)),
        (port.clone(), any::<bool>()).prop_map(|(port, is)| Step::Carries(port, is)),
        (port, any::<bool>()).prop_map(|(port, is)| Step::Shapes(port, is)),
        any::<bool>().prop_map(Step::Rules),
    ]
}

fn steps(changes: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![8 => frame(), 1 => Just(Step::Tick), changes => change()];
    proptest::collection::vec(step, 1..200)
}

fn world() -> impl Strategy<Value = World> {
    let often = || proptest::array::uniform4(proptest::bool::weighted(0.8));
    let seldom = || proptest::array::uniform4(proptest::bool::weighted(0.2));
    let stations = proptest::array::uniform6(proptest::option::weighted(0.8, 0..PORTS));
    let fresh = proptest::array::uniform6(proptest::bool::weighted(0.8));
    (stations, fresh, often(), seldom(), often(), often(), seldom()).prop_map(
        |(stations, fresh, forwarding, isolated, learning, carrier, shaped)| World {
            stations,
            fresh,
            forwarding,
            isolated,
            learning,
            carrier,
            shaped,
            ..USUAL
        },
    )
}

/// What becomes of each frame, with the cache and without it, and whether something has changed in the tick before.
fn verdicts(mut world: World, steps: &[Step]) -> Vec<(Verdict, Option<u32>, bool)> {
    let mut cache = NegativeCache::EMPTY;
    let (mut jiffies, mut changed) = (1, false);
    let mut verdicts = Vec::new();
    for &step in steps {
        match step {
            Step::Frame {
                port,
                from,
                to,
                length,
                hook,
            } => {
                world.ingress = port;
                let received = Received {
                    destination: station(to),
                    source: station(from),
                    ethertype: 0x0800,
                    tag: None,
                    length,
                    gso: false,
                };
                let ifindex = u32::try_from(FIRST + port).unwrap();
                let verdict = decide(&world, &received, hook);
                let entry = cache.entry_mut(ifindex, &received);
                let cached = entry.lookup(ifindex, &received, hook, || jiffies);
                if let (None, Verdict::Leave(reason)) = (cached, verdict) {
                    entry.insert(ifindex, &received, jiffies, reason);
                }
                verdicts.push((verdict, cached, changed));
                continue;
            }
            Step::Tick => {
                (jiffies, changed) = (jiffies + 1, false);
                continue;
            }
            Step::Moves(station, port) => world.stations[station] = port,
            Step::Seen(station, fresh) => world.fresh[station] = fresh,
            Step::Forwards(port, is) => world.forwarding[port] = is,
            Step::Isolates(port, is) => world.isolated[port] = is,
            Step::Learns(port, is) => world.learning[port] = is,
            Step::Carries(port, is) => world.carrier[port] = is,
            Step::Shapes(port, is) => world.shaped[port] = is,
            Step::Rules(are) => world.rules = are,
        }
        changed = true;
    }
    verdicts
}

proptest! {
    #[test]
    fn without_it_the_same_frames_are_left(world in world(), steps in steps(0)) {
        let verdicts = verdicts(world, &steps);
        for (verdict, cached, _) in verdicts {
            if cached.is_some() {
                prop_assert!(matches!(verdict, Verdict::Leave(_)), "{verdict:?}, and not {cached:?}");
            }
        }
    }

    #[test]
    fn what_has_ended_is_forgotten_with_the_next_tick(world in world(), steps in steps(2)) {
        for (verdict, cached, changed) in verdicts(world, &steps) {
            if cached.is_some() && !changed {
                prop_assert!(matches!(verdict, Verdict::Leave(_)), "{verdict:?}, and not {cached:?}");
            }
        }
    }
}

#[test]
fn it_is_hit() {
    let to = |to, hook| Step::Frame {
        port: 0,
        from: 0,
        to,
        length: 60,
        hook,
    };
    let unknown = Reason::DestinationUnknown;
    let steps = [
        to(2, Hook::Xdp),
        to(2, Hook::Tcx),
        Step::Tick,
        to(2, Hook::Tcx),
        to(1, Hook::Xdp),
    ];
    let verdicts = verdicts(USUAL, &steps);
    let cached: Vec<_> = verdicts.iter().map(|(_, cached, _)| *cached).collect();
    assert_eq!(cached, [None, Some(unknown as u32), None, None]);
    assert!(matches!(verdicts[3].0, Verdict::Forward(11, _)));
}
