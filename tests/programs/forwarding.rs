//! Known unicast: tcx forwards it as it is, native XDP with its checksum complete.

use tapbridge::common::{
    Hook,
    counters::Traffic,
    fastpath::{Path, PortCounters},
    forwarding::Reason,
};

use crate::{
    Test,
    cases::{Case, Goes, TC_ACT_REDIRECT, XDP_REDIRECT, check_tcx, check_xdp},
    frames::{self, Frame, complete, of_length, partial, usual},
    packet::{Ip, Shape, Tag, Transport},
    programs::{Frames, Taken},
    rig::{ON_2, Rig, STATIONS, TAPS, UNKNOWN, shell},
};

pub const TESTS: &[Test] = &[
    ("xdp_redirects_known_unicast", || check_xdp(&known_unicast())),
    ("tcx_redirects_known_unicast", || check_tcx(&known_unicast())),
    (
        "a_station_is_found_with_the_first_frame_after_the_bridge_has_learned_it",
        learned,
    ),
    ("every_path_has_its_own_counters", || every_path(Places::Free)),
    ("paths_and_ports_whose_places_are_taken_count_the_same", || {
        every_path(Places::Taken);
    }),
    ("xdp_completes_partial_checksums_as_etherparse_does", || {
        check_xdp(&checksums());
    }),
    ("tcx_leaves_partial_checksums_to_the_kernel", || {
        check_tcx(&checksums());
    }),
    ("xdp_leaves_what_does_not_show_its_checksum_to_tcx", || {
        check_xdp(&unclear());
    }),
    ("tcx_redirects_what_does_not_show_its_checksum", || {
        check_tcx(&unclear());
    }),
];

/// The places in which paths and ports can be counted without a search.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Places {
    Free,
    /// Others have them.
    Taken,
}

/// Frames between every two stations, one at a time and then looked at together; and of every station one to nobody.
fn every_path(places: Places) {
    for (hook, frames) in [(Hook::Xdp, Frames::Native), (Hook::Tcx, Frames::Generic)] {
        let mut rig = Rig::new(frames);
        // Sources need not be fresh for as long as this takes.
        for tap in &rig.taps {
            shell(&format!("bridge link set dev {} learning off", tap.name()));
        }
        rig.refresh();
        let stations = (0..).zip(STATIONS);
        if places == Places::Taken {
            rig.programs.take_places();
        }
        let run = |rig: &mut Rig, bytes: &[u8], from| match hook {
            Hook::Xdp => rig.programs.xdp(bytes, from),
            Hook::Tcx => rig.programs.tcx(bytes, from, 0),
        };
        let mut expected = Vec::new();
        for (number, (from, source)) in stations.clone().enumerate() {
            for (to, destination) in stations.clone().filter(|&(to, _)| to != from) {
                let bytes = frames::between(source, destination).bytes;
                let path = Path {
                    from: rig.ifindex(from),
                    to: rig.ifindex(to),
                };
                // A number of its own for each path.
                let times = 1 + (3 * number + to) as u64;
                for _ in 0..times {
                    run(&mut rig, &bytes, path.from);
                }
                let traffic = Traffic {
                    frames: times,
                    bytes: times * bytes.len() as u64,
                };
                expected.push(Taken {
                    path,
                    via: hook,
                    traffic,
                });
            }
        }
        assert_eq!(rig.programs.taken(), expected);
        // A number of its own for each port.
        for (tap, source) in stations.clone() {
            let (frame, from) = (frames::between(source, UNKNOWN).bytes, rig.ifindex(tap));
            for _ in 0..=tap {
                run(&mut rig, &frame, from);
            }
        }
        let counters = rig.programs.counters();
        for tap in 0..TAPS {
            let left = counters[&rig.ifindex(tap)].left[hook as usize];
            assert_eq!(left[Reason::DestinationUnknown as usize], tap as u64 + 1);
            assert_eq!(left.iter().sum::<u64>(), tap as u64 + 1);
        }
        // Whoever comes next begins at zero.
        rig.programs.clear();
        assert_eq!(rig.programs.taken(), []);
        assert!(
            rig.programs
                .counters()
                .values()
                .all(|counters| *counters == PortCounters::default())
        );
    }
}

/// Learned, moved and forgotten by the bridge; the programs see each at once.
fn learned() {
    for (frames, redirected) in [(Frames::Native, XDP_REDIRECT), (Frames::Generic, TC_ACT_REDIRECT)] {
        let mut rig = Rig::new(frames);
        let frame = frames::to(UNKNOWN).bytes;
        let run = |rig: &mut Rig| {
            let from = rig.ifindex(0);
            let ran = match frames {
                Frames::Native => rig.programs.xdp(&frame, from),
                Frames::Generic => rig.programs.tcx(&frame, from, 0),
            };
            let to: Vec<u32> = rig.programs.taken().iter().map(|taken| taken.path.to).collect();
            (ran.code, to)
        };
        for _ in 0..10 {
            for tap in [1, 2] {
                rig.greet(tap, UNKNOWN);
                rig.refresh();
                assert_eq!(run(&mut rig), (redirected, vec![rig.ifindex(tap)]), "{frames:?}");
            }
            shell("bridge fdb flush dev br0 dynamic");
            rig.refresh();
            assert!(run(&mut rig).1.is_empty(), "{frames:?}");
        }
    }
}

const FIX: &str = "bridge fdb add 02:00:00:00:00:99 dev vm2 master static";
const FIX_HERE: &str = "bridge fdb add 02:00:00:00:00:99 dev vm0 master static";
const RELEASE: &str = "bridge fdb del 02:00:00:00:00:99 dev vm2 master";
const RELEASE_HERE: &str = "bridge fdb del 02:00:00:00:00:99 dev vm0 master";

fn known_unicast() -> Vec<Case> {
    let forwarded = |description, frame| Case::new(description, Goes::To(1), frame);
    vec![
        forwarded("to a known address", usual()),
        Case::new("to another one", Goes::To(2), frames::to(ON_2)),
        Case::new(
            "to one that has just been made known",
            Goes::To(2),
            frames::to(UNKNOWN),
        )
        .during(FIX, RELEASE)
        .otherwise(Goes::Left(Reason::DestinationUnknown)),
        Case::new("to one that has moved", Goes::To(2), usual()).during(
            "bridge fdb replace 02:00:00:00:00:11 dev vm2 master static",
            "bridge fdb replace 02:00:00:00:00:11 dev vm1 master static",
        ),
        forwarded("from one that has just been made known", frames::from(UNKNOWN))
            .during(FIX_HERE, RELEASE_HERE)
            .otherwise(Goes::Left(Reason::SourceUnknown)),
        forwarded("from a port that does not learn", frames::from(UNKNOWN))
            .during(
                "bridge link set dev vm0 learning off",
                "bridge link set dev vm0 learning on",
            )
            .otherwise(Goes::Left(Reason::SourceUnknown)),
        forwarded("from a port that need not see its stations again", usual()).during(
            "bridge link set dev vm0 learning off; ip link set br0 type bridge ageing_time 0",
            "ip link set br0 type bridge ageing_time 30000; bridge link set dev vm0 learning on",
        ),
        forwarded("from a station that is known at a locked port", usual()).during(
            "bridge link set dev vm0 locked on",
            "bridge link set dev vm0 locked off",
        ),
        forwarded("to a port that does not flood", usual()).during(
            "bridge link set dev vm1 flood off",
            "bridge link set dev vm1 flood on",
        ),
        forwarded("from an isolated port to another one", usual()).during(
            "bridge link set dev vm0 isolated on",
            "bridge link set dev vm0 isolated off",
        ),
        forwarded("from a port to an isolated one", usual()).during(
            "bridge link set dev vm1 isolated on",
            "bridge link set dev vm1 isolated off",
        ),
        forwarded("an unknown protocol", shortest()).left_by_xdp(Reason::Checksum),
        forwarded("with a customer tag", of_length(Tag::Customer, 100)),
        forwarded("with a service tag", of_length(Tag::Service, 100)),
    ]
}

/// A header of no protocol that XDP knows and one byte: a test run takes no less.
fn shortest() -> Frame {
    [&usual().bytes[..12], &[0x88, 0xb5, 0]].concat().into()
}

/// What a guest may leave in the field that asks for a checksum and prepares nothing.
const UNPREPARED: [u16; 2] = [0, 0xbeef];

/// Every header, with payloads that take every branch of the sum.
fn checksums() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in Shape::all() {
        for payload in [0, 1, 2, 3, 5, 8, 27, 28, 64, 99, 511, 512, 1023, 1400, 1432] {
            let description = format!("partial, {shape:?}, payload of {payload}");
            cases.push(Case::new(description, Goes::To(1), partial(shape, payload)));
        }
        for payload in [0, 1, 20, 28, 99, 1023, 1400, 1432] {
            let description = format!("complete, {shape:?}, payload of {payload}");
            cases.push(Case::new(description, Goes::To(1), complete(shape, payload)));
        }
        if shape.transport == Transport::Tcp {
            for field in UNPREPARED {
                let description = format!("{field:04x} for a checksum, {shape:?}");
                cases.push(Case::new(
                    description,
                    Goes::To(1),
                    frames::with_field(shape, 20, field),
                ));
            }
        } else if shape.ip == Ip::V4 {
            for payload in [0, 27] {
                let description = format!("no checksum, {payload} bytes, {shape:?}");
                cases.push(Case::new(
                    description,
                    Goes::To(1),
                    frames::with_field(shape, payload, 0),
                ));
            }
        }
    }
    for ip in [Ip::V4, Ip::V6] {
        let description = format!("a tunnel, both checksums complete, {ip:?}");
        cases.push(Case::new(description, Goes::To(1), frames::complete_tunnel(ip)));
    }
    cases
}

/// Frames that go up to tcx whatever their destination.
pub fn unclear() -> Vec<Case> {
    let up =
        |description: &str, frame| Case::new(description, Goes::To(1), frame).left_by_xdp(Reason::Checksum);
    let mut cases = vec![up("a fragment", frames::fragment())];
    for ip in [Ip::V4, Ip::V6] {
        cases.push(up("a tunnel, its inner checksum partial", frames::tunnel(ip)));
        cases.push(up(
            "the same, its outer checksum like a partial one by chance",
            frames::tunnel_by_chance(ip),
        ));
    }
    for shape in Shape::all() {
        let changed = |change: fn(Shape, &mut Vec<u8>)| {
            let mut bytes = partial(shape, 20).bytes;
            change(shape, &mut bytes);
            bytes.into()
        };
        cases.push(up("cut", changed(|_, bytes| bytes.truncate(bytes.len() - 1))));
        cases.push(up(
            "a header with options, and SCTP",
            changed(|shape, bytes| {
                bytes[shape.network()] = 0x46;
                bytes[shape.network() + 6] = 132;
            }),
        ));
        if shape.tag != Tag::None {
            cases.push(up(
                "two tags",
                changed(|shape, bytes| {
                    let at = shape.network() - 2;
                    bytes.splice(at..at, [0x81, 0x00, 0, 9]);
                }),
            ));
        }
        if shape.transport == Transport::Udp {
            // One over IPv4 that is short and has none is carried, see above.
            let least = if shape.ip == Ip::V4 { 28 } else { 20 };
            for (payload, field) in [(20, 0xbeef), (least, 0), (100, 0), (100, 0xbeef)] {
                cases.push(up(
                    "a datagram whose checksum is wrong or missing",
                    frames::with_field(shape, payload, field),
                ));
            }
        }
    }
    cases
}
