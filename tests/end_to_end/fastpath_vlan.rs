//! Ports of a Linux bridge that filters VLANs. What arrives where, with what tags, is compared with the bridge alone.

use std::time::Duration;

use bridge_common::{Hook, forwarding::Reason, port::HookMode};
use lab::{Tap, VnetHeader};

use crate::{
    fastpath::Bridged,
    support::{
        frames::{Flow, Tag, hello, partial, payload, segmented, tagged},
        linux_bridge::linux_bridge,
        program::{bridge, ip},
        wire::send_with,
    },
};

crate::tests![
    access_ports_and_trunks_carry_what_the_bridge_alone_does,
    changes_of_vlans_take_effect_with_the_next_frame,
    tags_of_the_other_protocol_are_carried_as_the_bridge_does,
    a_vlan_device_on_a_port_gets_its_frames,
    metadata_stays_where_a_tag_comes_or_goes,
    addresses_are_shown_with_their_vlans,
];

const TAPS: usize = 4;

/// Two access ports of VLAN 10, a trunk, and a port that has VLAN 20 without and VLAN 10 with a tag.
const VLANS: &[&str] = &[
    "vlan add dev vm1 vid 10 pvid untagged",
    "vlan add dev vm2 vid 10 pvid untagged",
    "vlan add dev vm3 vid 10",
    "vlan add dev vm3 vid 20",
    "vlan add dev vm4 vid 20 pvid untagged",
    "vlan add dev vm4 vid 10",
];

fn addresses_are_shown_with_their_vlans() {
    let switch = linux_bridge(2, false);
    switch.ok("attach --master br0");
    ip("link set br0 type bridge vlan_filtering 1");
    bridge("vlan add dev vm1 vid 10");
    bridge("fdb add 02:00:00:00:00:77 dev vm1 vlan 10 master static");
    let entries = switch.json("fdb show");
    let mut entries = entries.as_array().expect("entries").iter();
    let found = entries.find(|entry| entry["mac"] == "02:00:00:00:00:77");
    assert_eq!(found.expect("the address")["vlan"], 10);
}

/// What is done to the bridge and what is sent into it, in this order.
enum Step {
    Ip(&'static str),
    Bridge(&'static str),
    /// From a tap, which the first of them is 1.
    Send(usize, VnetHeader, Vec<u8>),
}

/// For every frame sent what came out of every tap.
type Arrivals = Vec<Vec<Vec<(VnetHeader, Vec<u8>)>>>;

fn filtering() -> Vec<Step> {
    let mut steps = vec![
        Step::Ip("link set br0 type bridge vlan_default_pvid 0"),
        Step::Ip("link set br0 type bridge vlan_filtering 1"),
    ];
    steps.extend(VLANS.iter().map(|&words| Step::Bridge(words)));
    steps
}

fn plain(from: usize, frame: Vec<u8>) -> Step {
    Step::Send(from, VnetHeader::none(), frame)
}

/// Every station makes itself known in its VLANs.
fn greetings(tag: fn(u16) -> Tag) -> impl Iterator<Item = Step> {
    let untagged = [1, 2, 4].map(|from| plain(usize::from(from), hello(from)));
    let others = [(3, 10), (3, 20), (4, 10)]
        .map(|(from, vlan)| plain(usize::from(from), tagged(&hello(from), tag(vlan))));
    untagged.into_iter().chain(others)
}

/// From everyone to everyone, with every kind of tag, twice: a frame that the bridge sees again and one that it need not.
fn everything(tag: fn(u16) -> Tag) -> Vec<Step> {
    let mut steps: Vec<Step> = greetings(tag).collect();
    let inner = tag(7).priority(2);
    for from in 1..=4 {
        for to in (1..=4).filter(|to| *to != from) {
            let frame = Flow::tcp(from, to).frame(b"known");
            let mut frames = vec![frame.clone()];
            for outer in [0, 10, 20, 30, 4095] {
                frames.push(tagged(&frame, tag(outer)));
                frames.push(tagged(&frame, tag(outer).priority(5)));
                frames.push(tagged(&tagged(&frame, inner), tag(outer).priority(3)));
            }
            for frame in frames {
                for _ in 0..2 {
                    steps.push(plain(usize::from(from), frame.clone()));
                }
            }
        }
    }
    steps
}

fn play(bridged: &Bridged, steps: &[Step]) -> Arrivals {
    let taps: [&Tap; TAPS] = bridged.taps();
    let mut arrivals = Vec::new();
    for step in steps {
        match step {
            Step::Ip(words) => drop(ip(words)),
            Step::Bridge(words) => bridge(words),
            Step::Send(from, header, frame) => {
                send_with(taps[from - 1], header, frame);
                // What comes at all has come inside the sender's system call.
                let arrived = taps.map(|tap| {
                    let next = || tap.receive(Duration::ZERO).expect("receive");
                    std::iter::from_fn(next).collect()
                });
                arrivals.push(arrived.into());
            }
        }
    }
    arrivals
}

/// Plays the steps on a bridge alone, and on one whose ports are attached, which must do the same.
fn compare(mode: HookMode, steps: &[Step]) -> Bridged {
    let expected = play(&Bridged::new(TAPS, false), steps);
    let bridged = Bridged::new(TAPS, false);
    for tap in ["vm1", "vm2", "vm3", "vm4"] {
        bridged.attach(tap, mode);
    }
    let arrivals = play(&bridged, steps);
    let sent = steps.iter().filter_map(|step| match step {
        Step::Send(from, _, frame) => Some((from, frame)),
        _ => None,
    });
    let mut changes = 0;
    for (number, ((from, frame), (arrived, expected))) in sent.zip(arrivals.iter().zip(&expected)).enumerate()
    {
        changes += usize::from(!expected.iter().all(Vec::is_empty));
        assert!(
            arrived == expected,
            "{mode:?}: frame {number} of {}, from vm{from}: {frame:02x?}\narrived\n{arrived:02x?}\nand with the bridge \
             alone\n{expected:02x?}",
            arrivals.len()
        );
    }
    assert!(changes > 0, "nothing arrived anywhere");
    bridged
}

fn access_ports_and_trunks_carry_what_the_bridge_alone_does() {
    for mode in [HookMode::Xdp, HookMode::Tcx] {
        let mut steps = filtering();
        steps.extend(everything(Tag::customer));
        let bridged = compare(mode, &steps);
        let [vm1, vm2, vm3, vm4] = bridged.taps();
        let xdp = mode == HookMode::Xdp;
        // Between access ports no tag changes, nor does one between trunks.
        for (from, to) in [(vm1, vm2), (vm2, vm1), (vm3, vm4), (vm4, vm3)] {
            let [native, tcx] = bridged.forwarded(from, to);
            assert!(
                if xdp { native > 0 } else { tcx > 0 },
                "{} {}",
                from.name(),
                to.name()
            );
        }
        // Between an access port and a trunk one comes or goes.
        for (from, to) in [(vm1, vm3), (vm3, vm1), (vm2, vm4), (vm4, vm2)] {
            assert!(
                bridged.forwarded(from, to)[1] > 0,
                "{} {}",
                from.name(),
                to.name()
            );
        }
        for (port, reason) in [(vm1, Reason::VlanIngress), (vm3, Reason::VlanTag)] {
            assert!(bridged.left(port, Hook::Tcx, reason) > 0, "{reason:?}");
        }
        assert_eq!(xdp, bridged.left(vm1, Hook::Xdp, Reason::VlanTag) > 0);
    }
}

fn changes_of_vlans_take_effect_with_the_next_frame() {
    let changes: &[&[Step]] = &[
        &[Step::Bridge("vlan set dev vm2 vid 10 state blocking")],
        &[Step::Bridge("vlan set dev vm2 vid 10 state learning")],
        &[Step::Bridge("vlan set dev vm2 vid 10 state forwarding")],
        // Without its PVID, but still without a tag.
        &[Step::Bridge("vlan add dev vm1 vid 10 untagged")],
        &[Step::Bridge("vlan add dev vm1 vid 10 pvid untagged")],
        &[Step::Bridge("vlan add dev vm2 vid 10 pvid")],
        &[Step::Bridge("vlan del dev vm2 vid 10")],
        &[
            Step::Bridge("vlan add dev vm2 vid 10 pvid untagged"),
            Step::Ip("link set br0 type bridge vlan_filtering 0"),
        ],
        &[Step::Ip("link set br0 type bridge vlan_filtering 1")],
        &[Step::Ip("link set br0 type bridge vlan_stats_enabled 1")],
    ];
    for mode in [HookMode::Xdp, HookMode::Tcx] {
        let mut steps = filtering();
        steps.extend(greetings(Tag::customer));
        for change in changes {
            let frames = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 4), (4, 2), (3, 4)];
            let send = |steps: &mut Vec<Step>| {
                for (from, to) in frames {
                    let frame = Flow::tcp(from, to).frame(b"known");
                    let customer = tagged(&frame, Tag::customer(10));
                    steps.extend([frame, customer].map(|frame| plain(usize::from(from), frame)));
                }
            };
            send(&mut steps);
            steps.extend(change.iter().map(|step| match step {
                Step::Ip(words) => Step::Ip(words),
                Step::Bridge(words) => Step::Bridge(words),
                Step::Send(..) => unreachable!("changes send nothing"),
            }));
            send(&mut steps);
        }
        let bridged = compare(mode, &steps);
        let [vm1, vm2, _, _] = bridged.taps();
        for reason in [
            Reason::VlanIngress,
            Reason::VlanEgress,
            Reason::VlanFiltering,
            Reason::DestinationUnknown,
        ] {
            let left = [vm1, vm2].map(|port| bridged.left(port, Hook::Tcx, reason));
            assert!(left.iter().sum::<u64>() > 0, "{reason:?}");
        }
    }
}

fn tags_of_the_other_protocol_are_carried_as_the_bridge_does() {
    for tag in [Tag::customer as fn(u16) -> Tag, Tag::service] {
        let mut steps = filtering();
        steps.push(Step::Ip("link set br0 type bridge vlan_protocol 802.1ad"));
        steps.extend(greetings(Tag::service));
        steps.extend(everything(tag));
        compare(HookMode::Xdp, &steps);
    }
}

fn a_vlan_device_on_a_port_gets_its_frames() {
    let mut steps = filtering();
    steps.extend(everything(Tag::customer));
    steps.push(Step::Ip("link add link vm3 name vlan10 up type vlan id 10"));
    steps.extend(everything(Tag::customer));
    steps.push(Step::Ip("link del vlan10"));
    steps.extend(everything(Tag::customer));
    let bridged = compare(HookMode::Xdp, &steps);
    let [_, _, vm3, _] = bridged.taps();
    assert!(bridged.left(vm3, Hook::Tcx, Reason::VlanDevice) > 0);
}

fn metadata_stays_where_a_tag_comes_or_goes() {
    let mut steps = filtering();
    steps.extend(greetings(Tag::customer));
    for (from, to) in [(1, 3), (1, 2)] {
        let flow = Flow::tcp(from, to);
        let (header, frame) = partial(&flow.frame(b"small"));
        steps.push(Step::Send(usize::from(from), header, frame));
        let (header, frame) = segmented(&flow.frame(&payload(40_000)), 1400);
        steps.push(Step::Send(usize::from(from), header, frame));
        // The longest that fits, and one that does not.
        for length in [1514, 1518, 1519] {
            steps.push(plain(usize::from(from), flow.of_length(length)));
        }
    }
    for to in [1, 4] {
        let tag = |frame: &[u8]| tagged(frame, Tag::customer(10).priority(6));
        let flow = Flow::tcp(3, to);
        let (header, frame) = partial(&tag(&flow.frame(b"small")));
        steps.push(Step::Send(3, header, frame));
        let (header, frame) = segmented(&tag(&flow.frame(&payload(40_000))), 1400);
        steps.push(Step::Send(3, header, frame));
        for length in [1514, 1518, 1519] {
            steps.push(plain(3, tag(&flow.of_length(length))));
        }
    }
    let bridged = compare(HookMode::Tcx, &steps);
    let [vm1, _, vm3, _] = bridged.taps();
    assert!(bridged.forwarded(vm1, vm3)[1] >= 2 && bridged.forwarded(vm3, vm1)[1] >= 2);
}
