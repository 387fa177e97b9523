//! What the fast path has to know of the running kernel, from its BTF and its symbols.

use std::{collections::HashMap, fs, io, path::Path};

use bridge_common::{fastpath::Offsets, layout::ABSENT};
use nix::time::{ClockId, clock_getres};

use crate::{
    error::{Context as _, Error, Result},
    kernel::{
        btf::{Btf, BtfError},
        requirements,
    },
};

const BTF: &str = "/sys/kernel/btf";
/// Bytes of a pointer.
const POINTER: u64 = 8;
/// Which says zero where it hides an address (`kallsyms_show_value`).
const SYMBOLS: &str = "/proc/kallsyms";
/// The symbols that are looked for there; no kernel has all of them.
const WANTED: [&str; 5] = [
    BR_NETFILTER,
    "ip_sabotage_in",
    "apparmor_ip_postroute",
    "ptype_all",
    "net_hotdata",
];
const BR_NETFILTER: &str = "br_nf_pre_routing";

/// All but [`Offsets::brnf_slot`], which has to be tried out.
pub(super) fn from_kernel() -> Result<Offsets> {
    offsets_in(Path::new(BTF))
}

fn offsets_in(folder: &Path) -> Result<Offsets> {
    let read = |name: &str| {
        let path = folder.join(name);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            data => data.at(path.display(), "read").map(Some),
        }
    };
    let vmlinux = read("vmlinux")?.ok_or_else(|| no_btf("vmlinux", "there is none"))?;
    let vmlinux = Btf::parse(&vmlinux).map_err(|error| no_btf("vmlinux", error))?;
    // A module's BTF is there while the module is; what is built in is in the kernel's own.
    let module = |name| read(name).map(Option::unwrap_or_default);
    let (bridge, netfilter, tun) = (module("bridge")?, module("br_netfilter")?, module("tun")?);
    let bridge = parse("bridge", &bridge, &vmlinux)?;
    if bridge.is_none() && vmlinux.structure("net_bridge_port").is_err() {
        let reason = "there is none, and vmlinux does not describe bridges: the module is not loaded ('modprobe bridge'), \
                      or was built without CONFIG_DEBUG_INFO_BTF_MODULES";
        return Err(no_btf("bridge", reason));
    }
    let is_module = bridge.is_some();
    let netfilter = parse("br_netfilter", &netfilter, &vmlinux)?;
    let tun = parse("tun", &tun, &vmlinux)?;
    let tun = tun.as_ref().unwrap_or(&vmlinux);
    let bridge = bridge.as_ref().unwrap_or(&vmlinux);
    let netfilter = netfilter.as_ref().unwrap_or(&vmlinux);
    let symbols = symbols()?;
    from_btf(&vmlinux, bridge, netfilter, tun, &symbols).map_err(|error| {
        // Where it would have to be.
        let is_bridges = |name: &str| name.starts_with("net_bridge") || name.starts_with("BR");
        let name = match &error {
            BtfError::NoStruct(name) | BtfError::NoMember(name, _) | BtfError::NoEnumerator(name)
                if is_module && is_bridges(name) =>
            {
                "bridge"
            }
            _ => "vmlinux",
        };
        no_btf(name, error)
    })
}

fn no_btf(name: &str, reason: impl std::fmt::Display) -> Error {
    Error::NoBtf {
        path: Path::new(BTF).join(name),
        reason: reason.to_string(),
    }
}

/// A module's; none where there is no such module.
fn parse<'a>(name: &str, data: &'a [u8], base: &'a Btf<'a>) -> Result<Option<Btf<'a>>> {
    match data {
        [] => Ok(None),
        data => match Btf::parse_module(data, base) {
            Ok(btf) => Ok(Some(btf)),
            Err(error) => Err(no_btf(name, error)),
        },
    }
}

/// Addresses of the symbols that are wanted; those that this kernel has not are missing.
fn symbols() -> Result<HashMap<String, u64>> {
    let text = fs::read_to_string(SYMBOLS).at(SYMBOLS, "read")?;
    symbols_in(&text, requirements::may_see_symbols())
}

/// Of what /proc/kallsyms says to a process that may see addresses, or may not.
fn symbols_in(text: &str, permitted: bool) -> Result<HashMap<String, u64>> {
    let mut found = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(address), Some(_), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if !WANTED.contains(&name) {
            continue;
        }
        match u64::from_str_radix(address, 16) {
            Ok(0) if !permitted => {
                let next = "tapbridge needs CAP_SYSLOG to see them";
                return Err(Error::HiddenSymbols { next });
            }
            // Where br_netfilter is, all frames would look as if somebody else's rules wanted them.
            Ok(0) if name == BR_NETFILTER => {
                let next = "set kernel.kptr_restrict to 1 or 0 until ports are attached";
                return Err(Error::HiddenSymbols { next });
            }
            Ok(address) if address != 0 => drop(found.insert(name.to_owned(), address)),
            _ => {}
        }
    }
    Ok(found)
}

/// The offset of a member that kernels may be built without.
fn optional(offset: Result<u64, BtfError>) -> Result<u64, BtfError> {
    match offset {
        Err(BtfError::NoMember(..) | BtfError::NoStruct(_)) => Ok(ABSENT),
        offset => offset,
    }
}

#[expect(clippy::too_many_lines, reason = "one line per member")]
fn from_btf(
    kernel: &Btf<'_>,
    bridge: &Btf<'_>,
    netfilter: &Btf<'_>,
    tun: &Btf<'_>,
    symbols: &HashMap<String, u64>,
) -> Result<Offsets, BtfError> {
    let anything = kernel.longest_array()?;
    let symbol = |name: &str| symbols.get(name).copied().unwrap_or(0);
    let device = |member: &str| kernel.offset("net_device", member);
    let port = |member: &str| bridge.offset("net_bridge_port", member);
    let vlans = |member: &str| bridge.offset("net_bridge_vlan_group", member);
    let vlan = |member: &str| bridge.offset("net_bridge_vlan", member);
    let table = |member: &str| kernel.offset("bucket_table", member);
    let entry = |member: &str| bridge.offset("net_bridge_fdb_entry", member);
    let private = match optional(device("priv"))? {
        // Before 6.11 it had no name (`netdev_priv`).
        ABSENT => kernel.size("net_device")?.next_multiple_of(32),
        private => private,
    };
    let tap = |member: &str| match optional(tun.offset("tun_struct", member))? {
        ABSENT => Ok(ABSENT),
        offset => Ok(private + offset),
    };
    let hooks_bridge = match optional(kernel.offset("netns_nf", "hooks_bridge"))? {
        ABSENT => ABSENT,
        hooks => kernel.offset("net", "nf")? + hooks,
    };
    // `enum nf_br_hooks`, of user space's headers.
    let hook = |number: u64| match hooks_bridge {
        ABSENT => ABSENT,
        hooks => hooks + number * POINTER,
    };
    let mask = |name: &str| bridge.enumerator(name).map(|bit| 1 << bit);
    let optional_mask = |name: &str| match mask(name) {
        Err(BtfError::NoEnumerator(_)) => Ok(0),
        mask => mask,
    };
    let calls = |offset| match offset {
        Err(BtfError::NoStruct(_)) => Ok(0),
        offset => offset,
    };
    Ok(Offsets {
        rdonly_cast: kernel.function("bpf_rdonly_cast")?,
        anything: u64::from(anything.id),
        anything_length: anything.length,
        xdp_buff_rxq: kernel.offset("xdp_buff", "rxq")?,
        xdp_rxq_info_dev: kernel.offset("xdp_rxq_info", "dev")?,
        rx_queue_size: kernel.size("netdev_rx_queue")?,
        rx_queue_xdp_rxq: kernel.offset("netdev_rx_queue", "xdp_rxq")?,
        rx_queue_rps_map: optional(kernel.offset("netdev_rx_queue", "rps_map"))?,
        rx_queue_rps_flow_table: optional(kernel.offset("netdev_rx_queue", "rps_flow_table"))?,
        sk_buff_dev: kernel.offset("sk_buff", "dev")?,
        task_flags: kernel.offset("task_struct", "flags")?,
        dev_private: private,
        dev_priv_flags: device("priv_flags")?,
        iff_bridge_port: u64::from(kernel.enumerator("IFF_BRIDGE_PORT")?),
        dev_flags: device("flags")?,
        dev_state: device("state")?,
        dev_mtu: device("mtu")?,
        dev_ifindex: device("ifindex")?,
        dev_rx_handler_data: device("rx_handler_data")?,
        dev_net: device("nd_net")?,
        dev_rx: device("_rx")?,
        dev_tx: device("_tx")?,
        dev_real_num_tx_queues: device("real_num_tx_queues")?,
        dev_tcx_ingress: device("tcx_ingress")?,
        dev_tcx_egress: device("tcx_egress")?,
        dev_nf_hooks_ingress: optional(device("nf_hooks_ingress"))?,
        dev_nf_hooks_egress: optional(device("nf_hooks_egress"))?,
        dev_ptype_all: device("ptype_all")?,
        dev_netdev_ops: device("netdev_ops")?,
        tun_filter_attached: tap("filter_attached")?,
        tun_address_filter: tap("txflt")?,
        tun_filter_program: tap("filter_prog")?,
        dev_vlan_info: optional(device("vlan_info"))?,
        vlan_info_devices: match kernel.offset("vlan_info", "grp") {
            Ok(group) => group + kernel.offset("vlan_group", "nr_vlan_devs")?,
            Err(_) => 0,
        },
        tx_queue_qdisc: kernel.offset("netdev_queue", "qdisc")?,
        qdisc_flags: kernel.offset("Qdisc", "flags")?,
        qdisc_enqueue: kernel.offset("Qdisc", "enqueue")?,
        mprog_second: kernel.offset("bpf_mprog_entry", "fp_items")? + kernel.size("bpf_mprog_fp")?,
        mprog_parent: kernel.offset("bpf_mprog_entry", "parent")?,
        tcx_bundle: kernel.offset("tcx_entry", "bundle")?,
        tcx_miniq: kernel.offset("tcx_entry", "miniq")?,
        prog_aux: kernel.offset("bpf_prog", "aux")?,
        prog_aux_id: kernel.offset("bpf_prog_aux", "id")?,
        net_hook_pre_routing: hook(0),
        net_hook_forward: hook(2),
        net_hook_post_routing: hook(4),
        net_hooks_ipv4: kernel.offset("net", "nf")? + kernel.offset("netns_nf", "hooks_ipv4")?,
        net_hooks_ipv6: kernel.offset("net", "nf")? + kernel.offset("netns_nf", "hooks_ipv6")?,
        ip_sabotage_in: symbol("ip_sabotage_in"),
        apparmor_ip_postroute: symbol("apparmor_ip_postroute"),
        net_gen: kernel.offset("net", "gen")?,
        net_ptype_all: optional(kernel.offset("net", "ptype_all"))?,
        global_ptype_all: match kernel.offset("net_hotdata", "ptype_all") {
            // From 6.9 on a member, until the list became the namespace's.
            Ok(member) if symbol("net_hotdata") != 0 => symbol("net_hotdata") + member,
            _ => symbol("ptype_all"),
        },
        net_generic_ptr: kernel.offset("net_generic", "ptr")?,
        hook_entries_number: kernel.offset("nf_hook_entries", "num_hook_entries")?,
        hook_entries_hooks: kernel.offset("nf_hook_entries", "hooks")?,
        br_nf_pre_routing: symbol(BR_NETFILTER),
        brnf_slot: 0,
        brnf_call_iptables: calls(netfilter.neighbours("brnf_net", ["call_iptables", "call_ip6tables"]))?,
        brnf_call_arptables: calls(netfilter.offset("brnf_net", "call_arptables"))?,
        port_br: port("br")?,
        port_dev: port("dev")?,
        port_flags: port("flags")?,
        port_state: port("state")?,
        port_vlans: optional(port("vlgrp"))?,
        br_vlan_protocol: optional(bridge.offset("net_bridge", "vlan_proto"))?,
        vlans_table: match optional(vlans("vlan_hash"))? {
            ABSENT => ABSENT,
            hash => hash + kernel.offset("rhashtable", "tbl")?,
        },
        vlans_own: optional(vlans("pvid"))?,
        vlans_own_state: optional(vlans("pvid_state"))?,
        vlan_node: optional(vlan("vnode"))?,
        vlan_id: optional(vlan("vid"))?,
        vlan_flags: optional(vlan("flags"))?,
        vlan_state: optional(vlan("state"))?,
        br_options: bridge.offset("net_bridge", "options")?,
        br_fdb: bridge.offset("net_bridge", "fdb_hash_tbl")? + kernel.offset("rhashtable", "tbl")?,
        br_ageing_time: bridge.offset("net_bridge", "ageing_time")?,
        option_vlan: mask("BROPT_VLAN_ENABLED")?,
        option_vlan_stats: optional_mask("BROPT_VLAN_STATS_ENABLED")?,
        option_mst: optional_mask("BROPT_MST_ENABLED")?,
        option_neigh_suppress: optional_mask("BROPT_NEIGH_SUPPRESS_ENABLED")?,
        options_nf_call: mask("BROPT_NF_CALL_IPTABLES")?
            | mask("BROPT_NF_CALL_IP6TABLES")?
            | mask("BROPT_NF_CALL_ARPTABLES")?,
        table_size: kernel.neighbours("bucket_table", ["size", "nest"])?,
        table_hash_rnd: table("hash_rnd")?,
        table_future: table("future_tbl")?,
        table_buckets: table("buckets")?,
        entry_rhnode: entry("rhnode")?,
        entry_key: entry("key")?,
        entry_dst: entry("dst")?,
        entry_flags: entry("flags")?,
        entry_updated: entry("updated")?,
        entry_local: mask("BR_FDB_LOCAL")?,
        entry_locked: optional_mask("BR_FDB_LOCKED")?,
        entry_notify_inactive: optional_mask("BR_FDB_NOTIFY_INACTIVE")?,
        hz: jiffies_per_second(),
    })
}

/// `HZ`: the coarse clock moves once a tick.
fn jiffies_per_second() -> u64 {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |tick| tick.tv_nsec());
    let tick = u64::try_from(tick).unwrap_or(0);
    // 250 where it can't be known is at most four seconds.
    1_000_000_000_u64.checked_div(tick).unwrap_or(250)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_hidden_are_missed_where_they_matter() {
        let shown = "ffffffff81000000 T _text\nffffffff8100a000 t br_nf_pre_routing\n";
        let found = symbols_in(shown, true).expect("addresses");
        assert_eq!(
            found,
            HashMap::from([(BR_NETFILTER.to_owned(), 0xffff_ffff_8100_a000)])
        );
        let hidden = "0000000000000000 t br_nf_pre_routing\n";
        let error = |permitted| symbols_in(hidden, permitted).unwrap_err().to_string();
        assert!(error(false).contains("CAP_SYSLOG"), "{}", error(false));
        assert!(error(true).contains("kernel.kptr_restrict"), "{}", error(true));
        let others = "0000000000000000 T _text\n0000000000000000 d net_hotdata\n";
        assert!(
            symbols_in(others, true)
                .expect("nothing that is missed")
                .is_empty()
        );
        assert!(symbols_in("0000000000000000 T _text\n", false).is_ok());
    }

    #[test]
    fn a_kernel_that_does_not_describe_its_bridge_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("vmlinux"), crate::kernel::btf::tests::sample()).unwrap();
        let error = offsets_in(folder).unwrap_err().to_string();
        assert!(
            error.starts_with("/sys/kernel/btf/bridge: there is none") && error.contains("'modprobe bridge'"),
            "{error}"
        );
        // A module's description that is none is another matter.
        fs::write(folder.join("bridge"), b"x").unwrap();
        let error = offsets_in(folder).unwrap_err().to_string();
        assert!(
            error.starts_with("/sys/kernel/btf/bridge: not valid BTF"),
            "{error}"
        );
    }

    #[test]
    fn what_a_module_does_not_describe_is_missed_there() {
        const MEMBER: &[u8] = b"\0fdb_hash_tbl\0";
        let mut vmlinux = fs::read(Path::new(BTF).join("vmlinux")).expect("this kernel's BTF");
        // Where the bridge is built in.
        let place = vmlinux.windows(MEMBER.len()).position(|found| found == MEMBER);
        if let Some(place) = place {
            vmlinux[place + 1] = b'F';
        }
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::write(folder.join("vmlinux"), vmlinux).unwrap();
        // A module without any types.
        let mut module = vec![0; 25];
        module[..4].copy_from_slice(&[0x9f, 0xeb, 1, 0]);
        module[4] = 24;
        module[20] = 1;
        fs::write(folder.join("bridge"), module).unwrap();
        let error = offsets_in(folder).unwrap_err().to_string();
        assert!(
            error.starts_with("/sys/kernel/btf/bridge: the kernel") && error.contains("net_bridge"),
            "{error}"
        );
    }
}
