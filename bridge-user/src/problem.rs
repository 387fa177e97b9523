//! What has happened to a port behind our back, and the way out.

use std::collections::HashMap;

use bridge_common::{
    Hook,
    port::{Port, flag},
};
use serde::Serialize;

use crate::{
    bridge::Bridge,
    error::Result,
    link::LinkState,
    netlink::{Link, Netlink},
    port::{hooks, recorded_name},
};

/// Something that keeps a port from its work, or others from theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// "detached" or "unpinned": a program is attached no more. "replaced": the device is gone, and another has its name.
    /// "moved": it is in another network namespace. "returned": it was there. "master", "upper" or "address": somebody
    /// else waits for its frames.
    pub problem: &'static str,
    /// In words, with the way out.
    pub text: String,
}

/// Who else waits for a device's frames: there would be none for both.
pub(crate) struct Claim {
    /// See [`Problem::problem`].
    pub(crate) problem: &'static str,
    pub(crate) reason: String,
    /// The way out.
    pub(crate) next: String,
}

/// Devices as they are at one moment.
pub(crate) struct Devices {
    pub(crate) links: Vec<Link>,
    /// By which the host may be reached, by index of the device.
    addresses: HashMap<u32, Vec<String>>,
}

impl Devices {
    pub(crate) async fn list(netlink: &Netlink) -> Result<Self> {
        Ok(Self {
            links: netlink.links().await?,
            addresses: netlink.host_addresses().await?,
        })
    }

    /// The first of those who wait for this device's frames.
    pub(crate) fn claim(&self, link: &Link) -> Option<Claim> {
        if let Some(master) = link.master {
            let name = self.links.iter().find(|other| other.ifindex == master);
            let name = name.map_or_else(|| format!("device {master}"), |master| master.name.clone());
            return Some(Claim {
                problem: "master",
                reason: format!("already a port of {name}"),
                next: format!(
                    "take it out first with 'ip link set dev {} nomaster' (Open vSwitch: 'ovs-vsctl del-port')",
                    link.name
                ),
            });
        }
        if let Some(upper) = self.links.iter().find(|other| other.is_on(link.ifindex)) {
            return Some(Claim {
                problem: "upper",
                reason: format!("{} lies on it and would get no more frames", upper.name),
                next: format!("remove it first with 'ip link del dev {}'", upper.name),
            });
        }
        let addresses = self.addresses.get(&link.ifindex)?;
        Some(Claim {
            problem: "address",
            reason: format!(
                "the host has the address {} on it and could no longer be reached there",
                addresses.join(", ")
            ),
            next: "give the address to one end of a veth pair and attach the other end".into(),
        })
    }
}

impl Bridge<'_> {
    /// The hooks by which a port's frames should come to the programs and don't.
    pub(crate) fn broken_hooks(&self, slot: u32, port: &Port) -> Result<Vec<(Hook, LinkState)>> {
        let mut broken = Vec::new();
        // An unfinished port is what a killed command has left: the next one undoes it.
        if port.has(flag::UNFINISHED) {
            return Ok(broken);
        }
        for hook in Hook::ALL {
            if hook == Hook::Xdp && !port.has(flag::XDP) {
                continue;
            }
            match self.link_state(slot, hook)? {
                LinkState::Attached(_) => {}
                state => broken.push((hook, state)),
            }
        }
        Ok(broken)
    }

    /// The hooks that a port's frames do meet, first to last, and all that is wrong with it. Of a port that a command is
    /// changing nothing is wrong.
    pub(crate) fn condition(
        &self,
        devices: &Devices,
        slot: u32,
        port: &Port,
    ) -> Result<(Vec<&'static str>, Vec<Problem>)> {
        let found = self.find_problems(devices, slot, port)?;
        let is_same = port.has(flag::ACTIVE) && self.port(slot)? == *port;
        Ok(if is_same {
            found
        } else {
            (hooks(port.flags), Vec::new())
        })
    }

    fn find_problems(
        &self,
        devices: &Devices,
        slot: u32,
        port: &Port,
    ) -> Result<(Vec<&'static str>, Vec<Problem>)> {
        let mut hooks = hooks(port.flags);
        let mut problems = Vec::new();
        let mut tell = |problem: &'static str, text: String| problems.push(Problem { problem, text });
        if !self.has_device(slot)? {
            let name = recorded_name(&port.name);
            let attach = format!("'tapbridge attach {name} --bridge {}'", self.name);
            let namesake = devices.links.iter().find(|link| link.name == name);
            match (self.link_state(slot, Hook::Tcx)?, namesake) {
                (LinkState::Attached(ifindex), Some(link)) if link.ifindex == ifindex => tell(
                    "returned",
                    format!(
                        "was in another network namespace meanwhile, and is no port since; {attach} makes it one again"
                    ),
                ),
                (_, Some(_)) => tell(
                    "replaced",
                    format!("is gone, and another device has its name; {attach} makes that one the port"),
                ),
                (LinkState::Attached(_), None) => tell(
                    "moved",
                    format!(
                        "is in another network namespace now, with the programs on it; 'tapbridge detach {name}' takes \
                         them off it, and {attach} makes it a port again once it is back"
                    ),
                ),
                (_, None) => {}
            }
            return Ok((hooks, problems));
        }
        let Some(link) = devices.links.iter().find(|link| link.ifindex == port.ifindex) else {
            return Ok((hooks, problems));
        };
        for (hook, state) in self.broken_hooks(slot, port)? {
            hooks.retain(|&name| name != hook.name());
            let (problem, how) = match state {
                LinkState::Unpinned => ("unpinned", "its pin was removed"),
                _ => ("detached", "somebody detached it"),
            };
            tell(
                problem,
                format!(
                    "has no {} program any more: {how}; 'tapbridge attach {} --bridge {}' attaches it again",
                    hook.name(),
                    link.name,
                    self.name
                ),
            );
        }
        if let Some(claim) = devices.claim(link) {
            let text = format!("can't be a port any more: {}; {}", claim.reason, claim.next);
            tell(claim.problem, text);
        }
        Ok((hooks, problems))
    }
}
