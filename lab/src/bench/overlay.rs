//! Two hosts that a network connects, and on each a VXLAN device that leads to the other one's.

use anyhow::Result;
use lab::Namespace;

use crate::testbed::datapath::ip;

/// The VXLAN device of either host, a port of its bridge.
pub const NAME: &str = "vxlan";
/// Either host's end of the veth that is the network.
const NETWORK: &str = "network";
const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

/// Connects two hosts; their VXLAN devices are up.
pub fn connect(hosts: [&Namespace; 2]) -> Result<()> {
    let [first, second] = hosts;
    let peer = second.handle_path().display().to_string();
    let veth = ["type", "veth", "peer", "name", NETWORK, "netns", &peer];
    ip(first, &[&["link", "add", NETWORK], &veth[..]].concat())?;
    for (number, host) in hosts.into_iter().enumerate() {
        let (own, other) = (ADDRESSES[number], ADDRESSES[1 - number]);
        ip(host, &["address", "add", &format!("{own}/24"), "dev", NETWORK])?;
        ip(host, &["link", "set", "dev", NETWORK, "up"])?;
        let tunnel = ["type", "vxlan", "id", "42", "dstport", "4789"];
        let ends = ["local", own, "remote", other, "dev", NETWORK];
        ip(host, &[&["link", "add", NAME], &tunnel[..], &ends[..]].concat())?;
        ip(host, &["link", "set", "dev", NAME, "up"])?;
    }
    Ok(())
}
