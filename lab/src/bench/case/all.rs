//! The cases there are.

use super::{Case, EVERYBODY, Family, Topology, Work};
use crate::bench::frame::{BULK_QUIC, LEAST_QUIC, SHORTEST, Shape};

/// Each with the name and the title of its plot.
pub const FAMILIES: &[(&str, &str, Family)] = &[
    ("frames", "One frame, written and read", Family::Frames),
    ("bulk", "Long frames, written and read", Family::Bulk),
    (
        "mix",
        "A long frame, written and read, and its acknowledgements back",
        Family::Mix,
    ),
    (
        "broadcast",
        "A broadcast, written once and read by all",
        Family::Broadcast,
    ),
    (
        "left",
        "A frame that a fast path can only leave to the bridge",
        Family::Left,
    ),
    (
        "uplink",
        "A frame from an uplink to a tap, and one back",
        Family::Uplink,
    ),
    ("scale", "One frame among many ports and addresses", Family::Scale),
    (
        "round-trip",
        "A frame there and back, both sides asleep",
        Family::Latency,
    ),
    (
        "threads",
        "Frames of VMMs that run side by side, by those delivered",
        Family::Threads,
    ),
    (
        "statistics",
        "One frame, while statistics are read and not",
        Family::Statistics,
    ),
];

const SHORT: Work = Work::WriteRead(Shape::Complete(SHORTEST));

pub const CASES: &[Case] = &[
    case("64", "64 B", Family::Frames, Topology::Pair, SHORT),
    case(
        "256",
        "256 B",
        Family::Frames,
        Topology::Pair,
        Work::WriteRead(Shape::Complete(252)),
    ),
    case(
        "1514-complete",
        "1514 B, complete checksum",
        Family::Frames,
        Topology::Pair,
        Work::WriteRead(Shape::Complete(1514)),
    ),
    case(
        "1514-partial",
        "1514 B, partial checksum",
        Family::Frames,
        Topology::Pair,
        Work::WriteRead(Shape::Partial(1514)),
    ),
    case(
        "udp-1242",
        "1242 B UDP, complete checksum",
        Family::Frames,
        Topology::Pair,
        Work::WriteRead(Shape::Datagram(LEAST_QUIC)),
    ),
    case(
        "udp-1392",
        "1392 B UDP, complete checksum",
        Family::Frames,
        Topology::Pair,
        Work::WriteRead(Shape::Datagram(BULK_QUIC)),
    ),
    case(
        "vxlan-1514",
        "1514 B VXLAN, partial checksum inside",
        Family::Frames,
        Topology::Pair,
        Work::WriteRead(Shape::Tunnel),
    ),
    case(
        "9014-partial",
        "9014 B, partial checksum, MTU 9000",
        Family::Bulk,
        Topology::Jumbo,
        Work::WriteRead(Shape::Partial(9014)),
    ),
    case(
        "tso4",
        "64 KB TSO, IPv4",
        Family::Bulk,
        Topology::Pair,
        Work::WriteRead(Shape::Tso4),
    ),
    case(
        "tso6",
        "64 KB TSO, IPv6",
        Family::Bulk,
        Topology::Pair,
        Work::WriteRead(Shape::Tso6),
    ),
    case(
        "mix",
        "64 KB TSO and two 66 B ACKs back",
        Family::Mix,
        Topology::Pair,
        Work::Mix,
    ),
    case(
        "broadcast-2",
        "64 B broadcast to 2 ports",
        Family::Broadcast,
        Topology::Three,
        Work::Flood,
    ),
    case(
        "broadcast-8",
        "64 B broadcast to 8 ports",
        Family::Broadcast,
        Topology::Nine,
        Work::Flood,
    ),
    case(
        "broadcast-64",
        "64 B broadcast to 64 ports",
        Family::Broadcast,
        Topology::SixtyFive,
        Work::Flood,
    ),
    case(
        "unknown",
        "64 B to an unknown station",
        Family::Left,
        Topology::Pair,
        Work::Unknown,
    ),
    case(
        "host",
        "64 B to the host",
        Family::Left,
        Topology::Pair,
        Work::Host,
    ),
    case(
        "64-rules",
        "64 B, br_netfilter calls a rule",
        Family::Left,
        Topology::Ruled,
        SHORT,
    ),
    case(
        "64-calls",
        "64 B, br_netfilter calls no rule",
        Family::Frames,
        Topology::Called,
        SHORT,
    ),
    case(
        "uplink",
        "64 B from an uplink and back",
        Family::Uplink,
        Topology::Uplink,
        Work::ThereAndBack,
    ),
    case(
        "ports-256",
        "64 B, 256 ports",
        Family::Scale,
        Topology::Wide,
        SHORT,
    ),
    case(
        "addresses-65536",
        "64 B, 256 flows, 65,536 addresses known",
        Family::Scale,
        Topology::Crowded,
        Work::Spread(256),
    ),
    case(
        "addresses-in-turn",
        "64 B, 65,536 addresses in turn",
        Family::Scale,
        Topology::Crowded,
        Work::Spread(EVERYBODY),
    ),
    case(
        "destinations-10000",
        "64 B, 10,000 destinations in turn",
        Family::Scale,
        Topology::Crowded,
        Work::Destinations(10_000),
    ),
    case(
        "round-trip",
        "64 B there and back",
        Family::Latency,
        Topology::Pair,
        Work::RoundTrip,
    ),
    case(
        "one-way",
        "64 B, a writer and a reader",
        Family::Threads,
        Topology::Pair,
        Work::OneWay,
    ),
    case(
        "both-ways",
        "64 B, both write and read",
        Family::Threads,
        Topology::Pair,
        Work::BothWays,
    ),
    case(
        "four-senders",
        "64 B, four writers and a reader",
        Family::Threads,
        Topology::Nine,
        Work::FourSenders,
    ),
    case(
        "steady",
        "64 B, statistics not read",
        Family::Statistics,
        Topology::Pair,
        Work::Steady { read: false },
    ),
    case(
        "steady-read",
        "64 B, statistics read once a turn",
        Family::Statistics,
        Topology::Pair,
        Work::Steady { read: true },
    ),
];

const fn case(
    name: &'static str,
    text: &'static str,
    family: Family,
    topology: Topology,
    work: Work,
) -> Case {
    Case {
        name,
        text,
        family,
        topology,
        work,
    }
}
