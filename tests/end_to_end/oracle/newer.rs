//! What Debian 12's iproute2 has no words for, told to the kernel by route netlink.

use rtnetlink::{
    Error, Handle,
    packet_core::DefaultNla,
    packet_route::{
        link::{
            InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, LinkAttribute,
            LinkInfo, LinkMessage,
        },
        neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourState},
    },
};

use crate::support::frames::Mac;
use crate::support::sniffer::index;

/// `NDA_FDB_EXT_ATTRS` (14) with `NLA_F_NESTED`, and what is in it: `NFEA_ACTIVITY_NOTIFY` with both bits, of entries that are
/// watched and have not been active (include/uapi/linux/neighbour.h).
const FDB_ATTRIBUTES: u16 = 0x800e;
const WATCHED_AND_INACTIVE: [u8; 8] = [5, 0, 1, 0, 3, 0, 0, 0];

/// A bridge learns no more addresses than so many; any number if that is 0 (`IFLA_BR_FDB_MAX_LEARNED`, Linux 6.7).
pub fn learn_at_most(bridge: &str, addresses: u32) {
    let settings = InfoData::Bridge(vec![InfoBridge::FdbMaxLearned(addresses)]);
    change(
        bridge,
        vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(settings)],
    );
}

/// A locked port notes who would like to send, for somebody to decide on (`IFLA_BRPORT_MAB`, Linux 6.2).
pub fn authenticate(port: &str, by_address: bool) {
    let settings = InfoPortData::BridgePort(vec![InfoBridgePort::Mab(by_address)]);
    change(
        port,
        vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(settings),
        ],
    );
}

/// A static entry that user space is told about when it is first used (`BR_FDB_NOTIFY_INACTIVE`).
pub fn watch(port: &str, address: Mac) {
    let ifindex = index(port);
    tell(async |handle| {
        let mut request = handle.neighbours().add_bridge(ifindex, &address);
        let attributes = DefaultNla::new(FDB_ATTRIBUTES, WATCHED_AND_INACTIVE.to_vec());
        request
            .message_mut()
            .attributes
            .push(NeighbourAttribute::Other(attributes));
        let request = request
            .state(NeighbourState::Noarp)
            .flags(NeighbourFlags::Controller);
        request.replace().execute().await
    });
}

fn change(device: &str, settings: Vec<LinkInfo>) {
    let mut message = LinkMessage::default();
    message.header.index = index(device);
    message.attributes.push(LinkAttribute::LinkInfo(settings));
    tell(async |handle| handle.link().change(message).execute().await);
}

fn tell(request: impl AsyncFnOnce(Handle) -> Result<(), Error>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let answer = runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().expect("a socket");
        tokio::spawn(connection);
        request(handle).await
    });
    answer.expect("the kernel's consent");
}
