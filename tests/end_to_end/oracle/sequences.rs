//! Random scripts. Those of the suite are the same in every run; with a number of seconds in the environment variable
//! `TAPBRIDGE_ORACLE_SECONDS` others follow for so long. A script that shows a difference is made as short as it can be.

use std::time::{Duration, Instant};

use super::{
    Alive,
    rig::{
        Manner, Rig,
        Step::{self, ForgetAtOnce, Listen, Remake, Run, Send, Sysctl, Try, Unlisten, Wait},
        TAPS,
    },
    seconds,
    testbed::Testbed,
};
use crate::support::random::Random;

crate::tests![random_sequences];

const SCRIPTS: u64 = 8;
const STEPS: usize = 10;

const FLAGS: [&str; 11] = [
    "hairpin",
    "guard",
    "learning",
    "flood",
    "mcast_flood",
    "bcast_flood",
    "mcast_to_unicast",
    "neigh_suppress",
    "vlan_tunnel",
    "isolated",
    "locked",
];

fn random_sequences() {
    let testbed = Testbed::take();
    let end = Instant::now() + Duration::from_secs(seconds(0));
    let (mut forwarded, mut alive) = (0, Alive::new());
    for seed in (0..).take_while(|seed| *seed < SCRIPTS || Instant::now() < end) {
        alive.tell(&format!("random_sequences: script {seed}"));
        let mut random = Random::new(seed);
        let manner = random.pick(&[Manner::Tcx, Manner::Xdp, Manner::Some]);
        let script: Vec<Step> = (0..STEPS).map(|_| step(&mut random)).collect();
        forwarded += differ(&testbed, &script, manner).unwrap_or_else(|difference| {
            println!("random_sequences: script {seed} differs and is made shorter");
            let (script, difference) = shortest(&testbed, script, manner, difference);
            panic!("script {seed}, {manner:?}: {script:#?}\n{difference}")
        });
    }
    assert!(forwarded > 0);
    testbed.give_back();
}

/// How many frames went past the bridge, or how it differs from the bridge alone.
fn differ(testbed: &Testbed, script: &[Step], manner: Manner) -> Result<u64, String> {
    let run = |manner| {
        let mut rig = Rig::new(testbed, manner);
        for step in script {
            rig.take_step(step);
        }
        rig.finish()
    };
    let (alone, record) = (run(Manner::Alone), run(manner));
    match alone.difference(&record, manner == Manner::Tcx) {
        Some(difference) => Err(difference),
        None => Ok(record.forwarded.iter().sum()),
    }
}

/// Leaves out one step after the other that the difference does not need.
fn shortest(
    testbed: &Testbed,
    mut script: Vec<Step>,
    manner: Manner,
    mut difference: String,
) -> (Vec<Step>, String) {
    let mut place = script.len();
    while place > 0 {
        place -= 1;
        let mut shorter = script.clone();
        shorter.remove(place);
        if let Err(still) = differ(testbed, &shorter, manner) {
            (script, difference) = (shorter, still);
        }
    }
    (script, difference)
}

fn step(random: &mut Random) -> Step {
    let one = |random: &mut Random| 1 + u8::try_from(random.below(TAPS.into())).expect("few taps");
    let (tap, station) = (one(random), one(random));
    let on = random.pick(&["on", "off"]);
    let attempt = |command: String| Try(command);
    match random.below(24) {
        0..=2 => {
            let to = one(random);
            Send {
                tap,
                from: station,
                to,
            }
        }
        3 | 4 => attempt(format!("ip link set vm{tap} {}", random.pick(&["down", "up"]))),
        5 | 6 => attempt(format!(
            "ip link set vm{tap} {}",
            random.pick(&["nomaster", "master br0"])
        )),
        7 => attempt(format!("ip link set vm{tap} mtu {}", random.pick(&[1000, 1500]))),
        8..=10 => attempt(format!(
            "bridge link set dev vm{tap} {} {on}",
            random.pick(&FLAGS)
        )),
        11 => attempt(format!("bridge link set dev vm{tap} state {}", random.below(5))),
        12 | 13 => {
            let kind = random.pick(&["static", "static sticky", "dynamic", "local", "extern_learn"]);
            attempt(format!(
                "bridge fdb replace 52:54:00:00:00:0{station} dev vm{tap} master {kind}"
            ))
        }
        14 => attempt(format!(
            "bridge fdb del 52:54:00:00:00:0{station} dev vm{tap} master"
        )),
        15 => attempt("bridge fdb flush dev br0".into()),
        16 => Run(format!("ip link set br0 {}", random.pick(&["down", "up", "up"]))),
        17 => Run(format!("ip link set br0 promisc {on}")),
        18 if on == "on" => Run("ip link set br0 type bridge ageing_time 30000".into()),
        18 => ForgetAtOnce,
        19 => {
            let hook = random.pick(&["prerouting", "forward", "postrouting"]);
            Run(format!(
                "nft add table bridge t ; add chain bridge t {hook} {{ type filter hook {hook} priority 0 ; }} ; \
                 add rule bridge t {hook} ether saddr 52:54:00:00:00:0{station} drop"
            ))
        }
        20 => Run("nft flush ruleset".into()),
        21 => Sysctl("net/bridge/bridge-nf-call-iptables", random.pick(&["0", "1"])),
        22 => match random.below(4) {
            0 => Remake(tap),
            1 => Listen("br0"),
            2 => Listen(""),
            _ => Unlisten,
        },
        _ => Wait(Duration::from_millis(1100)),
    }
}
