//! Ports of a bridge that filters VLANs: which frames belong to one, who is a member, and what becomes of tags.

use tapbridge::common::{Hook, forwarding::Reason};

use crate::{
    Test,
    cases::{Case, Goes, check_on},
    frames::{Frame, USUAL, complete, usual},
    packet::{Shape, Tag},
    programs::Frames,
    rig::{ON_0, ON_1, ON_2, Rig, shell},
};

pub const TESTS: &[Test] = &[
    ("frames_of_an_access_port_stay_in_its_vlan", || {
        check(ACCESS, &of_an_access_port());
    }),
    ("frames_of_a_trunk_stay_in_the_vlans_of_their_tags", || {
        check(TRUNK, &of_a_trunk());
    }),
];

const ACCESS: &str = "bridge vlan add dev vm0 vid 10 pvid untagged";
const TRUNK: &str = "bridge vlan add dev vm0 vid 10; bridge vlan add dev vm0 vid 20";
/// An access port, and a trunk.
const OTHERS: &str = "bridge vlan add dev vm1 vid 10 pvid untagged; bridge vlan add dev vm2 vid 10; \
                      bridge vlan add dev vm2 vid 20";

/// Runs the cases through both programs at a bridge whose first tap is such a port.
fn check(port: &str, cases: &[Case]) {
    for (hook, frames) in [(Hook::Xdp, Frames::Native), (Hook::Tcx, Frames::Generic)] {
        let mut rig = Rig::new(frames);
        shell("ip link set br0 type bridge vlan_default_pvid 0");
        shell("ip link set br0 type bridge vlan_filtering 1");
        shell(port);
        shell(OTHERS);
        for (tap, station) in [("vm1", ON_1), ("vm2", ON_2)] {
            shell(&format!(
                "bridge fdb add {station} dev {tap} vlan 10 master static"
            ));
        }
        // The first port's stations may be in any VLAN.
        shell("bridge link set dev vm0 learning off");
        check_on(&mut rig, hook, cases);
    }
}

/// A frame with a tag of this control information; to the second tap's station.
fn tagged(tag: Tag, control: u16) -> Frame {
    let mut bytes = complete(Shape { tag, ..USUAL }, 100).bytes;
    bytes[14..16].copy_from_slice(&control.to_be_bytes());
    bytes.into()
}

/// The kernel's helpers move the tag of a test run's frame out of its data; one that is given lies in the metadata.
fn without_tag(frame: Frame) -> Frame {
    let mut leaves_tcx = frame.leaves_tcx;
    leaves_tcx.drain(12..16);
    Frame { leaves_tcx, ..frame }
}

/// A tag of VLAN 10, and one that has a priority alone.
const CONTROL: u16 = 0x600a;
const PRIORITY: u16 = 0x6000;

fn left(description: &str, reason: Reason, frame: Frame) -> Case {
    Case::new(description, Goes::Left(reason), frame)
}

/// A frame whose tag changes on the way.
fn changed(description: &str, to: usize, frame: Frame) -> Case {
    Case::new(description, Goes::To(to), frame).left_by_xdp(Reason::VlanTag)
}

fn two_tags() -> Frame {
    let mut bytes = tagged(Tag::Customer, CONTROL).bytes;
    bytes.splice(12..12, [0x81, 0x00, 0x00, 0x0a]);
    bytes.into()
}

fn of_an_access_port() -> Vec<Case> {
    let usual = |description, reason| left(description, reason, usual());
    vec![
        Case::new("between access ports", Goes::To(1), crate::frames::usual()),
        changed("to a trunk", 2, crate::frames::to(ON_2)),
        changed(
            "with the port's own tag",
            1,
            without_tag(tagged(Tag::Customer, CONTROL)),
        ),
        changed("with a priority", 1, without_tag(tagged(Tag::Customer, PRIORITY))),
        changed(
            "with a priority, to a trunk",
            2,
            without_tag(tagged(Tag::Customer, PRIORITY).between(ON_0, ON_2)),
        ),
        left(
            "with another VLAN's tag",
            Reason::VlanIngress,
            tagged(Tag::Customer, 20),
        ),
        left(
            "with a tag of another protocol",
            Reason::VlanIngress,
            tagged(Tag::Service, CONTROL),
        ),
        left(
            "with a second tag behind that which goes",
            Reason::VlanTag,
            two_tags(),
        ),
        changed(
            "with a tag of what has become the protocol",
            1,
            without_tag(tagged(Tag::Service, CONTROL)),
        )
        .during(
            "ip link set br0 type bridge vlan_protocol 802.1ad",
            "ip link set br0 type bridge vlan_protocol 802.1q",
        )
        .otherwise(Goes::Left(Reason::VlanIngress)),
        usual("from a port that is no member", Reason::VlanIngress)
            .during("bridge vlan del dev vm0 vid 10", ACCESS),
        usual(
            "from a port that takes no frames without a tag",
            Reason::VlanIngress,
        )
        .during("bridge vlan add dev vm0 vid 10 untagged", ACCESS),
        usual("from a port that blocks its VLAN", Reason::VlanIngress).during(
            "bridge vlan set dev vm0 vid 10 state blocking",
            "bridge vlan set dev vm0 vid 10 state forwarding",
        ),
        usual("to a port that is no member", Reason::VlanEgress).during(
            "bridge vlan del dev vm1 vid 10",
            "bridge vlan add dev vm1 vid 10 pvid untagged",
        ),
        usual("to a port that blocks the VLAN", Reason::VlanEgress).during(
            "bridge vlan set dev vm1 vid 10 state blocking",
            "bridge vlan set dev vm1 vid 10 state forwarding",
        ),
        usual("by a bridge that counts by VLAN", Reason::VlanFiltering).during(
            "ip link set br0 type bridge vlan_stats_enabled 1",
            "ip link set br0 type bridge vlan_stats_enabled 0",
        ),
        changed("to a port that has become a trunk", 1, crate::frames::usual()).during(
            "bridge vlan add dev vm1 vid 10",
            "bridge vlan add dev vm1 vid 10 pvid untagged",
        ),
    ]
}

fn of_a_trunk() -> Vec<Case> {
    let to_trunk = |control| tagged(Tag::Customer, control).between(ON_0, ON_2);
    vec![
        Case::new("between trunks", Goes::To(2), to_trunk(CONTROL)),
        changed(
            "to an access port",
            1,
            without_tag(tagged(Tag::Customer, CONTROL)),
        ),
        left("without a tag", Reason::VlanIngress, usual()),
        left("with a priority alone", Reason::VlanIngress, to_trunk(PRIORITY)),
        left("of a VLAN that is nobody's", Reason::VlanIngress, to_trunk(30)),
        left(
            "to a station that is not in the VLAN",
            Reason::DestinationUnknown,
            to_trunk(20),
        ),
        Case::new("to a station that is now in the VLAN", Goes::To(2), to_trunk(20))
            .during(
                "bridge fdb add 02:00:00:00:00:12 dev vm2 vlan 20 master static",
                "bridge fdb del 02:00:00:00:00:12 dev vm2 vlan 20 master",
            )
            .otherwise(Goes::Left(Reason::DestinationUnknown)),
        left(
            "past a VLAN device on the port",
            Reason::VlanDevice,
            to_trunk(CONTROL),
        )
        .during(
            "ip link add link vm0 name vlan30 up type vlan id 30",
            "ip link del vlan30",
        )
        .otherwise(Goes::To(2)),
        Case::new(
            "without its other tag being looked at",
            Goes::To(2),
            two_tags().between(ON_0, ON_2),
        )
        .left_by_xdp(Reason::Checksum),
    ]
}
