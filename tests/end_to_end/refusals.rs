//! Devices that can't be ports: what the command line says, and that nothing happens to them.

use std::{fs, process::Command};

use lab::Tap;
use tempfile::NamedTempFile;

use crate::support::{
    bpffs,
    program::{ip, link, run},
    switch::{Switch, command_in, unique},
};

crate::tests![
    the_loopback_device_is_refused,
    a_device_that_is_no_ethernet_device_is_refused,
    a_device_with_an_address_is_refused,
    a_linux_bridge_is_refused,
    a_device_under_a_macvlan_is_refused,
    a_port_of_another_bridge_than_the_named_one_is_refused,
    a_port_of_a_bridge_in_another_state_folder_is_refused,
    a_device_that_does_not_exist_is_refused,
    what_the_verifier_refuses_is_reported_with_its_reason_and_in_the_log_with_all_it_said,
];

/// Attaching vm1 fails with these words and changes nothing.
#[track_caller]
fn assert_refused(switch: &Switch, device: &str, words: &[&str]) {
    let before = link(device);
    let complaint = switch.fails(&format!("attach {device}"));
    for words in words {
        assert!(complaint.contains(words), "'{words}' is not in: {complaint}");
    }
    assert_eq!(link(device), before);
    assert!(!switch.state().exists());
}

fn the_loopback_device_is_refused() {
    let switch = Switch::empty();
    assert_refused(
        &switch,
        "lo",
        &["lo: can't be a port: not an Ethernet device; use a tap, a veth or another Ethernet device"],
    );
}

fn a_device_that_is_no_ethernet_device_is_refused() {
    let switch = Switch::empty();
    ip("tuntap add dev tun1 mode tun");
    assert_refused(
        &switch,
        "tun1",
        &["tun1: can't be a port: not an Ethernet device"],
    );
}

fn a_device_with_an_address_is_refused() {
    let switch = Switch::detached(1);
    ip("address add 10.0.0.1/24 dev vm1");
    let words = [
        "vm1: can't be a port: the host has the address 10.0.0.1/24 on it",
        "give the address to one end of a veth pair and attach the other end",
    ];
    assert_refused(&switch, "vm1", &words);
    ip("address delete 10.0.0.1/24 dev vm1");
    switch.speak_ipv6("vm1");
    ip("address add fd00::1/64 dev vm1 nodad");
    assert_refused(&switch, "vm1", &["the host has the address fd00::1/64 on it"]);
}

fn a_linux_bridge_is_refused() {
    let switch = Switch::empty();
    ip("link add br0 type bridge");
    assert_refused(
        &switch,
        "br0",
        &["br0: can't be a port: a bridge itself; 'tapbridge attach --master br0' attaches its ports"],
    );
}

fn a_device_under_a_macvlan_is_refused() {
    let switch = Switch::detached(1);
    ip("link add link vm1 name macvlan0 type macvlan mode bridge");
    let words = [
        "vm1: can't be a port: macvlan0 lies on it and would get no more frames",
        "remove it first with 'ip link del dev macvlan0'",
    ];
    assert_refused(&switch, "vm1", &words);
    // The macvlan itself can be one.
    ip("link set dev macvlan0 up");
    switch.ok("attach macvlan0");
    assert_eq!(switch.shown("macvlan0")["kind"], "other");
    switch.ok("detach macvlan0");
    ip("link del dev macvlan0");
    switch.ok("attach vm1");
}

fn a_port_of_another_bridge_than_the_named_one_is_refused() {
    let mut switch = Switch::detached(2);
    switch.ok("attach vm1 --bridge first");
    let complaint = switch.fails("attach vm2 vm1 --bridge second");
    assert!(
        complaint.contains(
            "vm1: can't be a port: a port of first, and not of second; leave out --bridge to attach it where it is"
        ),
        "{complaint}"
    );
    assert_eq!(link("second"), None);
    // A tap that came back under the name of a port is nobody's port.
    switch.remove("vm1");
    switch.add(Tap::builder("vm1"));
    switch.ok("attach vm2 vm1 --bridge second");
    switch.ok("detach --all");
    assert_eq!((link("first"), link("second")), (None, None));
}

fn a_port_of_a_bridge_in_another_state_folder_is_refused() {
    let switch = Switch::detached(2);
    let stranger = switch.state().with_file_name(unique(bpffs::PREFIX));
    for hook in ["xdp", "tcx"] {
        run(command_in(&stranger, &format!("attach vm1 --hook {hook}"))).success();
        assert_refused(
            &switch,
            "vm1",
            &["vm1: can't be a port: already attached in another state folder"],
        );
        run(command_in(&stranger, "detach --all")).success();
        switch.ok("attach vm1 vm2");
        switch.ok("detach --all");
    }
}

fn a_device_that_does_not_exist_is_refused() {
    let switch = Switch::empty();
    let complaint = switch.fails("attach vm1");
    assert!(
        complaint.contains(
            "vm1: no such network device in this network namespace; 'ip link' lists those there are"
        ),
        "{complaint}"
    );
    assert!(!switch.state().exists());
}

/// The kernel's description of itself, with the names of two of its functions exchanged: the programs call the wrong
/// one then, which the verifier does not allow.
fn what_the_verifier_refuses_is_reported_with_its_reason_and_in_the_log_with_all_it_said() {
    const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
    let [called, other] = [&b"\0bpf_rdonly_cast\0"[..], &b"\0bpf_dynptr_size\0"[..]];
    let mut description = fs::read(VMLINUX).expect("the kernel's BTF");
    let place = |name: &[u8]| description.windows(name.len()).position(|found| found == name);
    let [called_at, other_at] = [called, other].map(|name| place(name).expect("a function's name"));
    description[called_at..][..called.len()].copy_from_slice(other);
    description[other_at..][..other.len()].copy_from_slice(called);
    let switch = Switch::detached(1);
    let file = NamedTempFile::new().expect("make a file");
    fs::write(&file, description).expect("write it");
    let attach = |words: &str| {
        let command = switch.command(&format!("attach vm1 {words}"));
        // In a mount namespace of its own, so that no other test sees the exchange.
        let mut unshare = Command::new("unshare");
        unshare
            .args([
                "--mount",
                "sh",
                "-c",
                "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"",
            ])
            .arg(file.path())
            .arg(VMLINUX)
            .arg(command.get_program())
            .args(command.get_args());
        run(unshare)
    };
    let said = ["", "--log-level debug"].map(attach);
    let [usual, whole] = said.map(|output| output.failure(1));
    // Whichever comes first.
    let program = usual
        .trim_start_matches("tapbridge: ")
        .split(':')
        .next()
        .unwrap_or_default();
    let complaint = format!("tapbridge: {program}: load: ");
    assert!(
        program.starts_with("tapbridge_")
            && usual.starts_with(&complaint)
            && usual.contains("; the verifier: "),
        "{usual}"
    );
    let objection = "call bpf_dynptr_size";
    assert!(usual.contains(objection) && usual.lines().count() == 1, "{usual}");
    assert!(!usual.contains("processed "), "{usual}");
    let (log, last) = whole.trim_end().rsplit_once('\n').expect("more than a line");
    assert_eq!(last, usual.trim_end());
    let begins = format!("tapbridge: debug: {program}: all that");
    for words in [&*begins, "processed ", objection] {
        assert!(log.contains(words), "'{words}' is not in: {log}");
    }
}
