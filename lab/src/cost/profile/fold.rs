//! What a stack of kernel functions is about.
//!
//! From the innermost function outwards, the first that tells decides. So the copy that `tun_get_user` calls is the write
//! side's, what it hands a frame on to is the path's, and what wakes the receiver at the path's end is wake-up; helpers
//! that everybody calls (memory, locks, copies) tell nothing. Two things go before that:
//!
//! - What a guest does is the guest's, whatever it calls. For namespaces these are sockets, protocols and their timers,
//!   and the calls by which the frame pump reads and writes the guest's own card, the tap `g0`, which stands for a ring in
//!   a virtual machine's memory. They run the same functions as those on the host's tap, in the same process: the
//!   descriptor tells them apart, the first argument of the system call.
//! - A program at a tracepoint is the lab's own counting, no program at a hook.
//!
//! Of a process that is no guest's VMM only what it does with frames counts, since softirqs run in whoever was
//! interrupted; the rest is elsewhere.

use crate::results::Part;

/// Who was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A guest's VMM.
    Vmm,
    /// A guest's VMM, in a system call on the guest's own card.
    GuestCard,
    Other,
}

/// What a stack is about; functions have their plain names, the innermost first.
pub fn part(owner: Owner, stack: &[&str]) -> Part {
    match told(owner, stack) {
        Part::Other if owner == Owner::Other => Part::Elsewhere,
        part => part,
    }
}

fn told(owner: Owner, stack: &[&str]) -> Part {
    let through = |is: fn(&str) -> bool| stack.iter().any(|name| is(name));
    if through(is_traced) {
        return Part::Other;
    }
    // Before the sockets: a switch in user space has those of frames.
    if !through(|name| name.starts_with("packet_")) {
        // The argument is a descriptor only while a system call goes on.
        if (owner == Owner::GuestCard && through(is_system_call)) || through(is_of_a_guest) {
            return Part::Guest;
        }
    }
    // Another VMM on the machine, which carries frames of its own.
    if owner == Owner::Other && through(|name| begins(name, WRITE) || begins(name, READ)) {
        return Part::Elsewhere;
    }
    let first = |(depth, name): (usize, &&str)| Some((of_function(name)?, &stack[depth + 1..]));
    let Some((part, outside)) = stack.iter().enumerate().find_map(first) else {
        return Part::Other;
    };
    let of_a_frame = |name: &&str| of_function(name) == Some(Part::Path);
    match part {
        Part::WakeUp if owner == Owner::Other && !outside.iter().any(of_a_frame) => Part::Other,
        // A virtual machine that is none of the lab's.
        Part::SystemCalls | Part::Guest if owner == Owner::Other => Part::Other,
        part => part,
    }
}

/// What runs programs at tracepoints, which a system call comes by only where somebody counts. Stacks that begin in such a
/// program may have nothing else.
fn is_traced(name: &str) -> bool {
    name.ends_with("_tapbridge_syscalls")
        || begins(
            name,
            &[
                "syscall_trace_enter",
                "bpf_trace_run",
                "__bpf_trace_",
                "perf_trace_",
            ],
        )
}

fn is_system_call(name: &str) -> bool {
    begins(
        name,
        &["do_syscall_64", "entry_SYSCALL_64", "el0_svc", "invoke_syscall"],
    )
}

/// Where a guest's own network stack begins: from its card, from its programs, by its timers. None of these is called while
/// a frame goes by a bridge, not with `br_netfilter` either.
fn is_of_a_guest(name: &str) -> bool {
    begins(name, GUEST)
}

/// What a function tells by its name alone; most tell nothing.
fn of_function(name: &str) -> Option<Part> {
    if is_program(name) {
        return Some(Part::Path);
    }
    let told = [
        (Part::Path, PATH),
        (Part::Write, WRITE),
        (Part::Read, READ),
        (Part::WakeUp, WAKE_UP),
        (Part::SystemCalls, SYSTEM_CALLS),
        (Part::Guest, VIRTUAL_MACHINE),
        (Part::Other, OTHER),
    ];
    told.into_iter()
        .find(|(_, names)| begins(name, names))
        .map(|(part, _)| part)
}

/// Whether it is a BPF program, such as `bpf_prog_c983cff8e0f006b4_tapbridge_fast_xdp`, and no function that loads one.
fn is_program(name: &str) -> bool {
    let tag = name.strip_prefix("bpf_prog_").and_then(|name| name.get(..16));
    tag.is_some_and(|tag| tag.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn begins(name: &str, with: &[&str]) -> bool {
    with.iter().any(|first| name.starts_with(first))
}

// What names begin with.

const GUEST: &[&str] = &[
    // Protocols. The first of them may be missing, where a function ends with a call of the next.
    "ip_rcv",
    "ip_list_rcv",
    "ip_local_deliver",
    "ip_protocol_deliver",
    "ipv6_rcv",
    "ipv6_list_rcv",
    "ip6_input",
    "ip6_protocol_deliver",
    "tcp_v4_",
    "tcp_v6_",
    "udp_rcv",
    "udpv6_rcv",
    "__udp4_lib_",
    "__udp6_lib_",
    "icmp_rcv",
    "icmpv6_rcv",
    "arp_rcv",
    "arp_process",
    // Programs.
    "__sys_send",
    "__sys_recv",
    "__sys_accept",
    "__sys_connect",
    "__sys_socket",
    "__sys_setsockopt",
    "__sys_getsockopt",
    "__sys_shutdown",
    "sock_write_iter",
    "sock_read_iter",
    "sock_sendmsg",
    "__sock_sendmsg",
    "sock_recvmsg",
    "sock_poll",
    "sock_close",
    "__sock_release",
    // Timers.
    "tcp_write_timer",
    "tcp_delack_timer",
    "tcp_tsq_",
    "tcp_pace_kick",
    "tw_timer_handler",
    "neigh_timer_handler",
    "reqsk_timer_handler",
    "mld_",
    // Buffers that sockets were done with on another CPU.
    "skb_defer_free_flush",
];
const PATH: &[&str] = &[
    // Programs at hooks, and what their verdicts do.
    "bpf_dispatcher_",
    "tun_xdp_act",
    "tun_xdp_xmit",
    "xdp_do_",
    "xdp_master_redirect",
    "bpf_xdp_",
    "dev_map_",
    "__dev_map_",
    "bq_",
    "__dev_flush",
    "do_xdp_generic",
    "generic_xdp",
    "skb_do_redirect",
    "__bpf_redirect",
    "dev_forward_skb",
    "tcx_",
    "tcf_",
    "cls_",
    // The way into the stack and out of it.
    "netif_receive_skb",
    "__netif_receive_skb",
    "netif_rx",
    "__netif_rx",
    "enqueue_to_backlog",
    "process_backlog",
    "net_rx_action",
    "net_tx_action",
    "__napi_poll",
    "dev_queue_xmit",
    "__dev_queue_xmit",
    "__dev_direct_xmit",
    "dev_hard_start_xmit",
    "sch_direct_xmit",
    "__qdisc_run",
    "validate_xmit",
    "skb_mac_gso_segment",
    "__skb_gso_segment",
    "tun_net_xmit",
    "tun_select_queue",
    "netdev_core_pick_tx",
    // What is between.
    "br_",
    "__br_",
    "nf_",
    "nft_",
    "ebt_",
    "ipt_",
    "ip6t_",
    "macvlan_",
    "tap_handle_frame",
    "ovs_",
    "veth_",
    "vxlan_",
    "packet_",
    "tpacket_",
];
const WRITE: &[&str] = &[
    "tun_get_user",
    "tun_build_skb",
    "tun_alloc_skb",
    "tun_chr_write_iter",
    "tun_sendmsg",
    "tun_xdp_one",
    "tap_get_user",
    "tap_write_iter",
    "tap_sendmsg",
    "handle_tx",
];
const READ: &[&str] = &[
    "tun_do_read",
    "tun_chr_read_iter",
    "tun_put_user",
    "tun_recvmsg",
    "tap_do_read",
    "tap_read_iter",
    "tap_put_user",
    "tap_recvmsg",
    "handle_rx",
];
const WAKE_UP: &[&str] = &[
    "try_to_wake_up",
    "ttwu_",
    "sched_ttwu_pending",
    "wake_up_",
    "__wake_up",
    "default_wake_function",
    "autoremove_wake_function",
    "pollwake",
    "ep_poll",
    "ep_send_events",
    "do_epoll_wait",
    "sock_def_readable",
    "sock_def_write_space",
    "tun_sock_write_space",
    "schedule",
    "__schedule",
    "preempt_schedule",
    "finish_task_switch",
    "do_sys_poll",
    "do_poll",
    "__x64_sys_ppoll",
    "__x64_sys_poll",
    "__arm64_sys_ppoll",
    "poll_freewait",
    "do_select",
    "core_sys_select",
    "tun_chr_poll",
    "tap_poll",
    "eventfd_",
    "futex_",
    "do_futex",
    "sysvec_reschedule_ipi",
    "sysvec_call_function",
    "flush_smp_call_function_queue",
];
const SYSTEM_CALLS: &[&str] = &[
    "entry_SYSCALL_64",
    "entry_SYSRETQ",
    "do_syscall_64",
    "x64_sys_call",
    "__x64_sys_",
    "syscall_",
    "__arm64_sys_",
    "el0_svc",
    "invoke_syscall",
    "ksys_",
    "vfs_",
    "do_writev",
    "do_readv",
    "vhost_worker",
    "vhost_run_work_list",
    "vhost_task_fn",
];
const VIRTUAL_MACHINE: &[&str] = &["kvm_", "vmx_", "svm_", "vcpu_"];
const OTHER: &[&str] = &[
    "sysvec_",
    "asm_sysvec_",
    "common_interrupt",
    "hrtimer_interrupt",
    "run_timer_softirq",
    "rcu_core",
    "sched_balance_",
];

#[cfg(test)]
mod tests {
    use super::{Owner::*, *};

    /// Ways from a system call to the tap's driver, outermost last, as stacks of Linux 6.18 have them.
    const WRITEV: &str =
        "do_iter_readv_writev vfs_writev do_writev do_syscall_64 entry_SYSCALL_64_after_hwframe";
    const READ: &str = "vfs_read ksys_read do_syscall_64 entry_SYSCALL_64_after_hwframe";
    const PPOLL: &str = "do_sys_poll __x64_sys_ppoll do_syscall_64 entry_SYSCALL_64_after_hwframe";

    fn folded(owner: Owner, parts: &[&str]) -> Part {
        let stack: Vec<_> = parts.iter().flat_map(|part| part.split(' ')).collect();
        part(owner, &stack)
    }

    fn written(stack: &str) -> Part {
        folded(Vmm, &[stack, "tun_get_user tun_chr_write_iter", WRITEV])
    }

    #[test]
    fn what_goes_by_a_bridge_is_the_path_up_to_the_receivers_ring() {
        const BRIDGE: &str = "br_handle_frame_finish br_handle_frame __netif_receive_skb_core \
            __netif_receive_skb_one_core netif_receive_skb";
        for inner in [
            "__netif_receive_skb_core __netif_receive_skb_one_core netif_receive_skb".to_owned(),
            format!("br_fdb_find_rcu {BRIDGE}"),
            format!(
                "_raw_spin_lock tun_net_xmit dev_hard_start_xmit sch_direct_xmit __dev_queue_xmit br_dev_queue_push_xmit {BRIDGE}"
            ),
            format!("nf_hook_slow {BRIDGE}"),
            format!("ipt_do_table nf_hook_slow br_nf_pre_routing {BRIDGE}"),
        ] {
            assert_eq!(written(&inner), Part::Path, "{inner}");
        }
        assert_eq!(
            written(&format!(
                "_raw_spin_unlock_irqrestore sock_def_readable tun_net_xmit dev_hard_start_xmit sch_direct_xmit \
                 __dev_queue_xmit br_dev_queue_push_xmit {BRIDGE}"
            )),
            Part::WakeUp
        );
    }

    #[test]
    fn programs_at_hooks_and_redirects_are_the_path() {
        for inner in [
            "bpf_prog_6deef7357e7b4530_tapbridge_fast_xdp tun_build_skb",
            "csum_partial bpf_csum_diff bpf_prog_6deef7357e7b4530_tapbridge_fast_xdp tun_build_skb",
            "xdp_do_redirect tun_xdp_act tun_build_skb",
            "_raw_spin_lock tun_xdp_xmit bq_xmit_all __dev_flush tun_build_skb",
            "__pi_memcpy pskb_expand_head do_xdp_generic",
            "bpf_prog_73b1d5e4f6b2d1a9_tapbridge_fast_tcx __netif_receive_skb_core __netif_receive_skb_one_core netif_receive_skb",
            "__dev_queue_xmit __bpf_redirect __netif_receive_skb_core __netif_receive_skb_one_core netif_receive_skb",
        ] {
            assert_eq!(written(inner), Part::Path, "{inner}");
        }
        let woken = "_raw_spin_unlock_irqrestore sock_def_readable tun_xdp_xmit bq_xmit_all __dev_flush tun_build_skb";
        assert_eq!(written(woken), Part::WakeUp);
    }

    #[test]
    fn macvtap_has_a_path_between_its_two_ends() {
        let of = |inner: &str| folded(Vmm, &[inner, "tap_get_user", WRITEV]);
        assert_eq!(
            of("_copy_from_iter copy_page_from_iter skb_copy_datagram_from_iter"),
            Part::Write
        );
        assert_eq!(of("_raw_spin_trylock __dev_queue_xmit"), Part::Path);
        assert_eq!(
            of("macvlan_hash_lookup macvlan_start_xmit dev_hard_start_xmit sch_direct_xmit __dev_queue_xmit"),
            Part::Path
        );
        let softirq = "__netif_receive_skb_core __netif_receive_skb_one_core process_backlog __napi_poll net_rx_action \
            handle_softirqs do_softirq __local_bh_enable_ip __dev_queue_xmit";
        assert_eq!(of(&format!("tap_handle_frame {softirq}")), Part::Path);
        assert_eq!(
            of(&format!(
                "_raw_spin_unlock_irqrestore __wake_up tap_handle_frame {softirq}"
            )),
            Part::WakeUp
        );
        let read = "_copy_to_iter __skb_datagram_iter skb_copy_datagram_iter tap_do_read tap_read_iter";
        assert_eq!(folded(Vmm, &[read, super::tests::READ]), Part::Read);
    }

    #[test]
    fn other_virtual_machines_are_no_guests() {
        let stack = "vmx_handle_exit_irqoff kvm_arch_vcpu_ioctl_run kvm_vcpu_ioctl do_syscall_64";
        assert_eq!(folded(Vmm, &[stack]), Part::Guest);
        assert_eq!(folded(Other, &[stack]), Part::Elsewhere);
    }

    #[test]
    fn open_vswitch_has_its_path_in_the_kernel_or_in_sockets_of_frames() {
        let kernel = "ovs_flow_tbl_lookup_stats ovs_dp_process_packet ovs_vport_receive netdev_frame_hook \
            __netif_receive_skb_core __netif_receive_skb_one_core netif_receive_skb";
        assert_eq!(written(kernel), Part::Path);
        assert_eq!(
            folded(
                Other,
                &["_copy_to_iter packet_recvmsg sock_recvmsg __sys_recvfrom do_syscall_64"]
            ),
            Part::Path
        );
    }

    #[test]
    fn buffers_and_copies_are_the_side_that_they_are_on() {
        for inner in [
            "_copy_from_iter copy_page_from_iter skb_copy_datagram_from_iter",
            "get_page_from_freelist alloc_pages_mpol alloc_skb_with_frags sock_alloc_send_pskb",
            "skb_page_frag_refill tun_build_skb",
        ] {
            assert_eq!(written(inner), Part::Write, "{inner}");
        }
        for inner in [
            "_copy_to_iter __skb_datagram_iter skb_copy_datagram_iter tun_do_read tun_chr_read_iter",
            "__free_frozen_pages skb_release_data consume_skb tun_do_read tun_chr_read_iter",
            "xdp_return_frame tun_do_read tun_chr_read_iter",
        ] {
            assert_eq!(folded(Vmm, &[inner, READ]), Part::Read, "{inner}");
        }
        let vhost = "vhost_run_work_list vhost_task_fn ret_from_fork ret_from_fork_asm";
        assert_eq!(
            folded(
                Vmm,
                &[
                    "_copy_from_iter tun_get_user tun_sendmsg vhost_tx_batch handle_tx_copy handle_tx",
                    vhost
                ]
            ),
            Part::Write
        );
        assert_eq!(
            folded(Vmm, &["_copy_to_iter tun_do_read tun_recvmsg handle_rx", vhost]),
            Part::Read
        );
        assert_eq!(
            folded(
                Vmm,
                &[
                    "br_handle_frame netif_receive_skb tun_get_user tun_sendmsg handle_tx",
                    vhost
                ]
            ),
            Part::Path
        );
    }

    #[test]
    fn a_vmm_that_waits_and_one_that_enters_the_kernel_are_told_apart() {
        for inner in [
            "finish_task_switch __schedule schedule schedule_hrtimeout_range_clock poll_schedule_timeout",
            "tun_chr_poll",
            "_raw_spin_unlock_irqrestore poll_freewait",
        ] {
            assert_eq!(folded(Vmm, &[inner, PPOLL]), Part::WakeUp, "{inner}");
            assert_eq!(folded(Other, &[inner, PPOLL]), Part::Elsewhere, "{inner}");
        }
        for stack in [
            "do_syscall_64 entry_SYSCALL_64_after_hwframe",
            "fdget_pos do_writev do_syscall_64",
        ] {
            assert_eq!(folded(Vmm, &[stack]), Part::SystemCalls);
            assert_eq!(folded(Other, &[stack]), Part::Elsewhere);
        }
        assert_eq!(folded(Vmm, &["ksys_read", "do_syscall_64"]), Part::SystemCalls);
    }

    #[test]
    fn what_a_guest_does_is_its_own_whoever_runs_it() {
        let received = "tcp_v4_rcv ip_protocol_deliver_rcu ip_local_deliver_finish ip_local_deliver ip_rcv \
            __netif_receive_skb_one_core netif_receive_skb";
        for owner in [Vmm, GuestCard] {
            let of = |inner: &str| folded(owner, &[inner, "tun_get_user tun_chr_write_iter", WRITEV]);
            assert_eq!(of(received), Part::Guest);
            let answered = format!(
                "sock_def_readable tun_net_xmit dev_hard_start_xmit __dev_queue_xmit ip_output {received}"
            );
            assert_eq!(of(&answered), Part::Guest);
            let cut = "__udp_enqueue_schedule_skb udp_queue_rcv_one_skb udp_unicast_rcv_skb ip_protocol_deliver_rcu \
                ip_local_deliver_finish __netif_receive_skb_one_core netif_receive_skb";
            assert_eq!(of(cut), Part::Guest);
        }
        for stack in [
            "_copy_from_iter tcp_sendmsg_locked tcp_sendmsg sock_write_iter vfs_write ksys_write do_syscall_64",
            "sock_def_readable tun_net_xmit dev_hard_start_xmit sch_direct_xmit __dev_queue_xmit ip_finish_output2 \
             ip_output ip_send_skb udp_send_skb udp_sendmsg __sys_sendto __x64_sys_sendto do_syscall_64",
            "__schedule schedule schedule_timeout __skb_wait_for_more_packets __skb_recv_udp udp_recvmsg sock_recvmsg \
             __sys_recvfrom __x64_sys_recvfrom do_syscall_64",
            "ip_queue_xmit __tcp_transmit_skb tcp_write_xmit tcp_tsq_handler tcp_pace_kick __hrtimer_run_queues \
             hrtimer_run_softirq handle_softirqs",
            "skb_release_data napi_consume_skb skb_defer_free_flush net_rx_action handle_softirqs",
        ] {
            assert_eq!(folded(Other, &[stack]), Part::Guest, "{stack}");
        }
        assert_eq!(
            folded(Vmm, &["vmx_vcpu_run vcpu_enter_guest kvm_arch_vcpu_ioctl_run"]),
            Part::Guest
        );
    }

    #[test]
    fn the_guests_own_card_is_told_from_the_hosts_tap_by_the_descriptor() {
        let card = |parts: &[&str]| folded(GuestCard, parts);
        let copied = "_copy_to_iter __skb_datagram_iter skb_copy_datagram_iter tun_do_read tun_chr_read_iter";
        assert_eq!(card(&[copied, READ]), Part::Guest);
        assert_eq!(
            card(&["__netif_receive_skb_core netif_receive_skb tun_get_user", WRITEV]),
            Part::Guest
        );
        // In an interrupt of user space, the register is some number.
        let interrupted = "__netif_receive_skb_core process_backlog net_rx_action handle_softirqs __irq_exit_rcu \
            sysvec_apic_timer_interrupt asm_sysvec_apic_timer_interrupt";
        assert_eq!(card(&[interrupted]), Part::Path);
    }

    #[test]
    fn other_vmms_and_who_loads_programs_are_elsewhere() {
        let bridged = "br_handle_frame __netif_receive_skb_core netif_receive_skb";
        assert_eq!(
            folded(Other, &[bridged, "tun_get_user tun_chr_write_iter", WRITEV]),
            Part::Elsewhere
        );
        assert_eq!(
            folded(Other, &["_copy_to_iter tun_do_read tun_chr_read_iter", READ]),
            Part::Elsewhere
        );
        let softirq = "process_backlog __napi_poll net_rx_action handle_softirqs run_ksoftirqd";
        assert_eq!(folded(Other, &[bridged, softirq]), Part::Path);
        let loading = "__reg_deduce_bounds do_check_common bpf_check bpf_prog_load __sys_bpf __x64_sys_bpf do_syscall_64";
        assert_eq!(folded(Other, &[loading]), Part::Elsewhere);
    }

    #[test]
    fn interrupts_and_counting_are_no_part_of_a_frames_way() {
        let counted = "htab_map_hash __htab_map_lookup_elem bpf_prog_2c0f478edef2688e_tapbridge_syscalls bpf_trace_run2 \
            __bpf_trace_sys_enter syscall_trace_enter do_syscall_64 entry_SYSCALL_64_after_hwframe";
        assert_eq!(folded(Vmm, &[counted]), Part::Other);
        assert_eq!(folded(GuestCard, &[counted]), Part::Other);
        assert_eq!(
            folded(Vmm, &["bpf_prog_2c0f478edef2688e_tapbridge_syscalls"]),
            Part::Other
        );
        assert_eq!(
            written(
                "handle_softirqs __irq_exit_rcu sysvec_apic_timer_interrupt asm_sysvec_apic_timer_interrupt"
            ),
            Part::Other
        );
        for stack in [
            "clear_page_erms do_anonymous_page exc_page_fault asm_exc_page_fault",
            "unheard_of",
        ] {
            assert_eq!(folded(Other, &[stack]), Part::Elsewhere);
            assert_eq!(folded(Vmm, &[stack]), Part::Other);
        }
        assert_eq!(part(Vmm, &[]), Part::Other);
    }
}
