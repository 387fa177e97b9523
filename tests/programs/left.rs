//! Frames that are not the programs' to forward: tcx leaves them to the bridge, XDP to tcx, and each counts why.
//!
//! Where an administrator's change is the reason, it is one from the first frame on, and none from the first frame on
//! after it is undone.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use aya::programs::TcAttachType;
use lab::Tap;
use tapbridge::{
    common::{Hook, fastpath::PortCounters, forwarding::Reason, mac::Mac, port::flag},
    kernel::sysfs::Sysfs,
};

use crate::{
    Test,
    cases::{Case, Goes, TCX_NEXT, XDP_PASS, check_on, check_tcx, check_xdp},
    forwarding::unclear,
    frames::{self, Frame, usual},
    listener::listen,
    packet::{Ip, Shape, Tag, Transport},
    programs::Frames,
    rig::{BRIDGE, INGRESS, ON_0, ON_2, PORT, Rig, UNKNOWN, shell},
};

pub const TESTS: &[Test] = &[
    ("xdp_leaves_what_the_bridge_would_not_send_to_one_port", || {
        check_xdp(&of_both());
    }),
    ("tcx_leaves_what_the_bridge_would_not_send_to_one_port", || {
        check_tcx(&of_both());
    }),
    ("xdp_leaves_what_a_native_redirect_would_not_carry_whole", || {
        check_xdp(&of_xdp_alone());
    }),
    ("tcx_carries_what_a_native_redirect_would_not_carry_whole", || {
        check_tcx(&of_xdp_alone());
    }),
    (
        "icmpv6_is_left_to_a_bridge_that_answers_solicitations",
        solicitations,
    ),
    (
        "a_frame_from_a_station_that_the_bridge_has_not_seen_for_a_second_is_left",
        not_seen_for_a_second,
    ),
    ("a_frame_to_a_tap_that_nobody_reads_is_left", nobody_reads),
    ("a_frame_to_a_station_whose_tap_is_gone_is_left", tap_is_gone),
    (
        "a_frame_that_somebody_elses_program_would_meet_is_left",
        another_program,
    ),
    (
        "rules_are_passed_by_between_ports_that_none_is_meant_for",
        bypassed_rules,
    ),
    (
        "without_its_program_at_tcx_a_port_leaves_every_frame",
        without_tcx,
    ),
    ("frames_of_a_device_that_is_no_port_are_counted_nowhere", stranger),
    (
        "xdp_leaves_frames_to_a_target_that_is_no_tap_or_has_several_queues",
        other_targets,
    ),
    (
        "xdp_leaves_frames_that_a_packet_socket_would_hear",
        packet_sockets,
    ),
    ("xdp_leaves_frames_of_a_queue_that_is_steered", steering),
    ("every_reason_to_leave_a_frame_is_in_the_tables", every_reason),
];

const fn link_local(last: u8) -> Mac {
    Mac([0x01, 0x80, 0xc2, 0, 0, last])
}

/// A frame of a protocol that the bridge may have a part in.
fn of_protocol(ethertype: u16) -> Frame {
    let mut bytes = usual().bytes;
    bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
    bytes.into()
}

fn icmpv6() -> Frame {
    let shape = Shape {
        tag: Tag::None,
        ip: Ip::V6,
        transport: Transport::Udp,
    };
    let mut bytes = frames::complete(shape, 100).bytes;
    bytes[14 + 6] = 58;
    bytes.into()
}

/// Frames that are left whoever they are from and for, and those that somebody's change keeps.
fn of_both() -> Vec<Case> {
    let mut cases = of_frames();
    cases.extend(of_ingress());
    cases.extend(of_egress());
    cases
}

fn left(description: &str, reason: Reason, frame: Frame) -> Case {
    Case::new(description, Goes::Left(reason), frame)
}

/// What the frame itself says, or the forwarding database.
fn of_frames() -> Vec<Case> {
    let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let mut cases = vec![
        left("to all", Reason::Group, frames::to(Mac([0xff; 6]))),
        left("to a group", Reason::Group, frames::to(group)),
        left("to a spanning tree", Reason::Group, frames::to(link_local(0))),
        left(
            "to the last link-local group",
            Reason::Group,
            frames::to(link_local(0x0f)),
        ),
        left("to the group behind", Reason::Group, frames::to(link_local(0x10))),
        left(
            "to all, from a new station",
            Reason::Group,
            frames::between(UNKNOWN, group),
        ),
        left("from a group", Reason::InvalidSource, frames::from(group)),
        left("from nobody", Reason::InvalidSource, frames::from(Mac([0; 6]))),
        left("ARP to one station", Reason::Protocol, frames::arp()),
        left("RARP", Reason::Protocol, of_protocol(0x8035)),
        left("MRP", Reason::Protocol, of_protocol(0x88e3)),
        left("CFM", Reason::Protocol, of_protocol(0x8902)),
        left("from a new station", Reason::SourceUnknown, frames::from(UNKNOWN)),
        left(
            "from a station that is elsewhere",
            Reason::SourceElsewhere,
            frames::from(ON_2),
        ),
        left(
            "from the bridge's address",
            Reason::SourceElsewhere,
            frames::from(BRIDGE),
        ),
        left("from the port's address", Reason::SourceFlags, frames::from(PORT)),
        left(
            "to nobody's address",
            Reason::DestinationUnknown,
            frames::to(UNKNOWN),
        ),
        left("to the host", Reason::Host, frames::to(BRIDGE)),
        left("to the host, by a port's address", Reason::Host, frames::to(PORT)),
        left("to itself", Reason::SamePort, frames::to(ON_0)),
    ];
    for shape in Shape::all() {
        let to_all = frames::partial(shape, 100).between(ON_0, Mac([0xff; 6]));
        cases.push(left("to all, of every shape", Reason::Group, to_all));
    }
    for tag in [Tag::Customer, Tag::Service] {
        let cut = left("cut inside its tag", Reason::TooShort, frames::cut(tag, 17));
        cases.push(cut);
    }
    cases
}

/// What keeps a port's frames.
fn of_ingress() -> Vec<Case> {
    let usual = |description, reason| left(description, reason, usual());
    vec![
        usual("from a device that has left the bridge", Reason::NotAPort).during(
            "ip link set vm0 nomaster",
            "ip link set vm0 master br0; bridge fdb replace 02:00:00:00:00:10 dev vm0 master static",
        ),
        usual("from a port that is disabled", Reason::IngressState).during(
            "bridge link set dev vm0 state 0",
            "bridge link set dev vm0 state 3",
        ),
        usual("from a port that listens", Reason::IngressState).during(
            "bridge link set dev vm0 state 1",
            "bridge link set dev vm0 state 3",
        ),
        usual("from a port that learns", Reason::IngressState).during(
            "bridge link set dev vm0 state 2",
            "bridge link set dev vm0 state 3",
        ),
        usual("from a port that is down", Reason::IngressState)
            .during("ip link set vm0 down", "ip link set vm0 up"),
        usual("from a port that maps VLANs to tunnels", Reason::PortFlags).during(
            "bridge link set dev vm0 vlan_tunnel on",
            "bridge link set dev vm0 vlan_tunnel off",
        ),
        usual("by a bridge that is down", Reason::IngressState)
            .during("ip link set br0 down", "ip link set br0 up"),
        usual("by a promiscuous bridge", Reason::Promiscuous)
            .during("ip link set br0 promisc on", "ip link set br0 promisc off"),
        usual("where a rule of the bridge looks", Reason::BridgeFilter).during(
            "nft add table bridge t; nft add chain bridge t c {type filter hook forward priority 0;}",
            "nft delete table bridge t",
        ),
        usual("where a rule of the device looks", Reason::IngressHook).during(
            "nft add table netdev t; \
             nft add chain netdev t c {type filter hook ingress device vm0 priority 0;}",
            "nft delete table netdev t",
        ),
        left(
            "from a new station at a locked port",
            Reason::SourceUnknown,
            frames::from(UNKNOWN),
        )
        .during(
            "bridge link set dev vm0 locked on learning off",
            "bridge link set dev vm0 locked off learning on",
        )
        .otherwise(Goes::Left(Reason::SourceUnknown)),
        usual("by a bridge that forgets at once", Reason::SourceRefresh).during(
            "ip link set br0 type bridge ageing_time 0",
            "ip link set br0 type bridge ageing_time 30000",
        ),
        usual("from a station that has moved", Reason::SourceElsewhere).during(
            "bridge fdb replace 02:00:00:00:00:10 dev vm2 master static",
            "bridge fdb replace 02:00:00:00:00:10 dev vm0 master static",
        ),
        usual("from a station that has been forgotten", Reason::SourceUnknown).during(
            "bridge fdb del 02:00:00:00:00:10 dev vm0 master",
            "bridge fdb add 02:00:00:00:00:10 dev vm0 master static",
        ),
    ]
}

/// What keeps the frames for a port.
fn of_egress() -> Vec<Case> {
    let usual = |description, reason| left(description, reason, usual());
    vec![
        usual("to a station that has been forgotten", Reason::DestinationUnknown).during(
            "bridge fdb del 02:00:00:00:00:11 dev vm1 master",
            "bridge fdb add 02:00:00:00:00:11 dev vm1 master static",
        ),
        usual(
            "to a station whose port has left the bridge",
            Reason::DestinationUnknown,
        )
        .during(
            "ip link set vm1 nomaster",
            "ip link set vm1 master br0; bridge fdb replace 02:00:00:00:00:11 dev vm1 master static",
        ),
        usual("to an address that has become the host's", Reason::Host).during(
            "bridge fdb del 02:00:00:00:00:11 dev vm1 master; \
             bridge fdb add 02:00:00:00:00:11 dev vm1 master local",
            "bridge fdb del 02:00:00:00:00:11 dev vm1 master; \
             bridge fdb add 02:00:00:00:00:11 dev vm1 master static",
        ),
        usual(
            "to a station that has moved to the sender's port",
            Reason::SamePort,
        )
        .during(
            "bridge fdb replace 02:00:00:00:00:11 dev vm0 master static",
            "bridge fdb replace 02:00:00:00:00:11 dev vm1 master static",
        ),
        usual("to a port that is disabled", Reason::EgressState).during(
            "bridge link set dev vm1 state 0",
            "bridge link set dev vm1 state 3",
        ),
        usual("to a port that learns", Reason::EgressState).during(
            "bridge link set dev vm1 state 2",
            "bridge link set dev vm1 state 3",
        ),
        usual("to a port that is down", Reason::EgressState)
            .during("ip link set vm1 down", "ip link set vm1 up"),
        usual("to a port that maps VLANs to tunnels", Reason::PortFlags).during(
            "bridge link set dev vm1 vlan_tunnel on",
            "bridge link set dev vm1 vlan_tunnel off",
        ),
        usual("between isolated ports", Reason::Isolated).during(
            "bridge link set dev vm0 isolated on; bridge link set dev vm1 isolated on",
            "bridge link set dev vm0 isolated off; bridge link set dev vm1 isolated off",
        ),
        usual("longer than the target's MTU", Reason::EgressMtu)
            .during("ip link set vm1 mtu 100", "ip link set vm1 mtu 1500"),
        usual("where a rule of the target looks", Reason::EgressHook).during(
            "nft add table netdev t; \
             nft add chain netdev t c {type filter hook egress device vm1 priority 0;}",
            "nft delete table netdev t",
        ),
    ]
}

/// What tcx carries all the same.
fn of_xdp_alone() -> Vec<Case> {
    let up = |description: &str, reason| Case::new(description, Goes::To(1), usual()).left_by_xdp(reason);
    let mut cases = vec![
        up("to a target that shapes", Reason::Queueing).during(
            "tc qdisc add dev vm1 root tbf rate 1gbit burst 10kb latency 1ms",
            "tc qdisc del dev vm1 root",
        ),
        Case::new(
            "to a target with another queue than the default",
            Goes::To(1),
            usual(),
        )
        .during("tc qdisc add dev vm1 root noqueue", "tc qdisc del dev vm1 root"),
    ];
    cases.extend(unclear().into_iter().take(1));
    cases
}

fn both_hooks(mut check: impl FnMut(&mut Rig, Hook)) {
    for (hook, frames) in [(Hook::Xdp, Frames::Native), (Hook::Tcx, Frames::Generic)] {
        check(&mut Rig::new(frames), hook);
    }
}

fn solicitations() {
    let (on, off) = (
        "bridge link set dev vm2 neigh_suppress on",
        "bridge link set dev vm2 neigh_suppress off",
    );
    both_hooks(|rig, hook| {
        let otherwise = match hook {
            // It knows no checksum of it.
            Hook::Xdp => Goes::Left(Reason::Checksum),
            Hook::Tcx => Goes::To(1),
        };
        let case = left("ICMPv6", Reason::NeighSuppress, icmpv6());
        let other = Case::new("IPv4 beside it", Goes::To(1), usual());
        check_on(
            rig,
            hook,
            &[case.during(on, off).otherwise(otherwise), other.during(on, off)],
        );
    });
}

fn not_seen_for_a_second() {
    both_hooks(|rig, hook| {
        rig.refresh();
        thread::sleep(Duration::from_millis(1100));
        assert_eq!(
            verdict(rig, hook, &usual().bytes),
            Err(Reason::SourceRefresh),
            "{hook:?}"
        );
        check_on(rig, hook, &[Case::new("seen again", Goes::To(1), usual())]);
    });
}

/// What a program makes of a frame of the first tap: it sends it to the device of this index, or says why not.
fn verdict(rig: &mut Rig, hook: Hook, frame: &[u8]) -> Result<u32, Reason> {
    rig.programs.clear();
    verdict_after_others(rig, hook, frame)
}

/// What a program makes of a frame while it may remember why it has left others, see [`verdict`].
pub fn verdict_after_others(rig: &mut Rig, hook: Hook, frame: &[u8]) -> Result<u32, Reason> {
    rig.programs.clear_counts();
    let from = rig.ifindex(INGRESS);
    match hook {
        Hook::Xdp => rig.programs.xdp(frame, from),
        Hook::Tcx => rig.programs.tcx(frame, from, 0),
    };
    if let [taken] = rig.programs.taken()[..] {
        return Ok(taken.path.to);
    }
    let left = rig.programs.counters()[&from].left[hook as usize];
    let reasons: Vec<_> = Reason::ALL
        .into_iter()
        .filter(|&reason| left[reason as usize] != 0)
        .collect();
    let [reason] = reasons[..] else {
        panic!("{hook:?} counts {reasons:?}");
    };
    Err(reason)
}

/// A fresh station's frame, see [`verdict`].
fn fresh_verdict(rig: &mut Rig, hook: Hook, frame: &[u8]) -> Result<u32, Reason> {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        rig.refresh();
        match verdict(rig, hook, frame) {
            Err(Reason::SourceRefresh) => assert!(
                Instant::now() < deadline,
                "the bridge has not seen the source for a second, for a minute"
            ),
            verdict => return verdict,
        }
    }
}

/// Between the tap's loss of its carrier and the bridge's notice of it there is up to a second (`linkwatch_event`).
fn nobody_reads() {
    both_hooks(|rig, hook| {
        let idle = rig.taps.remove(1).close().expect("close a tap");
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            match fresh_verdict(rig, hook, &usual().bytes) {
                Err(Reason::EgressNoCarrier) => {}
                Err(Reason::EgressState) => break,
                other => panic!("{other:?}"),
            }
            assert!(Instant::now() < deadline, "the bridge does not notice it");
            thread::sleep(Duration::from_millis(10));
        }
        drop(idle);
    });
}

fn tap_is_gone() {
    both_hooks(|rig, hook| {
        drop(rig.taps.remove(1));
        let gone = fresh_verdict(rig, hook, &usual().bytes);
        assert_eq!(gone, Err(Reason::DestinationUnknown), "{hook:?}");
    });
}

fn bypassed_rules() {
    const NONE: u32 = 0;
    both_hooks(|rig, hook| {
        shell("nft add table bridge t; nft add chain bridge t c {type filter hook forward priority 0;}");
        let [from, to] = [0, 1].map(|tap| rig.ifindex(tap));
        for (of_source, of_target, expected) in [
            (flag::BYPASS_NETFILTER, flag::BYPASS_NETFILTER, Ok(to)),
            (flag::BYPASS_NETFILTER, NONE, Err(Reason::BridgeFilter)),
            (NONE, flag::BYPASS_NETFILTER, Err(Reason::BridgeFilter)),
        ] {
            rig.programs.set_port(from, of_source);
            rig.programs.set_port(to, of_target);
            assert_eq!(fresh_verdict(rig, hook, &usual().bytes), expected, "{hook:?}");
        }
    });
}

/// The kernel may have no classifiers, but it has programs.
fn another_program() {
    both_hooks(|rig, hook| {
        let to = rig.ifindex(1);
        let at_the_target = match hook {
            Hook::Xdp => Err(Reason::EgressFilter),
            Hook::Tcx => Ok(to),
        };
        for (device, side, expected) in [
            ("vm0", TcAttachType::Ingress, Err(Reason::IngressFilter)),
            ("vm0", TcAttachType::Egress, Ok(to)),
            ("vm1", TcAttachType::Ingress, Ok(to)),
            ("vm1", TcAttachType::Egress, at_the_target),
        ] {
            rig.programs.attach_other(device, side);
            let with_it = fresh_verdict(rig, hook, &usual().bytes);
            assert_eq!(with_it, expected, "{hook:?}, {device}, {side:?}");
            rig.programs.detach_other(device);
            assert_eq!(fresh_verdict(rig, hook, &usual().bytes), Ok(to), "{hook:?}");
        }
    });
}

fn without_tcx() {
    both_hooks(|rig, hook| {
        rig.programs.detach();
        rig.refresh();
        assert_eq!(
            verdict(rig, hook, &usual().bytes),
            Err(Reason::IngressFilter),
            "{hook:?}"
        );
    });
}

/// The programs meet such frames while a port is attached or detached.
fn stranger() {
    let mut rig = Rig::new(Frames::Native);
    let tap = Tap::open("vm9").expect("open a tap");
    rig.refresh();
    for frame in [
        usual(),
        frames::to(UNKNOWN),
        frames::from(UNKNOWN),
        frames::to(Mac([0xff; 6])),
    ] {
        let xdp = rig.programs.xdp(&frame.bytes, tap.ifindex());
        let tcx = rig.programs.tcx(&frame.bytes, tap.ifindex(), 0);
        assert_eq!((xdp.code, tcx.code), (XDP_PASS, TCX_NEXT));
        assert_eq!((&xdp.bytes, &tcx.bytes), (&frame.bytes, &frame.bytes));
    }
    assert_eq!(rig.programs.taken(), []);
    let counted = rig.programs.counters();
    assert!(!counted.contains_key(&tap.ifindex()), "{counted:?}");
    assert!(
        counted
            .values()
            .all(|counters| *counters == PortCounters::default()),
        "{counted:?}"
    );
}

fn other_targets() {
    both_hooks(|rig, hook| {
        shell("ip link add v0 up type veth peer name v1; ip link set v1 up; ip link set v0 master br0");
        let queue = Tap::builder("vm9").multi_queue().open().expect("open a tap");
        queue.up().expect("set it up");
        let another = queue.another_queue().expect("another queue");
        shell("ip link set vm9 master br0");
        for (device, reason) in [("v0", Reason::Target), ("vm9", Reason::TargetQueues)] {
            shell(&format!(
                "bridge fdb replace {UNKNOWN} dev {device} master static"
            ));
            let to = fresh_verdict(rig, hook, &frames::to(UNKNOWN).bytes);
            match hook {
                Hook::Xdp => assert_eq!(to, Err(reason), "{device}"),
                Hook::Tcx => assert!(to.is_ok(), "{device}: {to:?}"),
            }
        }
        // Of one queue it is a tap as any other.
        drop(another);
        let to = fresh_verdict(rig, hook, &frames::to(UNKNOWN).bytes);
        assert_eq!(to, Ok(queue.ifindex()), "{hook:?}");
    });
}

fn packet_sockets() {
    both_hooks(|rig, hook| {
        let [from, to, third] = [0, 1, 2].map(|tap| rig.ifindex(tap));
        for (at, heard) in [(from, true), (to, true), (0, true), (third, false)] {
            let socket = listen(at);
            let expected = match hook {
                Hook::Xdp if heard => Err(Reason::PacketSocket),
                _ => Ok(to),
            };
            assert_eq!(
                fresh_verdict(rig, hook, &usual().bytes),
                expected,
                "{hook:?}, at {at}"
            );
            drop(socket);
            assert_eq!(fresh_verdict(rig, hook, &usual().bytes), Ok(to), "{hook:?}");
        }
    });
}

fn steering() {
    let mut rig = Rig::new(Frames::Native);
    let to = rig.ifindex(1);
    let sysfs = Sysfs::open().expect("mount sysfs");
    let cpus = sysfs.path("class/net/vm0/queues/rx-0/rps_cpus");
    for (mask, expected) in [("0", Ok(to)), ("1", Err(Reason::Steering)), ("0", Ok(to))] {
        fs::write(&cpus, mask).expect("write rps_cpus");
        assert_eq!(fresh_verdict(&mut rig, Hook::Xdp, &usual().bytes), expected);
    }
}

/// Reasons that no table of cases has.
const ELSEWHERE: &[Reason] = &[
    // Tests of their own, here and of generic frames.
    Reason::EgressNoCarrier,
    Reason::IngressFilter,
    Reason::EgressFilter,
    Reason::NeighSuppress,
    Reason::Generic,
    Reason::Target,
    Reason::PacketSocket,
    Reason::TargetQueues,
    Reason::Steering,
    // A test run is no kernel thread.
    Reason::VhostNet,
    // Where br_netfilter is.
    Reason::Header,
    // Of bridges that filter VLANs.
    Reason::VlanFiltering,
    Reason::VlanDevice,
    Reason::VlanIngress,
    Reason::VlanEgress,
    Reason::VlanTag,
];

fn every_reason() {
    let cases = [of_both(), of_xdp_alone()].concat();
    for reason in Reason::ALL {
        let covered = cases.iter().any(|case| case.is_left_for(reason));
        assert_ne!(covered, ELSEWHERE.contains(&reason), "{}", reason.name());
    }
}
