//! The Linux bridge that `attach` makes for devices that have none: an ordinary one that sends nothing by itself, is marked
//! as ours, and goes with its last port.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use crate::{
    error::{Context as _, Error, Result},
    kernel::{
        ioctl,
        netlink::{Link, Netlink},
        sysctl,
    },
};

/// What tells it from others: the alias, which `ip link` shows. The kernel takes no alias before a device is there, so
/// it has another name until then.
pub const MARK: &str = "made by tapbridge, goes with its last port";
const UNMARKED: &str = "tapbridge-new";

/// The bridge that a device becomes a port of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its index.
    pub ifindex: u32,
    /// Whether it was made for this.
    pub made: bool,
}

/// Whether a bridge is one that `attach` has made.
pub fn is_ours(link: &Link) -> bool {
    link.bridge && link.alias.as_deref() == Some(MARK)
}

/// What `dev_valid_name` refuses, and '%', which the kernel puts a number in for.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let is_good = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    if (1..=15).contains(&name.len()) && name.bytes().all(is_good) && !matches!(name, "." | "..") {
        return Ok(());
    }
    Err(Error::BadBridgeName {
        name: name.to_owned(),
    })
}

/// The bridge of this name, made if there is none. One that is somebody else's is used as it is.
pub async fn find_or_make(netlink: &Netlink, links: &[Link], name: &str) -> Result<Home> {
    check_name(name)?;
    match links.iter().find(|link| link.is_called(name)) {
        Some(link) if link.bridge => Ok(Home {
            ifindex: link.ifindex,
            made: false,
        }),
        Some(_) => Err(Error::NotABridge {
            name: name.to_owned(),
            next:
                "give another name with --bridge; 'ip -br link show type bridge' lists the bridges there are"
                    .into(),
        }),
        None => Ok(Home {
            ifindex: make(netlink, name).await?,
            made: true,
        }),
    }
}

/// Makes a bridge that has no address, answers no ARP, speaks no IPv6, and asks nobody for groups; spanning trees are off
/// anyway.
async fn make(netlink: &Netlink, name: &str) -> Result<u32> {
    // What a killed command has left.
    if let Some(link) = find(netlink, UNMARKED).await? {
        netlink.remove(&link).await?;
    }
    // An address of its own does not change as ports come and go (`br_stp_recalculate_bridge_id`).
    let bridge = LinkMessageBuilder::<LinkBridge>::new(UNMARKED)
        .address(station().to_vec())
        .arp(false)
        .mcast_snooping(false)
        .build();
    let handle = netlink.handle();
    handle
        .link()
        .add(bridge)
        .execute()
        .await
        .at(name, "make the bridge")?;
    let made = netlink.link(UNMARKED).await?;
    let finished = finish(netlink, &made, name).await;
    if finished.is_err() {
        let _ = netlink.remove(&made).await;
    }
    finished.map(|()| made.ifindex)
}

async fn finish(netlink: &Netlink, made: &Link, name: &str) -> Result<()> {
    let marked = LinkUnspec::new_with_index(made.ifindex).name(name).alias(MARK);
    let links = netlink.handle().link();
    links
        .set(marked.build())
        .execute()
        .await
        .at(name, "name the bridge")?;
    sysctl::disable_ipv6(name)?;
    let up = LinkUnspec::new_with_index(made.ifindex).up().build();
    netlink.handle().link().set(up).execute().await.at(name, "set up")
}

/// A random address that no vendor has.
fn station() -> [u8; 6] {
    let random = RandomState::new().build_hasher().finish().to_ne_bytes();
    let mut address = [0; 6];
    address.copy_from_slice(&random[..6]);
    address[0] = address[0] & !1 | 2;
    address
}

async fn find(netlink: &Netlink, name: &str) -> Result<Option<Link>> {
    match netlink.link(name).await {
        Err(Error::NoDevice { .. }) => Ok(None),
        found => found.map(Some),
    }
}

/// Removes bridges of ours that have no ports any more.
pub async fn remove_unused(netlink: &Netlink) -> Result<()> {
    let links = netlink.links().await?;
    for bridge in &links {
        let ours = is_ours(bridge) || bridge.bridge && bridge.name == UNMARKED;
        if ours && !links.iter().any(|link| link.master == Some(bridge.ifindex)) {
            netlink.remove(bridge).await?;
        }
    }
    Ok(())
}

/// Makes a device a port of a bridge.
pub fn take_in(device: &Link, bridge: u32) -> Result<()> {
    let take_in = || {
        let socket = ioctl::socket()?;
        ioctl::add_port(&socket, &ioctl::name(&socket, bridge)?, device.ifindex)
    };
    take_in().at(&device.name, "make it a port of the bridge")
}

/// Takes a device out of a bridge again. It may be in another one by now, and either may be gone.
pub fn release(ifindex: u32, bridge: u32) -> Result<()> {
    let socket = ioctl::socket().at("bridge ports", "open a socket")?;
    let Ok(name) = ioctl::name(&socket, bridge) else {
        return Ok(());
    };
    match ioctl::remove_port(&socket, &name, ifindex) {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::ENODEV | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(())
        }
        result => result.at(name, "take a port out of the bridge"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_refuses_are_refused_first() {
        for good in ["br0", "a", "br0.100", "tap-bridge_0", "fifteen-letters"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "br%d",
            "sixteen-letters-",
            "brücke",
            "a b",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_stations_that_nobody_else_has() {
        let (one, other) = (station(), station());
        assert_eq!(one[0] & 3, 2);
        assert_ne!(one, other);
    }
}
