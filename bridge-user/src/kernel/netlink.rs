//! What the kernel says of network devices, by route netlink.

use std::{collections::HashMap, io, pin::Pin};

use futures_util::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, MulticastGroup,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressScope},
        link::{
            InfoBridge, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
            Prop,
        },
        neighbour::{
            NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        tc::{TcAttribute, TcHandle, TcMessage},
    },
};

use bridge_common::mac::Mac;

use crate::error::{Context as _, Error, Result};

/// An entry of a Linux bridge's forwarding database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeEntry {
    /// The address.
    pub mac: Mac,
    /// VLAN identifier, in a bridge that filters them.
    pub vlan: Option<u16>,
    /// Index of the port, or of the bridge where the address is its own.
    pub ifindex: u32,
    /// Index of the bridge.
    pub master: u32,
    /// "permanent" for an address of the host's, "static", or empty, as iproute2 calls it.
    pub state: &'static str,
    /// As iproute2 calls them.
    pub flags: Vec<&'static str>,
    /// Seconds since the bridge last saw a frame from the address, unless it does not age.
    pub updated: Option<u64>,
}

/// Clock ticks in a second, as user space is told of them (`USER_HZ`).
const USER_TICKS: u32 = 100;

impl BridgeEntry {
    /// None if this is what a device itself listens to, and no bridge's.
    fn of(message: NeighbourMessage) -> Option<Self> {
        let (mut mac, mut vlan, mut master, mut updated, mut locked) = (None, None, None, None, false);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(address) => mac = <[u8; 6]>::try_from(address).ok(),
                NeighbourAttribute::Vlan(identifier) => vlan = Some(identifier),
                NeighbourAttribute::Controller(index) => master = Some(index),
                NeighbourAttribute::CacheInfo(info) => updated = Some(info.updated / USER_TICKS),
                NeighbourAttribute::ExtFlags(flags) => locked = flags.contains(NeighbourExtFlags::Locked),
                _ => {}
            }
        }
        let header = message.header;
        let flags = [
            (header.flags.contains(NeighbourFlags::ExtLearned), "extern_learn"),
            (header.flags.contains(NeighbourFlags::Offloaded), "offload"),
            (header.flags.contains(NeighbourFlags::Sticky), "sticky"),
            (locked, "locked"),
        ];
        let state = match header.state {
            NeighbourState::Permanent => "permanent",
            NeighbourState::Noarp => "static",
            NeighbourState::Stale => "stale",
            _ => "",
        };
        Some(Self {
            mac: Mac(mac?),
            vlan,
            ifindex: header.ifindex,
            master: master?,
            state,
            flags: flags
                .into_iter()
                .filter_map(|(is_set, name)| is_set.then_some(name))
                .collect(),
            updated: updated.filter(|_| state.is_empty()).map(u64::from),
        })
    }
}

/// A connection to route netlink in the calling thread's network namespace.
pub struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What the kernel says by itself of devices that come, change and go.
pub struct Changes {
    messages: Pin<Box<dyn Stream<Item = ()> + Send>>,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Changes {
    /// Listens from now on, in the calling thread's network namespace. Needs a tokio runtime that runs on the thread.
    pub fn listen() -> Result<Self> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).at("route netlink", "listen")?;
        Ok(Self {
            messages: Box::pin(messages.map(drop)),
            connection: tokio::spawn(connection),
        })
    }

    /// Done when something has changed since the last time, or may have: what the kernel had no room to say counts too
    /// (`ENOBUFS`). Who waits looks at everything anew.
    pub async fn next(&mut self) -> Result<()> {
        let ended = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.messages
            .next()
            .await
            .ok_or_else(ended)
            .at("route netlink", "listen")?;
        while let Some(Some(())) = self.messages.next().now_or_never() {}
        Ok(())
    }
}

/// What kind of device this is, as far as it matters to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A tap: native XDP runs on it, and it takes native frames.
    Tap,
    /// Another Ethernet device: tcx only.
    Other,
}

/// A network device.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that the kernel reports"
)]
pub struct Link {
    /// Index in this network namespace.
    pub ifindex: u32,
    /// Name.
    pub name: String,
    /// Further names (`IFLA_ALT_IFNAME`), up to 127 bytes each.
    pub alternative_names: Vec<String>,
    /// Kind.
    pub kind: Kind,
    /// Whether it is an Ethernet device (`ARPHRD_ETHER`), and no loopback.
    pub ethernet: bool,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier.
    pub carrier: bool,
    /// Whether it is a Linux bridge.
    pub bridge: bool,
    /// What an administrator has noted of it (`IFLA_IFALIAS`).
    pub alias: Option<String>,
    /// Largest payload in bytes.
    pub mtu: u32,
    /// Index of the bridge, bond or switch that it is a port of.
    pub master: Option<u32>,
    /// Id of the XDP program that is attached.
    pub xdp_program: Option<u32>,
    /// Frames that the device has transmitted.
    pub tx_frames: u64,
    /// Frames that the device dropped on transmission.
    pub tx_dropped: u64,
    /// The device that this one lies on: a VLAN's or macvlan's lower device.
    lower: Option<u32>,
}

impl Netlink {
    /// Connects. Needs a tokio runtime that runs on the calling thread.
    pub fn connect() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().at("route netlink", "open a socket")?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    /// To ask for what is asked for in one place only.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Removes a device; one that is gone is removed.
    pub async fn remove(&self, link: &Link) -> Result<()> {
        match self.handle.link().del(link.ifindex).execute().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(()),
            removed => removed.at(&link.name, "remove"),
        }
    }

    /// Makes a Linux bridge of this address that is set up so.
    pub(crate) async fn add_bridge(
        &self,
        name: &str,
        address: [u8; 6],
        settings: Vec<InfoBridge>,
    ) -> Result<()> {
        let bridge = LinkBridge::new(name).address(address.to_vec());
        let bridge = settings
            .into_iter()
            .fold(bridge, LinkMessageBuilder::<LinkBridge>::append_info_data);
        self.handle
            .link()
            .add(bridge.build())
            .execute()
            .await
            .at(name, "make")
    }

    /// Takes a device's queueing discipline from it, whatever the default is.
    pub(crate) async fn remove_queue(&self, ifindex: u32) -> Result<()> {
        let object = "a queueing discipline";
        let mut message = TcMessage::with_index(ifindex.cast_signed());
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("noqueue".into()));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut answers = self.handle.clone().request(request).at(object, "ask for")?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload
                && error.code.is_some()
            {
                return Err(error.to_io()).at(object, "replace");
            }
        }
        Ok(())
    }

    /// All devices of the network namespace.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages = self.handle.link().get().execute();
        messages
            .map_ok(Link::from)
            .try_collect()
            .await
            .at("network devices", "list")
    }

    /// The device of this name, which may be an alternative one.
    pub async fn link(&self, name: &str) -> Result<Link> {
        let found = self.links().await?.into_iter().find(|link| link.is_called(name));
        found.ok_or_else(|| Error::NoDevice {
            name: name.to_owned(),
        })
    }

    /// The device of this index, if there is one.
    pub async fn link_at(&self, ifindex: u32) -> Result<Option<Link>> {
        let mut messages = self.handle.link().get().match_index(ifindex).execute();
        match messages.try_next().await {
            Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => Ok(None),
            found => Ok(found.at("a network device", "look up")?.map(Link::from)),
        }
    }

    /// Addresses that somebody may reach the host by, all but link-local ones, by the index of their device.
    pub async fn host_addresses(&self) -> Result<HashMap<u32, Vec<String>>> {
        let messages = self.handle.address().get().execute();
        let messages: Vec<_> = messages.try_collect().await.at("addresses", "list")?;
        let mut addresses = HashMap::<_, Vec<_>>::new();
        for message in messages {
            if message.header.scope == AddressScope::Link {
                continue;
            }
            let address = message
                .attributes
                .into_iter()
                .find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(address),
                    _ => None,
                });
            if let Some(address) = address {
                let of_device = addresses.entry(message.header.index).or_default();
                of_device.push(format!("{address}/{}", message.header.prefix_len));
            }
        }
        Ok(addresses)
    }

    /// What the forwarding databases of all Linux bridges hold.
    pub async fn bridge_entries(&self) -> Result<Vec<BridgeEntry>> {
        let request = self.handle.neighbours().get();
        let messages = request.set_address_family(AddressFamily::Bridge).execute();
        let messages: Vec<_> = messages.try_collect().await.at("forwarding databases", "list")?;
        Ok(messages.into_iter().filter_map(BridgeEntry::of).collect())
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let loopback = flags.contains(LinkFlags::Loopback);
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            alternative_names: Vec::new(),
            kind: Kind::Other,
            ethernet: message.header.link_layer_type == LinkLayerType::Ether && !loopback,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            bridge: false,
            alias: None,
            mtu: 0,
            master: None,
            xdp_program: None,
            tx_frames: 0,
            tx_dropped: 0,
            lower: None,
        };
        let mut veth = false;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::PropList(properties) => {
                    link.alternative_names = properties
                        .into_iter()
                        .filter_map(|property| match property {
                            Prop::AltIfName(name) => Some(name),
                            _ => None,
                        })
                        .collect();
                }
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(master) => link.master = Some(master),
                LinkAttribute::Link(lower) => link.lower = Some(lower),
                LinkAttribute::Carrier(carrier) => link.carrier = carrier != 0,
                LinkAttribute::Stats64(stats) => {
                    link.tx_frames = stats.tx_packets;
                    link.tx_dropped = stats.tx_dropped;
                }
                LinkAttribute::Xdp(xdp) => {
                    link.xdp_program = xdp.into_iter().find_map(|attribute| match attribute {
                        LinkXdp::ProgId(id) if id != 0 => Some(id),
                        _ => None,
                    });
                }
                LinkAttribute::LinkInfo(info) => {
                    for item in info {
                        match item {
                            LinkInfo::Kind(InfoKind::Tun) if link.ethernet => link.kind = Kind::Tap,
                            // IFLA_LINK of a veth is its peer, beside it and not below.
                            LinkInfo::Kind(InfoKind::Veth) => veth = true,
                            LinkInfo::Kind(InfoKind::Bridge) => link.bridge = true,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if veth {
            link.lower = None;
        }
        link
    }
}

/// The Linux bridge that a device is a port of, if it is one's.
pub fn bridge_of<'links>(links: &'links [Link], device: &Link) -> Option<&'links Link> {
    let master = device.master?;
    links.iter().find(|link| link.ifindex == master && link.bridge)
}

impl Link {
    /// Whether this is one of the device's names: they are one name space (`netdev_name_node_lookup`).
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alternative_names.iter().any(|other| other == name)
    }

    /// Whether this device lies on the one of this index, and so gets its frames from it.
    pub fn is_on(&self, ifindex: u32) -> bool {
        self.lower == Some(ifindex) && self.ifindex != ifindex
    }
}
