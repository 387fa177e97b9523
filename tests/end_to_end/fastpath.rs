//! Ports of a Linux bridge that is accelerated where it stands.

use std::{collections::BTreeMap, fs};

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
    wire::{assert_receives, assert_receives_gso, assert_receives_with, send, send_with},
};

crate::tests![
    what_the_bridge_would_send_to_one_port_goes_past_it,
    nothing_goes_past_a_bridge_whose_frames_netfilter_sees,
];

/// Two taps of a Linux bridge.
struct Bridged {
    switch: Switch,
    fast: FastPath,
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
            fast,
            links: links.into_iter().map(|link| (link.name.clone(), link)).collect(),
        }
    }

    fn attach(&mut self, tap: &str, mode: HookMode) {
        self.fast.attach(&self.links[tap], mode).expect("attach");
    }

    fn forwarded(&self, from: &Tap, to: &Tap) -> [u64; 2] {
        let paths = self.fast.paths().expect("paths");
        let path = paths
            .iter()
            .find(|(path, _)| path.from == from.ifindex() && path.to == to.ifindex());
        path.map_or([0; 2], |(_, counters)| {
            Hook::ALL.map(|hook| counters.via[hook as usize].frames)
        })
    }

    fn left(&self, port: &Tap, hook: Hook, reason: Reason) -> u64 {
        let counters = self.fast.counters(port.ifindex()).expect("counters");
        counters.left[hook as usize][reason as usize]
    }
}

impl Drop for Bridged {
    fn drop(&mut self) {
        for (ifindex, _) in self.fast.ports().into_iter().flatten() {
            let _ = self.fast.detach(ifindex);
        }
        let _ = self.fast.remove();
    }
}

fn what_the_bridge_would_send_to_one_port_goes_past_it() {
    let mut bridged = Bridged::new(3, false);
    for (tap, mode) in [
        ("vm1", HookMode::Xdp),
        ("vm2", HookMode::Tcx),
        ("vm3", HookMode::Xdp),
    ] {
        bridged.attach(tap, mode);
    }
    let [vm1, vm2, vm3] = bridged.switch.taps();
    // The bridge learns both, and floods the first.
    send(vm1, &hello(1));
    assert_receives(vm2, &hello(1));
    assert_receives(vm3, &hello(1));
    send(vm2, &hello(2));
    assert_receives(vm1, &hello(2));
    assert_receives(vm3, &hello(2));

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
    // Nobody knows the third one: the bridge floods.
    let unknown = Flow::tcp(1, 3).frame(b"who is that?");
    send(vm1, &unknown);
    assert_receives(vm2, &unknown);
    assert_receives(vm3, &unknown);
    assert_eq!(bridged.left(vm1, Hook::Tcx, Reason::DestinationUnknown), 1);
}

fn nothing_goes_past_a_bridge_whose_frames_netfilter_sees() {
    let mut bridged = Bridged::new(2, true);
    assert!(
        fs::exists("/proc/sys/net/bridge").is_ok_and(|there| there),
        "this kernel has no br_netfilter"
    );
    bridged.attach("vm1", HookMode::Xdp);
    let [vm1, vm2] = bridged.switch.taps();
    send(vm1, &hello(1));
    assert_receives(vm2, &hello(1));
    send(vm2, &hello(2));
    assert_receives(vm1, &hello(2));
    let frame = Flow::tcp(1, 2).frame(b"filtered");
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_eq!(bridged.forwarded(vm1, vm2), [0, 0]);
    assert_eq!(bridged.left(vm1, Hook::Tcx, Reason::BridgeFilter), 1);
    // As soon as nothing is called, the next frame goes past it.
    for call in ["iptables", "ip6tables", "arptables"] {
        fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{call}"), "0").expect("a sysctl");
    }
    send(vm1, &frame);
    assert_receives(vm2, &frame);
    assert_eq!(bridged.forwarded(vm1, vm2), [1, 0]);
}
