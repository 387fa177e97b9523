//! Hosts as docs/hosts has them. The configurations and scripts are those of the pages themselves; bridges and taps are
//! named, made and opened as each host does it. The VMMs are QEMU itself, and processes that open a tap as the others do.

mod incus;
mod kubevirt;
mod libvirt;
mod page;
mod proxmox;
mod qemu;
mod small_vmms;
mod vmm;

use std::time::Duration;

use lab::VnetHeader;

use self::vmm::VmmTap;
use crate::{
    Test,
    support::{
        frames::{Flow, hello, partial, payload, segmented},
        linux_bridge::stop_learning,
        program::{LIMIT, happens},
        statistics::Bridge,
        switch::Switch,
    },
};

pub use self::qemu::lacking as lacking_qemu;

pub const TESTS: &[&[Test]] = &[
    incus::TESTS,
    kubevirt::TESTS,
    libvirt::TESTS,
    proxmox::TESTS,
    small_vmms::TESTS,
];

/// They add rules with `nft`.
pub const FILTER_TESTS: &[&[Test]] = &[incus::FILTER_TESTS, proxmox::FILTER_TESTS];

/// Their bridges filter VLANs.
pub const VLAN_TESTS: &[Test] = proxmox::VLAN_TESTS;

/// They run QEMU.
pub const QEMU_TESTS: &[Test] = qemu::TESTS;

/// After this time a station that nobody has heard makes itself known again.
const AGAIN: Duration = Duration::from_secs(2);

/// By which hook frames go that XDP could carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Short {
    Native,
    Tcx,
}

/// Stations 1 and 2, which two taps of a bridge have, make themselves known. From then on the first one's frames go past
/// the bridge whatever the time.
#[track_caller]
fn introduce(one: &VmmTap, other: &VmmTap) {
    greet(one, other);
    stop_learning(one.name());
}

/// Stations 1 and 2 make themselves known to whatever is between two taps.
#[track_caller]
fn greet(one: &VmmTap, other: &VmmTap) {
    for (station, from, to) in [(1, one, other), (2, other, one)] {
        let hello = (VnetHeader::none(), hello(station));
        // What a tap sends in the moment after it was opened, its bridge may not forward yet.
        let heard = happens(LIMIT, || {
            from.send(hello.0, &hello.1);
            to.receive_within(AGAIN).is_some_and(|received| received == hello)
        });
        assert!(
            heard,
            "{}: hears nothing of {} in {LIMIT:?}",
            to.name(),
            from.name()
        );
        while to.receive_within(Duration::ZERO).is_some() {}
    }
}

/// Two frames from station 1 to 2 arrive as the sender's network card would have sent them: a short one, whose checksum
/// was left to that card, and one of many segments.
#[track_caller]
fn assert_exchange(one: &VmmTap, other: &VmmTap, short: Short) {
    let complete = Flow::tcp(1, 2).frame(&payload(1000));
    let (header, frame) = partial(&complete);
    one.send(header, &frame);
    let expected = match short {
        // Which has no header to say what is left to be done.
        Short::Native => (VnetHeader::none(), complete),
        Short::Tcx => (header, frame),
    };
    assert_eq!(other.receive(), expected, "{} to {}", one.name(), other.name());
    let (header, frame) = segmented(&Flow::tcp(1, 2).frame(&payload(60_000)), 1400);
    one.send(header, &frame);
    let (received, data) = other.receive();
    // How much of a frame is linear is the kernel's to say.
    let received = VnetHeader {
        hdr_len: header.hdr_len,
        ..received
    };
    assert_eq!(received, header, "{} to {}", one.name(), other.name());
    assert!(data == frame, "{} bytes from {}", data.len(), one.name());
}

/// The statistics of the bridge that a device is a port of.
#[track_caller]
fn bridge_of(switch: &Switch, port: &str) -> Bridge {
    let mut bridges = switch.all_stats().into_iter();
    let found = bridges.find(|bridge| bridge.ports.iter().any(|other| other.ifname == port));
    found.unwrap_or_else(|| panic!("{port} is not attached"))
}

/// Likewise, and the frames go past the bridge.
#[track_caller]
fn assert_carries(switch: &Switch, one: &VmmTap, other: &VmmTap, short: Short) {
    let count = || bridge_of(switch, one.name()).frames(one.name(), other.name());
    let before = count();
    assert_exchange(one, other, short);
    let after = count();
    let expected = match short {
        Short::Native => (1, 1),
        Short::Tcx => (0, 2),
    };
    assert_eq!(
        (after.0 - before.0, after.1 - before.1),
        expected,
        "{:#?}",
        switch.all_stats()
    );
}
