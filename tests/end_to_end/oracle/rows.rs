//! What administrators and guests do, each on a bridge of its own.

use std::time::Duration;

use bridge_common::forwarding::Reason;

use super::{
    compare,
    rig::Step::{
        self, Attach, Authenticate, Close, Filter, ForgetAtOnce, LearnAtMost, Listen, MoveAway, Open, Remake,
        RemakeWithQueues, Run, Send, SendFromOutside, SendKind, SendToOneThatLostItsCarrier, Shoot, Slow,
        Sysctl, Sysfs, Try, Uncounted, Unfilter, Unlisten, Unshoot, UntilForgotten, UntilState, Wait, Watch,
    },
    shot::Side,
    traffic::Kind,
};

/// A command that succeeds.
pub fn run(command: &str) -> Step {
    Run(command.into())
}

/// A command that may fail.
fn attempt(command: &str) -> Step {
    Try(command.into())
}

/// So long that the bridge has to see every station anew.
pub const A_WHILE: Step = Wait(Duration::from_millis(1200));

/// A flag of a port is set and cleared, at a sender and at a receiver.
fn flag(flag: &str, set: &str, clear: &str, reason: Option<Reason>) {
    let script = [
        run(&format!("bridge link set dev vm1 {flag} {set}")),
        Send {
            tap: 1,
            from: 1,
            to: 2,
        },
        run(&format!("bridge link set dev vm2 {flag} {set}")),
        run("bridge fdb flush dev br0"),
        run(&format!("bridge link set dev vm1 {flag} {clear}")),
        run(&format!("bridge link set dev vm2 {flag} {clear}")),
    ];
    compare(&script, reason);
}

/// Tests, each with the reason that its frames are left for, if there is one, and its script.
macro_rules! rows {
    (flags: { $($flag_name:ident ($flag_reason:expr): $flag:literal $set:literal $clear:literal),* $(,)? }
     $($name:ident ($reason:expr): [$($step:expr),* $(,)?]),* $(,)?) => {
        $(fn $flag_name() {
            flag($flag, $set, $clear, $flag_reason);
        })*
        $(fn $name() {
            compare(&[$($step),*], $reason);
        })*
        crate::tests![$($flag_name,)* $($name),*];
    };
    ($($name:ident ($reason:expr): [$($step:expr),* $(,)?]),* $(,)?) => {
        rows! { flags: {} $($name ($reason): [$($step),*]),* }
    };
}
pub(super) use rows;

rows! {
    flags: {
        hairpin(None): "hairpin" "on" "off",
        bpdu_guard(None): "guard" "on" "off",
        root_block(None): "root_block" "on" "off",
        no_learning(None): "learning" "off" "on",
        no_unicast_flood(None): "flood" "off" "on",
        no_multicast_flood(None): "mcast_flood" "off" "on",
        no_broadcast_flood(None): "bcast_flood" "off" "on",
        fast_leave(None): "fastleave" "on" "off",
        multicast_to_unicast(None): "mcast_to_unicast" "on" "off",
        neighbour_suppression(Some(Reason::NeighSuppress)): "neigh_suppress" "on" "off",
        vlan_tunnels(Some(Reason::PortFlags)): "vlan_tunnel" "on" "off",
        isolation(Some(Reason::Isolated)): "isolated" "on" "off",
        locked_ports(Some(Reason::SourceUnknown)): "locked" "on" "off",
        a_port_that_blocks_until_the_bridge_sees_that_it_runs_no_spanning_tree(None): "state" "4" "3",
        a_port_that_learns(Some(Reason::IngressState)): "state" "2" "3",
        a_port_that_listens(Some(Reason::IngressState)): "state" "1" "3",
        a_port_that_is_disabled(Some(Reason::IngressState)): "state" "0" "3",
    }

    nothing_but_traffic(Some(Reason::SourceRefresh)): [A_WHILE, A_WHILE],
    a_station_that_moves_and_comes_back(Some(Reason::SourceElsewhere)): [
        Send { tap: 2, from: 1, to: 3 },
        Send { tap: 3, from: 3, to: 1 },
        Send { tap: 1, from: 1, to: 3 },
        Send { tap: 3, from: 3, to: 1 },
        Send { tap: 4, from: 3, to: 1 },
        Send { tap: 1, from: 1, to: 3 },
        A_WHILE,
    ],
    a_database_that_is_flushed(Some(Reason::SourceUnknown)): [
        run("bridge fdb flush dev br0"),
        run("bridge fdb flush dev vm2 master"),
    ],
    an_address_that_is_deleted(Some(Reason::DestinationUnknown)): [
        run("bridge fdb del 52:54:00:00:00:02 dev vm2 master"),
        run("bridge fdb del 52:54:00:00:00:01 dev vm1 master"),
    ],
    a_static_address(Some(Reason::SourceElsewhere)): [
        run("bridge fdb replace 52:54:00:00:00:03 dev vm2 master static"),
        Send { tap: 2, from: 3, to: 1 },
        Send { tap: 1, from: 1, to: 3 },
        A_WHILE,
        attempt("bridge fdb del 52:54:00:00:00:03 dev vm2 master"),
        attempt("bridge fdb replace 52:54:00:00:00:03 dev vm3 master static"),
        A_WHILE,
    ],
    a_sticky_address(Some(Reason::SourceElsewhere)): [
        run("bridge fdb replace 52:54:00:00:00:03 dev vm2 master static sticky"),
        A_WHILE,
        Send { tap: 2, from: 3, to: 1 },
        run("bridge fdb del 52:54:00:00:00:03 dev vm2 master"),
    ],
    a_local_address(Some(Reason::Host)): [
        run("bridge fdb del 52:54:00:00:00:03 dev vm3 master"),
        run("bridge fdb replace 52:54:00:00:00:03 dev vm3 master local"),
        run("bridge fdb del 52:54:00:00:00:03 dev vm3 master"),
        run("bridge fdb replace 52:54:00:00:00:03 dev br0 self local"),
        run("bridge fdb del 52:54:00:00:00:03 dev br0 self local"),
    ],
    an_address_that_a_controller_learned(Some(Reason::SourceElsewhere)): [
        run("bridge fdb replace 52:54:00:00:00:03 dev vm2 master extern_learn"),
        A_WHILE,
        run("bridge fdb replace 52:54:00:00:00:03 dev vm4 master dynamic extern_learn"),
        Send { tap: 3, from: 3, to: 1 },
    ],
    the_address_of_the_bridge(Some(Reason::Host)): [
        run("ip link set br0 address 52:54:00:00:00:03"),
        A_WHILE,
        run("ip link set br0 address 52:54:00:00:00:fe"),
    ],
    the_address_of_a_port(Some(Reason::Host)): [
        run("ip link set vm4 address 52:54:00:00:00:03"),
        run("ip link set vm4 address 52:54:00:00:01:04"),
    ],
    no_ageing_time(None): [
        ForgetAtOnce,
        A_WHILE,
        run("ip link set br0 type bridge ageing_time 30000"),
    ],
    a_silent_station_is_forgotten_and_a_talking_one_is_not(Some(Reason::SourceRefresh)): [
        Uncounted,
        UntilForgotten { from: 1, to: 2 },
    ],
    spanning_tree(Some(Reason::IngressState)): [
        Uncounted,
        run("ip link set br0 type bridge forward_delay 200 hello_time 100 stp_state 1"),
        // A port that forwards goes on with that until it comes up anew.
        run("ip link set vm2 down"),
        run("ip link set vm2 up"),
        UntilState("vm2", "learning"),
        UntilState("vm2", "forwarding"),
        run("ip link set br0 type bridge stp_state 0"),
    ],
    a_port_that_is_down(Some(Reason::EgressState)): [
        run("bridge fdb replace 52:54:00:00:00:02 dev vm2 master static"),
        run("ip link set vm2 down"),
        run("ip link set vm2 up"),
        run("ip link set vm1 down"),
        run("ip link set vm1 up"),
    ],
    a_bridge_that_is_down(None): [
        run("ip link set br0 down"),
        A_WHILE,
        run("ip link set br0 up"),
    ],
    a_tap_that_nobody_holds(Some(Reason::EgressState)): [
        run("bridge fdb replace 52:54:00:00:00:02 dev vm2 master static"),
        Close(2),
        A_WHILE,
        Open(2),
    ],
    a_backup_port(Some(Reason::EgressState)): [
        run("bridge fdb replace 52:54:00:00:00:02 dev vm2 master static"),
        run("bridge link set dev vm2 backup_port vm3"),
        SendToOneThatLostItsCarrier { from: 1, to: 2 },
        Close(2),
        A_WHILE,
        Open(2),
        run("bridge link set dev vm2 nobackup_port"),
    ],
    mtus(Some(Reason::EgressMtu)): [
        run("ip link set vm2 mtu 1000"),
        run("ip link set vm2 mtu 9000"),
        run("ip link set vm1 mtu 1000"),
        run("ip link set br0 mtu 500"),
    ],
    another_name(None): [
        run("ip link set vm2 down"),
        run("ip link set vm2 name other2"),
        run("ip link set other2 up"),
    ],
    a_port_that_leaves_the_bridge(Some(Reason::NotAPort)): [
        run("ip link set vm2 nomaster"),
        A_WHILE,
        run("ip link set vm2 master br0"),
    ],
    two_bridges(Some(Reason::DestinationUnknown)): [
        run("ip link add br1 address 52:54:00:00:00:fe up type bridge mcast_snooping 0"),
        run("ip link set vm2 master br1"),
        run("ip link set vm3 master br1"),
        A_WHILE,
        run("ip link set vm3 master br0"),
        run("ip link set vm2 master br0"),
    ],
    a_tap_that_is_made_anew(None): [
        Remake(2),
        Remake(1),
    ],
    a_tap_that_is_moved_to_another_namespace(None): [
        MoveAway(2),
    ],
    a_bridge_that_is_deleted(Some(Reason::NotAPort)): [
        run("ip link delete br0"),
        run("ip link add br0 address 52:54:00:00:00:fe up type bridge mcast_snooping 0"),
        run("ip link set vm1 master br0"),
        run("ip link set vm2 master br0"),
    ],
    a_rule_of_the_bridge(Some(Reason::BridgeFilter)): [
        run("nft add table bridge t"),
        run("nft add chain bridge t c { type filter hook forward priority 0 ; }"),
        run("nft add rule bridge t c ether daddr 52:54:00:00:00:03 drop"),
        A_WHILE,
        run("nft delete table bridge t"),
        run("nft add table bridge t"),
        run("nft add chain bridge t c { type filter hook prerouting priority 0 ; }"),
        run("nft add rule bridge t c ether saddr 52:54:00:00:00:03 drop"),
        run("nft delete table bridge t"),
        run("nft add table bridge t"),
        run("nft add chain bridge t c { type filter hook postrouting priority 0 ; }"),
        run("nft add rule bridge t c ether saddr 52:54:00:00:00:03 drop"),
    ],
    a_rule_at_a_device_that_receives(Some(Reason::IngressHook)): [
        run("nft add table netdev t"),
        run("nft add chain netdev t c { type filter hook ingress device vm1 priority 0 ; }"),
        run("nft add rule netdev t c ether daddr 52:54:00:00:00:03 drop"),
        A_WHILE,
        run("nft delete table netdev t"),
    ],
    a_rule_at_a_device_that_sends(Some(Reason::EgressHook)): [
        run("nft add table netdev t"),
        run("nft add chain netdev t c { type filter hook egress device vm3 priority 0 ; }"),
        run("nft add rule netdev t c ether saddr 52:54:00:00:00:01 drop"),
        A_WHILE,
        run("nft delete table netdev t"),
    ],
    calls_of_rules_of_ip(Some(Reason::BridgeFilter)): [
        Sysctl("net/bridge/bridge-nf-call-iptables", "1"),
        run("nft add table ip t"),
        run("nft add chain ip t c { type filter hook forward priority 0 ; }"),
        run("nft add rule ip t c ip daddr 10.0.0.3 drop"),
        A_WHILE,
        run("nft delete table ip t"),
        Sysctl("net/bridge/bridge-nf-call-ip6tables", "1"),
        run("nft add table ip6 t"),
        run("nft add chain ip6 t c { type filter hook prerouting priority 0 ; }"),
        run("nft add rule ip6 t c ip6 daddr fd00::3 drop"),
        Sysctl("net/bridge/bridge-nf-call-ip6tables", "0"),
        Sysctl("net/bridge/bridge-nf-call-iptables", "0"),
    ],
    calls_of_rules_for_one_bridge(Some(Reason::BridgeFilter)): [
        run("nft add table ip t"),
        run("nft add chain ip t c { type filter hook forward priority 0 ; }"),
        run("nft add rule ip t c ip daddr 10.0.0.3 drop"),
        run("ip link set br0 type bridge nf_call_iptables 1"),
        A_WHILE,
        run("ip link set br0 type bridge nf_call_iptables 0"),
    ],
    calls_without_rules(None): [
        Sysctl("net/bridge/bridge-nf-call-iptables", "1"),
        Sysctl("net/bridge/bridge-nf-call-ip6tables", "1"),
        Sysctl("net/bridge/bridge-nf-call-arptables", "1"),
        run("ip link set vm2 mtu 1000"),
        // Frames of 1,500 bytes go into it, since there may be a tag, and are cut in two (`br_nf_dev_queue_xmit`).
        run("ip link set vm2 mtu 1497"),
        Sysctl("net/bridge/bridge-nf-filter-vlan-tagged", "1"),
        A_WHILE,
    ],
    a_queueing_discipline_that_shapes(Some(Reason::Queueing)): [
        Slow,
        run("tc qdisc replace dev vm2 root tbf rate 100mbit burst 70kb latency 1s"),
        run("tc qdisc replace dev vm2 root pfifo"),
        run("tc qdisc replace dev vm2 root pfifo_fast"),
        run("tc qdisc replace dev vm2 root noqueue"),
        run("tc qdisc replace dev vm2 root blackhole"),
    ],
    another_program_at_a_sender(Some(Reason::IngressFilter)): [
        Shoot("vm1", Side::Ingress),
        A_WHILE,
        Unshoot,
    ],
    another_program_at_a_receiver(Some(Reason::EgressFilter)): [
        Shoot("vm2", Side::Egress),
        A_WHILE,
        Unshoot,
    ],
    places_for_filters(None): [
        run("tc qdisc add dev vm1 clsact"),
        run("tc qdisc add dev vm2 clsact"),
        run("tc qdisc del dev vm1 clsact"),
    ],
    a_tap_that_filters(Some(Reason::EgressFilter)): [
        Filter(2),
        A_WHILE,
        Unfilter(2),
    ],
    a_packet_socket_at_a_sender(Some(Reason::PacketSocket)): [Listen("vm1"), Unlisten],
    a_packet_socket_at_a_receiver(Some(Reason::PacketSocket)): [Listen("vm2"), Unlisten],
    a_packet_socket_at_the_bridge(None): [Listen("br0"), Unlisten],
    a_packet_socket_at_all_devices(Some(Reason::PacketSocket)): [Listen(""), A_WHILE, Unlisten],
    a_packet_socket_that_hears_a_tap_that_is_no_port(Some(Reason::NotAPort)): [
        run("ip link set vm3 nomaster"),
        Listen(""),
        A_WHILE,
        Unlisten,
        run("ip link set vm3 master br0"),
    ],
    a_macvlan_on_the_bridge(Some(Reason::Promiscuous)): [
        // It hands broadcasts on later (`macvlan_process_broadcast`); were it down, nobody could tell when. Of groups it gets
        // all: of those that it has not joined it would get one in some hundred, by where it lies in memory (`mc_hash`).
        Slow,
        run("ip link add mv1 link br0 address 52:54:00:00:02:01 allmulticast on up type macvlan mode bridge"),
        run("ip link set mv1 down"),
    ],
    a_macvtap_on_the_bridge(Some(Reason::Promiscuous)): [
        Slow,
        run("ip link add mt1 link br0 address 52:54:00:00:02:01 allmulticast on up type macvtap mode passthru"),
    ],
    a_macvlan_on_a_tap_that_is_no_port(Some(Reason::NotAPort)): [
        Slow,
        run("ip link set vm2 nomaster"),
        run("ip link add mv1 link vm2 address 52:54:00:00:02:01 allmulticast on up type macvlan mode bridge"),
        Listen("mv1"),
    ],
    a_promiscuous_bridge(Some(Reason::Promiscuous)): [
        Listen("br0"),
        run("ip link set br0 promisc on"),
        A_WHILE,
        run("ip link set br0 promisc off"),
    ],
    groups(Some(Reason::Group)): [
        Uncounted,
        run("ip link set br0 type bridge mcast_snooping 1 mcast_querier 1"),
        run("bridge mdb add dev br0 port vm2 grp 224.1.1.1 permanent"),
        run("bridge link set dev vm2 mcast_to_unicast on"),
    ],
    group_addresses_that_are_forwarded(Some(Reason::Group)): [
        run("ip link set br0 type bridge group_fwd_mask 0x4008"),
        run("ip link set br0 type bridge no_linklocal_learn 1"),
    ],
    neighbours_that_the_bridge_answers_for(Some(Reason::Protocol)): [
        run("ip neigh add 10.0.0.2 lladdr 52:54:00:00:00:02 dev br0"),
        run("bridge link set dev vm2 neigh_suppress on"),
        // Newer kernels answer only requests for all because of it (seen on 6.18).
        SendKind(Kind::ArpRequest, 1, 2),
        run("bridge link set dev vm2 neigh_suppress off"),
        run("ip link set vm1 type bridge_slave proxy_arp on"),
        SendKind(Kind::ArpRequest, 1, 2),
        run("ip link set vm2 type bridge_slave proxy_arp on"),
        run("ip link set vm2 type bridge_slave proxy_arp_wifi on"),
    ],
    neighbours_of_ipv6_that_the_bridge_answers_for(Some(Reason::NeighSuppress)): [
        // With which the bridge's own device sends too.
        Uncounted,
        Sysctl("net/ipv6/conf/br0/disable_ipv6", "0"),
        run("ip -6 neigh add fd00::2 lladdr 52:54:00:00:00:02 dev br0"),
        run("bridge link set dev vm2 neigh_suppress on"),
        SendKind(Kind::Solicitation, 1, 2),
    ],
    isolated_pairs(Some(Reason::Isolated)): [
        run("bridge link set dev vm1 isolated on"),
        run("bridge link set dev vm3 isolated on"),
        run("bridge link set dev vm4 isolated on"),
        A_WHILE,
        run("bridge link set dev vm3 isolated off"),
    ],
    a_locked_port_with_addresses(Some(Reason::SourceElsewhere)): [
        run("bridge link set dev vm2 locked on"),
        run("bridge fdb replace 52:54:00:00:00:02 dev vm2 master static"),
        A_WHILE,
        Send { tap: 2, from: 1, to: 3 },
        run("bridge link set dev vm2 learning off"),
        Send { tap: 2, from: 1, to: 3 },
        A_WHILE,
        run("bridge fdb del 52:54:00:00:00:02 dev vm2 master"),
    ],
    a_locked_port_that_notes_who_would_like_to_send(Some(Reason::SourceFlags)): [
        run("bridge link set dev vm1 locked on"),
        Authenticate("vm1", true),
        Send { tap: 1, from: 5, to: 2 },
        Send { tap: 1, from: 5, to: 2 },
        Send { tap: 2, from: 2, to: 5 },
        A_WHILE,
        Send { tap: 1, from: 5, to: 2 },
        // Somebody has decided.
        run("bridge fdb replace 52:54:00:00:00:05 dev vm1 master static"),
        Send { tap: 1, from: 5, to: 2 },
        Authenticate("vm1", false),
        run("bridge link set dev vm1 locked off"),
    ],
    a_bridge_that_learns_no_more(Some(Reason::SourceUnknown)): [
        LearnAtMost(2),
        run("bridge fdb flush dev br0"),
        A_WHILE,
        Send { tap: 3, from: 3, to: 1 },
        LearnAtMost(0),
    ],
    an_address_whose_first_use_is_told(Some(Reason::SourceFlags)): [
        Watch { tap: 1, station: 1 },
        Watch { tap: 2, station: 3 },
        Send { tap: 1, from: 1, to: 3 },
        A_WHILE,
        run("bridge fdb del 52:54:00:00:00:01 dev vm1 master"),
    ],
    a_port_that_does_not_learn(Some(Reason::InvalidSource)): [
        run("bridge link set dev vm1 learning off"),
        run("bridge fdb flush dev br0"),
        A_WHILE,
        Send { tap: 2, from: 1, to: 3 },
        Send { tap: 3, from: 3, to: 1 },
    ],
    sources_that_no_station_may_have(Some(Reason::InvalidSource)): [
        run("bridge link set dev vm1 learning off"),
        run("bridge link set dev vm2 learning off"),
        run("bridge link set dev vm3 learning off"),
        run("bridge link set dev vm4 learning off"),
        A_WHILE,
    ],
    an_entry_of_a_group(Some(Reason::Group)): [
        run("bridge fdb add 01:00:5e:00:00:fb dev vm2 master static"),
        run("bridge fdb add 01:80:c2:00:00:03 dev vm3 master static"),
        A_WHILE,
    ],
    an_uplink_that_is_no_tap(Some(Reason::Target)): [
        Slow,
        run("ip link add up0 address 52:54:00:00:01:05 type veth peer name up1"),
        run("ip link set up0 master br0 up"),
        run("ip link set up1 address 52:54:00:00:02:05 up"),
        UntilState("up0", "forwarding"),
        Attach("up0"),
        Listen("up1"),
        SendFromOutside { from: 5, to: 1 },
        SendFromOutside { from: 5, to: 1 },
        SendFromOutside { from: 5, to: 3 },
        Send { tap: 1, from: 1, to: 5 },
        Send { tap: 1, from: 5, to: 3 },
        Send { tap: 3, from: 3, to: 5 },
        SendFromOutside { from: 5, to: 1 },
        Send { tap: 3, from: 3, to: 5 },
        A_WHILE,
        run("ip link set up0 down"),
    ],
    a_receiver_with_several_queues(Some(Reason::TargetQueues)): [
        RemakeWithQueues(2),
    ],
    a_sender_that_is_steered(Some(Reason::Steering)): [
        Slow,
        Sysfs("vm1/queues/rx-0/rps_cpus", "2"),
        Sysfs("vm1/queues/rx-0/rps_cpus", "0"),
    ],
}
