//! Frames that go nowhere: tcx drops and counts them; XDP leaves that to tcx, but for those that tcx never meets.

use tapbridge::common::{counters::DropReason, decision::Lesson, mac::Mac};

use crate::{
    Test,
    bench::{INGRESS, ON_0, ON_1, UNKNOWN},
    cases::{Case, Goes, check_tcx, check_xdp},
    frames::{self, Frame, usual},
    packet::Tag,
};

pub const TESTS: &[Test] = &[
    ("xdp_leaves_frames_that_go_nowhere_to_tcx", || check_xdp(&cases())),
    ("tcx_drops_a_frame_that_goes_nowhere_and_counts_why", || {
        check_tcx(&cases());
    }),
    (
        "xdp_drops_what_the_kernel_would_drop_before_tcx_and_counts_why",
        || {
            check_xdp(&never_met_by_tcx());
        },
    ),
    ("every_reason_to_drop_a_frame_is_in_the_tables", every_reason),
];

const fn link_local(last: u8) -> Mac {
    Mac([0x01, 0x80, 0xc2, 0, 0, last])
}

fn dropped(description: impl Into<String>, reason: DropReason, frame: Frame) -> Case {
    Case::new(description, Goes::Nowhere(reason), frame)
}

fn cases() -> Vec<Case> {
    let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
    vec![
        dropped(
            "cut inside its tag",
            DropReason::TooShort,
            frames::cut(Tag::Customer, 17),
        )
        .dropped_by_xdp(),
        dropped("from a group", DropReason::InvalidSource, frames::from(group)),
        dropped(
            "from nobody",
            DropReason::InvalidSource,
            frames::from(Mac([0; 6])),
        ),
        dropped(
            "to a spanning tree",
            DropReason::LinkLocalGroup,
            frames::to(link_local(0)),
        ),
        dropped(
            "to the last link-local group, from a new station",
            DropReason::LinkLocalGroup,
            frames::between(UNKNOWN, link_local(0x0f)),
        ),
        dropped("to a station on its own port", DropReason::SamePort, usual())
            .given(|bench| bench.learn(ON_1, 0, 0)),
        dropped("to itself", DropReason::SamePort, frames::to(ON_0)),
        dropped("to a port that is down", DropReason::EgressDown, usual())
            .given(|bench| bench.tap(1).down().expect("set a tap down")),
        dropped(
            "to a port that is down, from a new station",
            DropReason::EgressDown,
            frames::from(UNKNOWN),
        )
        .given(|bench| bench.tap(1).down().expect("set a tap down"))
        .teaches(Lesson::Learn),
        dropped("to a tap that nobody reads", DropReason::EgressNoCarrier, usual())
            .given(|bench| bench.exit_vmm(1)),
        dropped("larger than the target's MTU", DropReason::EgressMtu, usual())
            .given(|bench| bench.tap(1).set_mtu(100).expect("set an MTU")),
        dropped(
            "to all, with no other port up",
            DropReason::NoOtherPort,
            frames::to(Mac([0xff; 6])),
        )
        .given(|bench| {
            bench.tap(1).down().expect("set a tap down");
            bench.exit_vmm(2);
        }),
        dropped(
            "to all, with no other port",
            DropReason::NoOtherPort,
            frames::to(UNKNOWN),
        )
        .given(|bench| {
            bench.remove_tap(1);
            bench.change_port(2, |port| port.flags = 0);
        }),
    ]
}

/// The tun driver drops frames of a tap that is down behind XDP, `skb_vlan_untag` those that end within two octets
/// behind their tag.
fn never_met_by_tcx() -> Vec<Case> {
    let mut cases = vec![
        dropped(
            "from a tap that is down",
            DropReason::IngressDown,
            frames::from(UNKNOWN),
        )
        .given(|bench| bench.tap(INGRESS).down().expect("set a tap down"))
        .dropped_by_xdp(),
    ];
    for tag in [Tag::Customer, Tag::Service] {
        for length in 14..20 {
            let description = format!("{tag:?} tag and {length} octets");
            let frame = frames::cut(tag, length);
            cases.push(dropped(description, DropReason::TooShort, frame).dropped_by_xdp());
        }
        let shortest = Case::new("just long enough", Goes::To(1), frames::cut(tag, 20));
        cases.push(shortest.passed_up());
    }
    cases
}

fn every_reason() {
    let cases = [cases(), never_met_by_tcx()].concat();
    for reason in DropReason::ALL {
        let covered = cases.iter().any(|case| case.goes() == Goes::Nowhere(reason));
        assert!(covered, "{}", reason.name());
    }
}
