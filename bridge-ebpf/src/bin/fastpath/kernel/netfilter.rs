//! What is registered at the hooks that a bridged frame passes.

use bridge_common::{
    forwarding::{Filtering, Options},
    layout::ABSENT,
};

use super::memory::{Address, Structure, member, offset};

/// Indices of netfilter's hooks for bridges that a forwarded frame passes: `NF_BR_PRE_ROUTING`, `NF_BR_FORWARD`,
/// `NF_BR_POST_ROUTING`.
const HOOKS: [u64; 3] = [0, 2, 4];
const POINTER: u64 = 8;

/// What netfilter may do to frames that a bridge with these options forwards in a network namespace.
#[inline(always)]
pub fn filtering(net: Address, options: Options) -> Filtering {
    if offset!(net_hook_pre_routing) == ABSENT {
        return Filtering::Nothing;
    }
    let net = net.open();
    let hooks = [
        net.follow(member!(net_hook_pre_routing)),
        net.follow(member!(net_hook_forward)),
        net.follow(member!(net_hook_post_routing)),
    ];
    if hooks.iter().all(|entries| entries.is_null()) {
        return Filtering::Nothing;
    }
    let hooks = hooks.map(Address::open);
    // What is registered beside `br_netfilter`, or without it, are rules. Nothing is zero.
    if hooks.iter().any(|entries| registered(*entries) != 1) {
        return Filtering::Rules;
    }
    calls(net, hooks[0], options.netfilter_calls)
}

/// How many functions are registered at a hook of netfilter.
#[inline(always)]
fn registered(entries: Structure) -> u16 {
    entries.read(member!(hook_entries_number))
}

/// What `br_netfilter` may do to bridged frames in a network namespace where the hooks for bridges are taken; given that at
/// each no more than one is, and whether their bridge has calls of its own. Apart from the way of a frame that no hook is
/// taken for.
#[inline(always)]
fn calls(net: Structure, pre_routing: Structure, calls_of_bridge: bool) -> Filtering {
    // Where one of its functions is, all are (`brnf_device_event`).
    let function = pre_routing.follow(member!(hook_entries_hooks)).number();
    let own = offset!(br_nf_pre_routing);
    if own == 0 || function != own {
        return Filtering::Rules;
    }
    let slots = net.follow(member!(net_gen));
    let settings = slots
        .at(offset!(net_generic_ptr) + POINTER * offset!(brnf_slot))
        .pointer()
        .open();
    // Those of IPv4 and IPv6 at once.
    let calls = settings.read::<u64>(member!(brnf_call_iptables))
        | u64::from(settings.read::<u32>(member!(brnf_call_arptables)));
    if calls == 0 && !calls_of_bridge {
        return Filtering::Nothing;
    }
    if has_ip_rules(net.address().number()) == 0 {
        Filtering::Headers
    } else {
        Filtering::Rules
    }
}

/// Whether anything is registered, in a network namespace, at the hooks of IP that `br_netfilter` calls for bridged frames:
/// 1 or 0.
#[inline(never)]
fn has_ip_rules(net: u64) -> u64 {
    let net = Address::new(net);
    for hooks in [offset!(net_hooks_ipv4), offset!(net_hooks_ipv6)] {
        // No rules: one lets bridged frames pass by the rules a second time, the other, which is there wherever AppArmor
        // is, looks at what has a socket.
        let own = [offset!(ip_sabotage_in), 0, offset!(apparmor_ip_postroute)];
        for (hook, own) in HOOKS.into_iter().zip(own) {
            let entries = net.at(hooks + POINTER * hook).pointer();
            if entries.is_null() {
                continue;
            }
            let entries = entries.open();
            let function = entries.follow(member!(hook_entries_hooks)).number();
            if own == 0 || registered(entries) != 1 || function != own {
                return 1;
            }
        }
    }
    0
}
