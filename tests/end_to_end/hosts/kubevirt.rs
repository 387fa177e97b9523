//! `KubeVirt`: pods, each with a bridge `k6t-eth0` of its own between the guest's tap and the pod's network card, as
//! binding `bridge` and `domainAttachmentType: managedTap` make it (`bridgeBindingSpec` and `managedTapSpec` in
//! `pkg/network/setup/netpod/netpod.go` of 1.9.0-rc.2), and a bridge on the node.

use std::{path::PathBuf, process, thread};

use lab::{Entered, Namespace, netns};
use nix::unistd::gettid;
use serde_json::json;

use super::{
    Short, assert_exchange, greet,
    page::{self, script},
    vmm::{QEMU, VmmTap},
};
use crate::{
    configuration::{attached, follow},
    support::{
        linux_bridge::stop_learning,
        program::{bridge, ip, run},
        switch::{Switch, command_in},
    },
};

crate::tests![
    frames_between_kubevirts_guests_pass_two_of_three_bridges_by,
    a_tap_and_the_card_of_a_pod_are_joined_without_a_bridge_of_kubevirts,
];

/// A pod, whose network card is one end of a veth pair, the other end of which is a port of the node's bridge.
struct Pod {
    namespace: Namespace,
    card: String,
    state: PathBuf,
}

impl Pod {
    fn new(number: u32, switch: &Switch) -> Self {
        let pod = Self {
            state: switch.state().to_owned(),
            namespace: Namespace::anonymous().expect("a namespace"),
            card: format!("veth{number}"),
        };
        let here = format!("/proc/{}/task/{}/ns/net", process::id(), gettid());
        pod.namespace.run(|| {
            netns::disable_ipv6().expect("a quiet namespace");
            ip(&format!(
                "link add eth0 type veth peer name {} netns {here}",
                pod.card
            ));
        });
        ip(&format!("link set {} master br1 up", pod.card));
        pod
    }

    /// What `KubeVirt` makes before the domain starts.
    fn bind(&self) {
        self.namespace.run(|| {
            ip("link add k6t-eth0 type bridge mcast_snooping 0");
            ip("link set eth0 name eth0-nic");
            ip("link set eth0-nic master k6t-eth0 up");
            bridge("link set dev eth0-nic learning off");
            ip("tuntap add name tap0 mode tap");
            ip("link set tap0 mtu 1500");
            ip("link set tap0 master k6t-eth0 up");
            ip("link set k6t-eth0 up");
        });
    }

    /// QEMU opens the tap of the domain's `<target managed='no'/>`.
    fn start(&self) -> VmmTap {
        self.namespace.run(|| VmmTap::open("tap0", &QEMU))
    }

    /// Runs a block of the page with the pod's process for its argument, of which a namespace's file stands for.
    fn run(&self, words: &str, switch: &Switch) {
        let block = page::KUBEVIRT.block(words);
        let namespace = self.namespace.handle_path();
        let block = block.replace("/proc/$pid/ns/net", &namespace.display().to_string());
        assert!(block.contains("/proc/"), "{block}");
        run(script(&block, switch, &[])).success();
    }

    fn enter(&self) -> Entered {
        self.namespace.enter().expect("enter the pod")
    }

    /// Frames that went past the pod's bridge: by XDP, by tcx.
    fn forwarded(&self, switch: &Switch, from: &str, to: &str) -> (u64, u64) {
        let _inside = self.enter();
        switch.stats().frames(from, to)
    }
}

impl Drop for Pod {
    /// Detaches what is in the pod, whose namespace the switch does not look into.
    fn drop(&mut self) {
        let _inside = self.enter();
        let detached = command_in(&self.state, "detach --all").output();
        let detached = detached.is_ok_and(|output| output.status.success());
        assert!(
            detached || thread::panicking(),
            "what is in a pod is not detached"
        );
    }
}

fn frames_between_kubevirts_guests_pass_two_of_three_bridges_by() {
    let switch = Switch::empty();
    ip("link add br1 up type bridge mcast_snooping 0");
    let running = follow(&switch, &page::KUBEVIRT.configuration("name = \"br1\""));
    let pods = [1, 2].map(|number| Pod::new(number, &switch));
    for pod in &pods {
        assert_eq!(
            attached(&running),
            [json!(pod.card), json!("br1"), json!(["tcx"])]
        );
        pod.bind();
        pod.run("--master k6t-eth0", &switch);
    }
    let [one, other] = [&pods[0], &pods[1]].map(Pod::start);
    greet(&one, &other);
    stop_learning("veth1");
    assert_exchange(&one, &other, Short::Tcx);
    // The pod's bridge learns nothing from the outside: what goes there it floods.
    assert_eq!(pods[0].forwarded(&switch, "tap0", "eth0-nic"), (0, 0));
    assert_eq!(switch.stats().frames("veth1", "veth2"), (0, 2));
    assert_eq!(pods[1].forwarded(&switch, "eth0-nic", "tap0"), (0, 2));
}

fn a_tap_and_the_card_of_a_pod_are_joined_without_a_bridge_of_kubevirts() {
    let switch = Switch::empty();
    ip("link add br1 up type bridge mcast_snooping 0");
    let pods = [1, 2].map(|number| Pod::new(number, &switch));
    let [one, other] = [&pods[0], &pods[1]].map(|pod| {
        pod.namespace.run(|| {
            ip("tuntap add name tap0 mode tap");
            ip("link set tap0 up");
            ip("link set eth0 up");
        });
        pod.run("attach tap0 eth0", &switch);
        pod.start()
    });
    greet(&one, &other);
    pods[0].namespace.run(|| stop_learning("tap0"));
    assert_exchange(&one, &other, Short::Tcx);
    assert_eq!(pods[0].forwarded(&switch, "tap0", "eth0"), (0, 2));
}
