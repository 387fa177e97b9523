//! libvirt: its hook and scripts, run as libvirtd runs them, beside taps as it makes them. libvirtd itself was tried by hand,
//! as the page says: it takes a minute to be installed, and two to start guests.

use std::{fs, io::Write as _};

use serde_json::json;
use tempfile::NamedTempFile;

use super::{
    Short, assert_carries, introduce,
    page::{self, script},
    vmm::{QEMU, VmmTap},
};
use crate::{
    configuration::{attached, follow},
    support::{
        program::{ip, link, run},
        switch::{BRIDGE, Switch},
    },
};

crate::tests![
    taps_of_virbr0_are_attached_as_domains_start,
    libvirts_hook_attaches_the_taps_of_a_domain_that_are_ports,
    a_domain_starts_whatever_comes_of_libvirts_hook,
    scripts_of_an_ethernet_interface_attach_its_tap_and_clear_it_away,
    a_tap_that_stays_is_attached_once_for_all_domains,
];

/// What libvirtd writes to the hook, shortened.
const DOMAIN: &str = "\
<domain type='kvm' id='1'>
  <name>g1</name>
  <devices>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/>
      <source network='default' bridge='virbr0'/>
      <target dev='vnet0'/>
      <model type='virtio'/>
    </interface>
    <interface type='ethernet'>
      <target dev='vm9'/>
    </interface>
    <interface type='bridge'>
      <source bridge='virbr0'/>
      <target dev='vnet1'/>
    </interface>
  </devices>
</domain>
";

/// A tap of libvirtd's, and what it does with it before QEMU gets the descriptor.
fn port(name: &str) -> VmmTap {
    let tap = VmmTap::open(name, &QEMU);
    ip(&format!("link set {name} master virbr0"));
    ip(&format!("link set {name} up"));
    tap
}

fn virbr0() {
    ip("link add virbr0 up type bridge mcast_snooping 0");
}

fn taps_of_virbr0_are_attached_as_domains_start() {
    let switch = Switch::empty();
    virbr0();
    let running = follow(&switch, &page::LIBVIRT.configuration("name = \"virbr0\""));
    let [one, other] = ["vnet0", "vnet1"].map(|name| {
        let tap = port(name);
        assert_eq!(
            attached(&running),
            [json!(name), json!("virbr0"), json!(["xdp", "tcx"])]
        );
        tap
    });
    introduce(&one, &other);
    assert_carries(&switch, &one, &other, Short::Native);
    // libvirtd takes ports out of their bridge and puts them back when it starts.
    ip("link set vnet1 nomaster");
    ip("link set vnet1 master virbr0");
    introduce(&one, &other);
    assert_carries(&switch, &one, &other, Short::Native);
    // A NIC that is plugged in, and out again.
    let third = port("vnet2");
    assert_eq!(attached(&running)[0], "vnet2");
    third.end();
    assert_carries(&switch, &one, &other, Short::Native);
}

/// The hook of the package, as libvirtd calls it.
struct Hook {
    text: String,
    domain: NamedTempFile,
    log: NamedTempFile,
}

impl Hook {
    fn new() -> Self {
        let mut domain = NamedTempFile::new().expect("a file");
        domain.write_all(DOMAIN.as_bytes()).expect("write");
        Self {
            text: include_str!("../../../packaging/libvirt-hook").into(),
            domain,
            log: NamedTempFile::new().expect("a file"),
        }
    }

    /// It succeeds.
    #[track_caller]
    fn call(&self, switch: &Switch, operation: &str) {
        let text = self.text.replace(
            "/var/log/tapbridge-hook.log",
            &self.log.path().display().to_string(),
        );
        // The domain comes on standard input.
        let text = format!("exec <{}\n{text}", self.domain.path().display());
        run(script(&text, switch, &["g1", operation, "begin", "-"])).success();
    }

    fn said(&self) -> String {
        fs::read_to_string(self.log.path()).expect("read the log")
    }
}

/// The ports that are attached and there.
fn ports(switch: &Switch) -> Vec<String> {
    let ports = switch.all_stats().into_iter().flat_map(|bridge| bridge.ports);
    let names = ports.map(|port| port.ifname);
    names.filter(|name| link(name).is_some()).collect()
}

fn libvirts_hook_attaches_the_taps_of_a_domain_that_are_ports() {
    let switch = Switch::empty();
    virbr0();
    let hook = Hook::new();
    hook.call(&switch, "prepare");
    let [one, other, _ethernet] = [port("vnet0"), port("vnet1"), VmmTap::open("vm9", &QEMU)];
    hook.call(&switch, "start");
    assert!(!switch.state().exists(), "nothing is attached yet");
    hook.call(&switch, "started");
    assert_eq!(ports(&switch), ["vnet0", "vnet1"]);
    introduce(&one, &other);
    assert_carries(&switch, &one, &other, Short::Native);
    // libvirtd starts.
    ip("link set vnet1 nomaster");
    ip("link set vnet1 master virbr0");
    hook.call(&switch, "reconnect");
    assert_eq!(ports(&switch), ["vnet0", "vnet1"]);
    assert!(!hook.said().contains("tapbridge: "), "{}", hook.said());
}

fn a_domain_starts_whatever_comes_of_libvirts_hook() {
    let switch = Switch::empty();
    let hook = Hook::new();
    // There are no such taps.
    hook.call(&switch, "started");
    assert!(hook.said().contains("tapbridge: vnet0: "), "{}", hook.said());
}

fn scripts_of_an_ethernet_interface_attach_its_tap_and_clear_it_away() {
    let switch = Switch::empty();
    let up = |tap: &str| {
        ip(&format!("link set {tap} up"));
        page::LIBVIRT
            .run("exec tapbridge attach", &switch, &[tap])
            .success();
    };
    // The page has it in words.
    let text = page::LIBVIRT.block("exec tapbridge attach");
    let down = |tap: &str| {
        let text = text.replace("tapbridge attach", "tapbridge detach");
        run(script(&text, &switch, &[tap])).success();
    };
    let [one, other] = ["vm1", "vm2"].map(|name| VmmTap::open(name, &QEMU));
    up("vm1");
    up("vm2");
    introduce(&one, &other);
    assert_carries(&switch, &one, &other, Short::Native);
    other.end();
    assert_eq!(switch.shown("vm2")["state"], "gone");
    down("vm2");
    let ports = switch.stats().ports;
    assert_eq!(ports.len(), 1, "{ports:#?}");
    one.end();
    down("vm1");
    assert!(link(BRIDGE).is_none(), "it goes with its last port");
}

fn a_tap_that_stays_is_attached_once_for_all_domains() {
    let switch = Switch::empty();
    page::LIBVIRT.run("ip tuntap add vm1", &switch, &[]).success();
    let other = VmmTap::open("vm2", &QEMU);
    ip("link set vm2 up");
    switch.ok("attach vm2");
    for domain in 1..=2 {
        let one = VmmTap::open("vm1", &QEMU);
        introduce(&one, &other);
        assert_carries(&switch, &one, &other, Short::Native);
        assert_eq!(switch.stats().port("vm1").gso_frames, domain, "counters stay");
    }
    ip("link del vm1");
}
