//! What models of a bridge have in common.

/// Of [`Tables`](bridge_common::forwarding::Tables): one bridge, its ports, entries and devices numbered, and nothing at
/// any of them that would keep a frame from going past it.
macro_rules! one_plain_bridge {
    () => {
        type Port = usize;
        type Bridge = ();
        type Database = ();
        type Entry = usize;
        type Device = usize;

        fn bridge(&self, _: usize) {}
        fn bypasses_netfilter(&self, _: usize) -> bool {
            false
        }
        fn is_kept_by_netfilter(&self, _: &bridge_common::forwarding::Received) -> bool {
            false
        }
        fn may_be_icmpv6(&self) -> bool {
            false
        }
        fn has_vlan_devices(&self) -> bool {
            false
        }
        fn has_ingress_hook(&self) -> bool {
            false
        }
        fn has_ingress_filter(&self) -> bool {
            false
        }
        fn database(&self, (): ()) -> Option<()> {
            Some(())
        }
        fn entry_flags(&self, _: usize) -> bridge_common::forwarding::EntryFlags {
            bridge_common::forwarding::EntryFlags::default()
        }
        fn mtu(&self, _: usize) -> u32 {
            1500
        }
        fn has_egress_hook(&self, _: usize) -> bool {
            false
        }
    };
}
pub(crate) use one_plain_bridge;
