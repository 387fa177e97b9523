//! TCP between guests, each with a stack of its own, over a bridge whose ports are attached and over one alone.

use lab::{Offloads, Tap};

use crate::support::{
    guest::{BYTES, Family, Guest, Losses, ping_pong, pumped, transfer_both_ways},
    linux_bridge,
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

/// Taps for these guests, not attached.
fn detached(offloads: [Offloads; 2]) -> Switch {
    let mut switch = Switch::empty();
    for (name, offloads) in ["vm1", "vm2"].into_iter().zip(offloads) {
        switch.add(Tap::builder(name).offloads(offloads));
    }
    switch
}

/// The same over a bridge alone.
fn over_a_bridge_alone(offloads: [Offloads; 2], family: Family) -> [Losses; 2] {
    let switch = detached(offloads);
    linux_bridge::make(2, false);
    transfer(&switch, offloads, family)
}

/// Transfers over a bridge whose ports are attached and over one alone; answers with the first.
#[track_caller]
fn compared(offloads: [Offloads; 2], family: Family, hook: &str) -> Switch {
    let switch = detached(offloads);
    switch.attach_all(hook);
    let ours = transfer(&switch, offloads, family);
    let theirs = over_a_bridge_alone(offloads, family);
    let retransmitted = |losses: &[Losses; 2]| losses.iter().map(|losses| losses.retransmitted).sum::<u64>();
    assert!(
        retransmitted(&ours) <= retransmitted(&theirs) + UNLUCKY,
        "attached {ours:?}, the bridge alone {theirs:?}: {:#?}",
        switch.stats()
    );
    assert!(
        ours.iter().all(|losses| losses.bad_checksums == 0),
        "{ours:?}: {:#?}",
        switch.stats()
    );
    switch
}

/// Nearly all bytes of both directions went by this hook.
#[track_caller]
fn assert_bulk(switch: &Switch, via: &str) {
    let stats = switch.stats();
    for (from, to) in [("vm1", "vm2"), ("vm2", "vm1")] {
        let bytes = stats.path(from, to, via).bytes;
        let other = stats
            .path(from, to, if via == "xdp" { "tcx" } else { "xdp" })
            .bytes;
        assert!(
            bytes > BYTES as u64 * 3 / 4 && other < bytes / 3,
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
            // The bridge sees each station once a second, and neighbour discovery and the like.
            let left = stats.port(from).left.frames;
            assert!(
                xdp + left >= ROUNDS && tcx + left < ROUNDS / 20,
                "{family:?}, {from} to {to}: {stats:#?}"
            );
            assert_eq!(
                stats.port(from).checksums_completed,
                xdp,
                "{family:?}: {stats:#?}"
            );
        }
        for guest in &guests {
            assert_eq!(guest.losses().bad_checksums, 0, "{family:?}");
        }
    }
}
