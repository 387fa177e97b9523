//! Linux bridges whose ports are taps.

use std::{fs, thread, time::Duration};

use lab::Tap;

use super::{
    frames::hello,
    program::{bridge, ip},
    switch::Switch,
    wire::{assert_receives, send},
};

/// Whether `br_netfilter` calls the rules of IP and ARP for bridged frames, in the calling thread's network namespace.
pub fn call_netfilter(call: bool) {
    for family in ["iptables", "ip6tables", "arptables"] {
        // Missing where the kernel has no br_netfilter.
        let _ = fs::write(
            format!("/proc/sys/net/bridge/bridge-nf-call-{family}"),
            if call { "1" } else { "0" },
        );
    }
}

/// Makes taps vm1, vm2 and so on ports of br0.
pub fn make(taps: usize, netfilter: bool) {
    call_netfilter(netfilter);
    // With snooping it reports that it wants to hear other snoopers (`br_multicast_join_snoopers`).
    ip("link add br0 up type bridge mcast_snooping 0");
    for number in 1..=taps {
        ip(&format!("link set vm{number} master br0"));
    }
}

/// Taps that are ports of br0.
pub fn linux_bridge(taps: usize, netfilter: bool) -> Switch {
    let switch = Switch::detached(taps);
    make(taps, netfilter);
    switch
}

/// Frames from a port go past the bridge whatever their sources, and however long ago it has seen them.
pub fn stop_learning(port: &str) {
    bridge(&format!("link set dev {port} learning off"));
}

/// Waits until no hook remembers any more why it has left frames, which it does until the kernel's clock ticks
/// (`NegativeCache`).
pub fn next_tick() {
    thread::sleep(Duration::from_millis(20));
}

/// Makes the taps known to the bridge: every tap's station says hello to all others.
#[track_caller]
pub fn introduce(taps: &[&Tap]) {
    for (number, tap) in (1..).zip(taps) {
        let hello = hello(number);
        send(tap, &hello);
        for other in taps.iter().filter(|other| other.ifindex() != tap.ifindex()) {
            assert_receives(other, &hello);
        }
    }
}
