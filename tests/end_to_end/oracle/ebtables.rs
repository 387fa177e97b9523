//! What an administrator does with ebtables: the one that keeps its tables in nftables, by the name that only that has.

use bridge_common::forwarding::Reason;

use super::{
    compare,
    rows::{A_WHILE, rows, run},
};

rows! {
    a_rule_of_ebtables(Some(Reason::BridgeFilter)): [
        run("ebtables-nft -A FORWARD -s 52:54:00:00:00:03 -j DROP"),
        A_WHILE,
        // Which leaves the chain.
        run("ebtables-nft -F"),
        run("ebtables-nft -A FORWARD -d 52:54:00:00:00:03 -j DROP"),
        run("ebtables-nft -F"),
        run("ebtables-nft -X"),
        A_WHILE,
        run("ebtables-nft -A FORWARD -i vm1 -o vm3 -j DROP"),
        run("nft delete table bridge filter"),
    ],
    a_policy_of_ebtables(Some(Reason::BridgeFilter)): [
        run("ebtables-nft -P FORWARD DROP"),
        A_WHILE,
        run("ebtables-nft -A FORWARD -d 52:54:00:00:00:03 -j ACCEPT"),
        run("ebtables-nft -P FORWARD ACCEPT"),
        run("ebtables-nft --init-table"),
        A_WHILE,
    ],
    addresses_that_ebtables_translates(Some(Reason::BridgeFilter)): [
        run("ebtables-nft -t nat -A PREROUTING -d 52:54:00:00:00:03 -j dnat --to-destination 52:54:00:00:00:02"),
        A_WHILE,
        run("ebtables-nft -t nat -F"),
        run("ebtables-nft -t nat -X"),
        run("ebtables-nft -t nat -A POSTROUTING -s 52:54:00:00:00:03 -j snat --to-source 52:54:00:00:00:02"),
        A_WHILE,
        run("nft delete table bridge nat"),
        A_WHILE,
    ],
}
