//! Known unicast: tcx forwards it as it is, native XDP with its checksum complete.

use tapbridge::common::{
    Hook,
    counters::{PassReason, Traffic},
    decision::Lesson,
    port::flag,
};

use crate::{
    Test,
    bench::{Bench, ON_0, ON_1, ON_2, UNKNOWN},
    cases::{Case, Goes, check_tcx, check_xdp},
    frames::{self, Frame, complete, of_length, partial, usual},
    packet::{Ip, Shape, Tag, Transport},
    switch::{AGEING, Frames, Path, SECOND},
};

pub const TESTS: &[Test] = &[
    ("xdp_redirects_known_unicast", || check_xdp(&known_unicast())),
    ("tcx_redirects_known_unicast", || check_tcx(&known_unicast())),
    ("every_path_has_its_own_counters", every_path),
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

/// Frames between every two stations, one at a time and then looked at together.
fn every_path() {
    let stations = [ON_0, ON_1, ON_2];
    for (hook, frames) in [(Hook::Xdp, Frames::Native), (Hook::Tcx, Frames::Generic)] {
        let bench = Bench::new(frames);
        let mut expected = Vec::new();
        for (from, source) in (0..).zip(stations) {
            for (to, destination) in (0..).zip(stations).filter(|&(to, _)| to != from) {
                let octets = frames::between(source, destination).octets;
                let ifindex = bench.tap(from).ifindex();
                // A number of its own for each path.
                let times = 1 + u64::from(3 * from + to);
                for _ in 0..times {
                    match hook {
                        Hook::Xdp => bench.switch.xdp(&octets, ifindex),
                        Hook::Tcx => bench.switch.tcx(&octets, ifindex, 0),
                    };
                }
                let traffic = Traffic {
                    frames: times,
                    bytes: times * octets.len() as u64,
                };
                expected.push(Path {
                    from,
                    to,
                    via: hook,
                    traffic,
                });
            }
        }
        assert_eq!(bench.switch.paths(), expected);
    }
}

fn known_unicast() -> Vec<Case> {
    let forwarded = |description, frame| Case::new(description, Goes::To(1), frame);
    vec![
        forwarded("to a learned address", usual()),
        Case::new("to another learned address", Goes::To(2), frames::to(ON_2)),
        Case::new("to a static address", Goes::To(2), frames::to(UNKNOWN))
            .given(|bench| bench.fix(UNKNOWN, 2)),
        Case::new(
            "to a static address that was learned elsewhere long ago",
            Goes::To(2),
            usual(),
        )
        .given(|bench| {
            bench.learn(ON_1, 1, AGEING + SECOND);
            bench.fix(ON_1, 2);
        }),
        forwarded("to an address that will soon expire", usual())
            .given(|bench| bench.learn(ON_1, 1, AGEING / 2)),
        forwarded("from a static address", frames::from(UNKNOWN)).given(|bench| bench.fix(UNKNOWN, 0)),
        forwarded("ARP", frames::arp()),
        forwarded("an unknown protocol", shortest()).passed_up(),
        forwarded(
            "to a port that takes no native frames",
            partial(frames::USUAL, 100),
        )
        .given(|bench| {
            bench.change_port(1, |port| port.flags &= !flag::NATIVE_TARGET);
        })
        .passed_up_for(PassReason::Target),
        forwarded("known under no tag", partial(frames::USUAL, 9)).given(|bench| bench.separate(Tag::None)),
        forwarded("known under a customer tag", of_length(Tag::Customer, 100))
            .given(|bench| bench.separate(Tag::Customer)),
        forwarded("known under a service tag", of_length(Tag::Service, 100))
            .given(|bench| bench.separate(Tag::Service)),
        forwarded("from a new address", frames::from(UNKNOWN)).teaches(Lesson::Learn),
    ]
}

/// A header of no protocol that XDP knows and one octet: a test run takes no less.
fn shortest() -> Frame {
    [&usual().octets[..12], &[0x88, 0xb5, 0]].concat().into()
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
        }
    }
    for ip in [Ip::V4, Ip::V6] {
        let description = format!("a tunnel, both checksums complete, {ip:?}");
        cases.push(Case::new(description, Goes::To(1), frames::complete_tunnel(ip)));
    }
    cases
}

/// Frames that go up to tcx whatever their destination.
fn unclear() -> Vec<Case> {
    let up = |description: &str, frame| Case::new(description, Goes::To(1), frame).passed_up();
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
            let mut octets = partial(shape, 20).octets;
            change(shape, &mut octets);
            octets.into()
        };
        cases.push(up("cut", changed(|_, octets| octets.truncate(octets.len() - 1))));
        cases.push(up(
            "a header with options, and SCTP",
            changed(|shape, octets| {
                octets[shape.network()] = 0x46;
                octets[shape.network() + 6] = 132;
            }),
        ));
        if shape.tag != Tag::None {
            cases.push(up(
                "two tags",
                changed(|shape, octets| {
                    let at = shape.network() - 2;
                    octets.splice(at..at, [0x81, 0x00, 0, 9]);
                }),
            ));
        }
        if shape.transport == Transport::Udp {
            for (payload, field) in [20, 100]
                .into_iter()
                .flat_map(|payload| UNPREPARED.map(|field| (payload, field)))
            {
                cases.push(up(
                    "a datagram whose checksum is wrong or missing",
                    frames::with_field(shape, payload, field),
                ));
            }
        }
    }
    cases
}
