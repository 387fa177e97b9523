//! TCP between guests, each with a stack of its own, over the switch and over the kernel's bridge.

use lab::{Offloads, Tap};

use crate::support::{
    guest::{Family, Guest, Losses, OCTETS, ping_pong, pumped, transfer_both_ways},
    program::ip,
    switch::Switch,
};

crate::tests![
    tcp_over_ipv4_with_offloads_crosses_by_tcx,
    tcp_over_ipv6_with_offloads_crosses_by_tcx,
    tcp_over_ipv4_without_offloads_crosses_by_xdp,
    tcp_over_ipv6_without_offloads_crosses_by_xdp,
    guests_with_and_without_offloads_understand_each_other,
    small_questions_and_answers_cross_by_xdp,
    tcp_crosses_the_tcx_hook_alone,
];

/// Retransmissions that say nothing: a guest's pump that gets no CPU for a while lets a ring fill up or a timer run
/// out, over any switch. A single kind of frame with a bad checksum costs thousands, or the connection.
const UNLUCKY: u64 = 100;

/// Two guests on the taps of a switch, which transfer both ways.
fn transfer(switch: &Switch, offloads: [Offloads; 2], family: Family) -> [Losses; 2] {
    let [vm1, vm2] = switch.taps();
    let guests = [Guest::new(1, offloads[0]), Guest::new(2, offloads[1])];
    pumped(&[(vm1, &guests[0]), (vm2, &guests[1])], || {
        transfer_both_ways(guests[0].connect(&guests[1], family));
    });
    guests.each_ref().map(Guest::losses)
}

/// The switch, not attached, with taps for these guests.
fn detached(offloads: [Offloads; 2]) -> Switch {
    let mut switch = Switch::empty();
    for (name, offloads) in ["vm1", "vm2"].into_iter().zip(offloads) {
        switch.add(Tap::builder(name).offloads(offloads));
    }
    switch
}

/// The same over a Linux bridge.
fn over_a_linux_bridge(offloads: [Offloads; 2], family: Family) -> [Losses; 2] {
    let switch = detached(offloads);
    ip("link add br0 up type bridge stp_state 0 mcast_snooping 0");
    for tap in ["vm1", "vm2"] {
        ip(&format!("link set dev {tap} master br0"));
    }
    transfer(&switch, offloads, family)
}

/// Transfers over the switch and over a Linux bridge; answers with the switch.
#[track_caller]
fn compared(offloads: [Offloads; 2], family: Family, hook: &str) -> Switch {
    let switch = detached(offloads);
    switch.attach_all(hook);
    let ours = transfer(&switch, offloads, family);
    let theirs = over_a_linux_bridge(offloads, family);
    let retransmitted = |losses: &[Losses; 2]| losses.iter().map(|losses| losses.retransmitted).sum::<u64>();
    assert!(
        retransmitted(&ours) <= retransmitted(&theirs) + UNLUCKY,
        "ours {ours:?}, a Linux bridge's {theirs:?}: {:#?}",
        switch.stats()
    );
    assert!(
        ours.iter().all(|losses| losses.bad_checksums == 0),
        "{ours:?}: {:#?}",
        switch.stats()
    );
    switch
}

/// Nearly all octets of both directions went by this hook.
#[track_caller]
fn assert_bulk(switch: &Switch, via: &str) {
    let stats = switch.stats();
    for (from, to) in [("vm1", "vm2"), ("vm2", "vm1")] {
        let bytes = stats.path(from, to, via).bytes;
        let other = stats
            .path(from, to, if via == "xdp" { "tcx" } else { "xdp" })
            .bytes;
        assert!(
            bytes > OCTETS as u64 * 3 / 4 && other < bytes / 3,
            "{from} to {to}: {stats:#?}"
        );
    }
}

fn tcp_over_ipv4_with_offloads_crosses_by_tcx() {
    assert_bulk(&compared([Offloads::All; 2], Family::V4, "xdp"), "tcx");
}

fn tcp_over_ipv6_with_offloads_crosses_by_tcx() {
    assert_bulk(&compared([Offloads::All; 2], Family::V6, "xdp"), "tcx");
}

fn tcp_over_ipv4_without_offloads_crosses_by_xdp() {
    assert_bulk(&compared([Offloads::None; 2], Family::V4, "xdp"), "xdp");
}

fn tcp_over_ipv6_without_offloads_crosses_by_xdp() {
    assert_bulk(&compared([Offloads::None; 2], Family::V6, "xdp"), "xdp");
}

fn guests_with_and_without_offloads_understand_each_other() {
    for family in [Family::V4, Family::V6] {
        compared([Offloads::All, Offloads::None], family, "xdp");
    }
}

fn tcp_crosses_the_tcx_hook_alone() {
    assert_bulk(&compared([Offloads::All; 2], Family::V4, "tcx"), "tcx");
}

fn small_questions_and_answers_cross_by_xdp() {
    const ROUNDS: u64 = 500;
    for family in [Family::V4, Family::V6] {
        let switch = Switch::of(2);
        let [vm1, vm2] = switch.taps();
        let guests = [1, 2].map(|station| Guest::new(station, Offloads::All));
        pumped(&[(vm1, &guests[0]), (vm2, &guests[1])], || {
            let connection = guests[0].connect(&guests[1], family);
            ping_pong(&connection, usize::try_from(ROUNDS).expect("a small number"));
        });
        let stats = switch.stats();
        for (from, to) in [("vm1", "vm2"), ("vm2", "vm1")] {
            let (xdp, tcx) = stats.frames(from, to);
            // Neighbour discovery and the like may go by tcx.
            assert!(
                xdp >= ROUNDS && tcx < ROUNDS / 20,
                "{family:?}, {from} to {to}: {stats:#?}"
            );
            assert!(
                stats.port(from).checksums_completed >= ROUNDS,
                "{family:?}: {stats:#?}"
            );
        }
        for guest in &guests {
            assert_eq!(guest.losses().bad_checksums, 0, "{family:?}");
        }
    }
}
