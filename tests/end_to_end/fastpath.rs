//! Ports of a Linux bridge that is accelerated where it stands.

use std::{cell::RefCell, collections::BTreeMap, fs};

use bridge_common::{Hook, forwarding::Reason, port::HookMode};
use lab::Tap;
use tapbridge::{
    fastpath::FastPath,
    netlink::{Link, Netlink},
    state::State,
};

use crate::support::{
    frames::{Flow, hello, partial, payload, segmented},
    program::ip,
    switch::Switch,
    wire::{assert_receives, assert_receives_gso, assert_receives_with, assert_silent, send, send_with},
};

crate::tests![
    what_the_bridge_would_send_to_one_port_goes_past_it,
    what_br_netfilter_would_let_pass_goes_past_it,
    what_rules_look_at_stays_with_the_bridge,
];

/// Two taps of a Linux bridge.
struct Bridged {
    switch: Switch,
    fast: RefCell<FastPath>,
    links: BTreeMap<String, Link>,
}

impl Bridged {
    fn new(taps: usize, netfilter: bool) -> Self {
        let switch = Switch::detached(taps);
        for call in ["iptables", "ip6tables", "arptables"] {
            // Missing where the kernel has no br_netfilter.
            let _ = fs::write(
                format!("/proc/sys/net/bridge/bridge-nf-call-{call}"),
                if netfilter { "1" } else { "0" },
            );
        }
        // With snooping it reports that it wants to hear other snoopers (`br_multicast_join_snoopers`).
        ip("link add br0 up type bridge mcast_snooping 0");
        for number in 1..=taps {
            ip(&format!("link set vm{number} master br0"));
        }
        let locked = State::new(switch.state()).lock().expect("the state");
        let fast = FastPath::open_or_create(&locked).expect("the fast path");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let links = runtime
            .block_on(async { Netlink::connect()?.links().await })
            .expect("the devices");
        Self {
            switch,
            fast: RefCell::new(fast),
            links: links.into_iter().map(|link| (link.name.clone(), link)).collect(),
        }
    }

    /// The taps, each of which the bridge knows.
    fn introduced<const N: usize>(&self) -> [&Tap; N] {
        let taps = self.switch.taps();
        for (number, tap) in (1..).zip(taps) {
            let hello = hello(number);
            send(tap, &hello);
            for other in taps.iter().filter(|other| other.ifindex() != tap.ifindex()) {
                assert_receives(other, &hello);
            }
        }
        taps
    }

    fn attach(&self, tap: &str, mode: HookMode) {
        self.fast
            .borrow_mut()
            .attach(&self.links[tap], mode)
            .expect("attach");
    }

    fn forwarded(&self, from: &Tap, to: &Tap) -> [u64; 2] {
        let paths = self.fast.borrow().paths().expect("paths");
        let path = paths
            .iter()
            .find(|(path, _)| path.from == from.ifindex() && path.to == to.ifindex());
        path.map_or([0; 2], |(_, counters)| {
            Hook::ALL.map(|hook| counters.via[hook as usize].frames)
        })
    }

    fn left(&self, port: &Tap, hook: Hook, reason: Reason) -> u64 {
        let counters = self.fast.borrow().counters(port.ifindex()).expect("counters");
        counters.left[hook as usize][reason as usize]
    }
}

fn nft(commands: &str) {
    let nft = std::process::Command::new("nft").arg(commands).status();
    assert!(nft.is_ok_and(|status| status.success()), "nft {commands}");
}

impl Drop for Bridged {
    fn drop(&mut self) {
        let mut fast = self.fast.borrow_mut();
        for (ifindex, _) in fast.ports().into_iter().flatten() {
            let _ = fast.detach(ifindex);
        }
        let _ = fast.remove();
    }
}

fn what_the_bridge_would_send_to_one_port_goes_past_it() {
    let bridged = Bridged::new(3, false);
    for (tap, mode) in [
        ("vm1", HookMode::Xdp),
        ("vm2", HookMode::Tcx),
        ("vm3", HookMode::Xdp),
    ] {
        bridged.attach(tap, mode);
    }
    let [vm1, vm2, vm3] = bridged.introduced();

    let (header, frame) = partial(&Flow::tcp(1, 2).frame(b"small"));
    send_with(vm1, &header, &frame);
    assert_receives(vm2, &Flow::tcp(1, 2).frame(b"small"));
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 0]);
    // The other way there is no XDP, so the metadata stays.
    let (header, frame) = partial(&Flow::tcp(2, 1).frame(b"small"));
    send_with(vm2, &header, &frame);
    assert_receives_with(vm1, &header, &frame);
    assert_eq!(bridged.forwarded(vm2, vm1), [0, 1]);
    let (header, frame) = segmented(&Flow::tcp(1, 2).frame(&payload(60_000)), 1400);
    send_with(vm1, &header, &frame);
    assert_receives_gso(vm2, &header, &frame);
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 1]);
    assert_eq!(bridged.left(vm1, Hook::Xdp, Reason::Generic), 1);
    // Nobody knows the ninth one: the bridge floods.
    let unknown = Flow::tcp(1, 9).frame(b"who is that?");
    send(vm1, &unknown);
    assert_receives(vm2, &unknown);
    assert_receives(vm3, &unknown);
    assert_eq!(bridged.left(vm1, Hook::Tcx, Reason::DestinationUnknown), 1);
}

/// Where `br_netfilter` calls the rules of IP and there are none, it looks at headers.
fn what_br_netfilter_would_let_pass_goes_past_it() {
    let bridged = Bridged::new(2, true);
    bridged.attach("vm1", HookMode::Xdp);
    let [vm1, vm2] = bridged.introduced();
    let frame = Flow::udp(1, 2).frame(&[7; 26]);
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 0]);
    // It cuts off what lies behind the packet.
    let mut padded = frame.clone();
    padded.extend([0; 6]);
    send(vm1, &padded);
    assert_receives(vm2, &frame);
    assert_eq!(bridged.left(vm1, Hook::Tcx, Reason::BridgeFilter), 1);
    // A header that is wrong it drops.
    let mut wrong = frame.clone();
    wrong[14 + 10] ^= 1;
    send(vm1, &wrong);
    assert_silent(&[vm2]);
    assert_eq!(bridged.left(vm1, Hook::Tcx, Reason::BridgeFilter), 2);
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 0]);
}

fn what_rules_look_at_stays_with_the_bridge() {
    let bridged = Bridged::new(3, true);
    for tap in ["vm1", "vm2", "vm3"] {
        bridged.attach(tap, HookMode::Xdp);
    }
    let [vm1, vm2, vm3] = bridged.introduced();
    let table = "add table ip t; add chain ip t c { type filter hook forward priority 0 ; }; add rule ip t c udp dport 4000 drop";
    nft(table);
    let frames = [2, 3].map(|to| Flow::udp(1, to).frame(&[7; 26]));
    for (to, frame) in [(vm2, &frames[0]), (vm3, &frames[1])] {
        send(vm1, frame);
        assert_receives(to, frame);
        assert_eq!(bridged.forwarded(vm1, to), [0, 0]);
    }
    // Rules pass by only what goes between two ports of which that has been said.
    for tap in [vm1, vm2] {
        bridged
            .fast
            .borrow_mut()
            .bypass_netfilter(tap.ifindex(), true)
            .expect("a port");
    }
    for (to, frame, past) in [(vm2, &frames[0], [1, 0]), (vm3, &frames[1], [0, 0])] {
        send(vm1, frame);
        assert_receives(to, frame);
        assert_eq!(bridged.forwarded(vm1, to), past);
    }
    for tap in [vm1, vm2] {
        bridged
            .fast
            .borrow_mut()
            .bypass_netfilter(tap.ifindex(), false)
            .expect("a port");
    }
    send(vm1, &frames[0]);
    assert_receives(vm2, &frames[0]);
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 0]);
    // Without a rule, and without the calls, the next frame goes past the bridge.
    nft("delete table ip t");
    send(vm1, &frames[0]);
    assert_receives(vm2, &frames[0]);
    assert_eq!(bridged.forwarded(vm1, vm2), [2, 0]);
}
