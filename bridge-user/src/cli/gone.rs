//! What only repeated `bridge` and `ip`, and is theirs now: each says which command does it.

use anyhow::{Error, anyhow};
use clap::Args;
use tapbridge::common::mac::Mac;

#[derive(Args)]
pub struct Set {
    /// Bridge to change
    #[arg(long, value_name = "NAME", default_value = "br0")]
    bridge: String,

    /// Seconds that a learned address lives without a frame from it
    #[arg(long, value_name = "SECONDS")]
    ageing_time: u64,
}

#[derive(Args)]
pub struct Address {
    /// Unicast MAC address, as 52:54:00:12:34:56
    #[arg(value_name = "MAC")]
    mac: Mac,

    /// VLAN, in a bridge that filters them
    #[arg(long, value_name = "ID")]
    vlan: Option<u16>,
}

fn instead(command: &str, next: &str) -> Error {
    anyhow!(
        "{command}: is no command any more, since the forwarding database is the bridge's own; use '{next}'"
    )
}

pub fn set(Set { bridge, ageing_time }: &Set) -> Error {
    // `IFLA_BR_AGEING_TIME` counts in hundredths of a second.
    let next = format!(
        "ip link set dev {bridge} type bridge ageing_time {}",
        ageing_time.saturating_mul(100)
    );
    instead("set", &next)
}

fn vlan(address: &Address) -> String {
    address
        .vlan
        .map(|vlan| format!(" vlan {vlan}"))
        .unwrap_or_default()
}

pub fn add(address: &Address, device: &str) -> Error {
    let next = format!(
        "bridge fdb add {} dev {device} master static{}",
        address.mac,
        vlan(address)
    );
    instead("fdb add", &next)
}

pub fn del(address: &Address) -> Error {
    let next = format!(
        "bridge fdb del {} dev IFACE master{}' with the port that 'bridge fdb show",
        address.mac,
        vlan(address)
    );
    anyhow!(
        "fdb del: is no command any more, since the forwarding database is the bridge's own; use '{next}' names"
    )
}

pub fn flush(device: Option<&str>, bridge: Option<&str>) -> Error {
    let next = match (device, bridge) {
        (Some(device), _) => format!("bridge fdb flush dev {device} master"),
        (None, bridge) => format!("bridge fdb flush dev {}", bridge.unwrap_or("br0")),
    };
    instead("fdb flush", &next)
}
