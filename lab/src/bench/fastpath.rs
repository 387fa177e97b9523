//! This project's programs at the ports of a Linux bridge, by the library that the commands use.

use anyhow::{Context, Result};
use bridge_common::{
    Hook,
    forwarding::Reason,
    port::{HookMode, flag},
};
use lab::Namespace;
use tapbridge::{
    fastpath::FastPath,
    kernel::netlink::Netlink,
    state::{DEFAULT_STATE, State},
};

use crate::testbed::datapath;

/// Of a bridge in a network namespace. It goes with the bpffs that this process has for itself.
pub struct Fastpath {
    fast: FastPath,
    /// By index.
    ports: Vec<(u32, String)>,
}

/// A port with the hooks that its frames meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHooks {
    pub ifname: String,
    /// First to last.
    pub hooks: Vec<&'static str>,
}

impl Fastpath {
    /// Attaches it to ports of the namespace's bridge.
    pub fn attach(host: &Namespace, hook: datapath::Hook, names: &[&str]) -> Result<Self> {
        let mode = match hook {
            datapath::Hook::Auto => HookMode::Auto,
            datapath::Hook::Xdp => HookMode::Xdp,
            datapath::Hook::Tcx => HookMode::Tcx,
        };
        host.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let links = runtime.block_on(async { Netlink::connect()?.links().await })?;
            let state = State::new(DEFAULT_STATE).lock()?;
            let mut fast = FastPath::open_or_create(&state)?;
            let mut ports = Vec::new();
            for name in names {
                let link = links.iter().find(|link| link.name == *name);
                let link = link.with_context(|| format!("{name}: no such device"))?;
                fast.attach(link, mode)?;
                ports.push((link.ifindex, link.name.clone()));
            }
            Ok(Self { fast, ports })
        })
    }

    /// Those that its ports have now.
    pub fn hooks(&self) -> Result<Vec<PortHooks>> {
        let ports = self.ports.iter().map(|(ifindex, ifname)| {
            let port = self.fast.port(*ifindex)?;
            let port = port.with_context(|| format!("{ifname} is not attached any more"))?;
            let has = |hook: &&Hook| **hook == Hook::Tcx || port.has(flag::XDP);
            Ok(PortHooks {
                ifname: ifname.clone(),
                hooks: Hook::ALL.iter().filter(has).map(|hook| hook.name()).collect(),
            })
        });
        ports.collect()
    }

    /// Which way frames went: what is timed may be the bridge.
    pub fn text(&self) -> Result<String> {
        let mut via = [0; Hook::ALL.len()];
        for (_, counters) in self.fast.paths()? {
            for hook in Hook::ALL {
                via[hook as usize] += counters.via[hook as usize].frames;
            }
        }
        let mut words: Vec<String> = Hook::ALL
            .iter()
            .map(|&hook| format!("{} via {}", via[hook as usize], hook.name()))
            .collect();
        let mut left = [0; Reason::COUNT];
        for (port, _) in &self.ports {
            let counters = self.fast.counters(*port)?;
            for (sum, count) in left.iter_mut().zip(counters.left[Hook::Tcx as usize]) {
                *sum += count;
            }
        }
        let reasons = Reason::ALL.iter().filter(|&&reason| left[reason as usize] > 0);
        words.extend(reasons.map(|&reason| format!("{} left ({})", left[reason as usize], reason.name())));
        Ok(words.join(", "))
    }
}
