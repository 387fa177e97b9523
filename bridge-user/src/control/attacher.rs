//! Attaches what the configuration asks for, as devices come.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use bridge_common::{
    fastpath::Port,
    port::{HookMode, flag},
};
use serde::Serialize;

use super::notice::Notice;
use crate::{
    config::{Config, Rule},
    error::{Error, Result},
    fastpath::FastPath,
    kernel::netlink::{Kind, Link, Netlink, bridge_of},
    operations::attach::{Options, attach},
    state::State,
};

/// After this time it is tried again to attach a device that could not be.
const RETRY: Duration = Duration::from_secs(10);

/// A configuration that is followed, and its file.
#[derive(Clone, Debug)]
pub struct Followed {
    /// Where it is read again from.
    pub path: PathBuf,
    /// What it asks for.
    pub config: Config,
}

/// What the configuration asks for that is not so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The device.
    pub ifname: String,
    /// The bridge that it is a port of, or becomes one of.
    pub master: String,
    /// "attach" or "change".
    pub action: &'static str,
    /// Who chooses its hooks then: "auto", "xdp" or "tcx"; none if that stays, or is the default's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<&'static str>,
    /// Whether no rule of netfilter is meant for frames between such ports then; none if that stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bypass_netfilter: Option<bool>,
}

/// What would be done if this configuration were followed now.
pub async fn plan(state: &State, config: &Config) -> Result<Vec<Step>> {
    let links = Netlink::connect()?.links().await?;
    let ports = attached(state)?;
    Ok(missing(config, &links, &ports)
        .map(|(device, rule)| step(device, rule, &links, ports.contains_key(&device.ifindex)))
        .collect())
}

/// The ports that are attached.
fn attached(state: &State) -> Result<BTreeMap<u32, Port>> {
    let Some(folder) = state.read()? else {
        return Ok(BTreeMap::new());
    };
    let ports = FastPath::open(&folder)?.map_or(Ok(Vec::new()), |fast| fast.ports())?;
    Ok(ports
        .into_iter()
        .filter(|(_, port)| port.has(flag::ACTIVE))
        .collect())
}

/// Devices that are not as a rule asks for, each with its rule.
fn missing<'all>(
    config: &'all Config,
    links: &'all [Link],
    ports: &'all BTreeMap<u32, Port>,
) -> impl Iterator<Item = (&'all Link, &'all Rule)> {
    let wanted = links
        .iter()
        .filter_map(|device| Some((device, config.rule_for(device, links)?)));
    wanted.filter(|(device, rule)| {
        ports.get(&device.ifindex).is_none_or(|port| {
            let other_hook = rule.hook.is_some_and(|hook| hook != port.hook_mode());
            let other_rules = rule
                .bypass_netfilter
                .is_some_and(|bypass| bypass != port.has(flag::BYPASS_NETFILTER));
            other_hook && device.kind == Kind::Tap || other_rules
        })
    })
}

fn step(device: &Link, rule: &Rule, links: &[Link], is_attached: bool) -> Step {
    let bridge = bridge_of(links, device);
    Step {
        ifname: device.name.clone(),
        master: bridge.map_or(rule.name(), |bridge| &bridge.name).to_owned(),
        action: if is_attached { "change" } else { "attach" },
        hook: rule.hook.filter(|_| device.kind == Kind::Tap).map(HookMode::name),
        bypass_netfilter: rule.bypass_netfilter,
    }
}

impl Rule {
    fn options(&self) -> Options {
        Options {
            bridge: self.make.then(|| self.name().to_owned()),
            hook: self.hook,
            masters: Vec::new(),
            bypass_netfilter: self.bypass_netfilter,
        }
    }
}

/// Who follows the configuration.
pub(super) struct Attacher<'state> {
    state: &'state State,
    netlink: Netlink,
    followed: Followed,
    /// Something is to be done that could not be: a command was at work.
    pending: bool,
    /// Devices that could not be attached, by index, and when that is tried again.
    refused: BTreeMap<u32, Instant>,
    /// What went wrong last with each of these, which is told once; at 0, with all of them.
    told: BTreeMap<u32, String>,
}

impl<'state> Attacher<'state> {
    pub(super) fn new(state: &'state State, netlink: Netlink, followed: Followed) -> Self {
        Self {
            state,
            netlink,
            followed,
            pending: true,
            refused: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    /// Reads the configuration anew; if that fails what it said before stays.
    pub(super) fn reload(&mut self) -> Notice {
        let path = &self.followed.path;
        match Config::read(path)
            .and_then(|config| config.ok_or_else(|| Error::NoConfig { path: path.clone() }))
        {
            Err(error) => Notice::Failed(error),
            Ok(config) => {
                self.followed.config = config;
                self.refused.clear();
                self.told.clear();
                self.pending = true;
                self.following()
            }
        }
    }

    /// Says what is followed.
    pub(super) fn following(&self) -> Notice {
        Notice::Following {
            path: self.followed.path.clone(),
            rules: self.followed.config.bridges.len(),
        }
    }

    /// Whether it is time to look although nothing has changed.
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        self.pending || self.refused.values().any(|retry| *retry <= now)
    }

    /// Attaches what is missing.
    pub(super) async fn follow(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        let now = Instant::now();
        let mut refused = BTreeMap::new();
        self.pending = match self.attach_missing(now, &mut refused, &mut notices).await {
            Ok(is_done) => !is_done,
            // What is pinned could not be read, or the devices not be listed.
            Err(error) => {
                refused.insert(0, error);
                true
            }
        };
        self.refused.retain(|_, retry| *retry > now);
        for (ifindex, error) in refused {
            if ifindex != 0 {
                self.refused.insert(ifindex, now + RETRY);
            }
            let text = error.to_string();
            if self.told.insert(ifindex, text.clone()) != Some(text) {
                notices.push(Notice::Failed(error));
            }
        }
        for notice in &notices {
            if let Notice::Attached(attached) = notice {
                self.told.remove(&attached.ifindex);
            }
        }
        notices
    }

    /// Whether all was tried: not while a command is at work.
    async fn attach_missing(
        &self,
        now: Instant,
        refused: &mut BTreeMap<u32, Error>,
        notices: &mut Vec<Notice>,
    ) -> Result<bool> {
        let links = self.netlink.links().await?;
        let ports = attached(self.state)?;
        let mut batches = Vec::<(&Rule, Vec<&Link>)>::new();
        let is_to_wait = |device: &Link| {
            self.refused
                .get(&device.ifindex)
                .is_some_and(|retry| *retry > now)
        };
        for (device, rule) in missing(&self.followed.config, &links, &ports) {
            if is_to_wait(device) {
                continue;
            }
            match batches.iter_mut().find(|(other, _)| std::ptr::eq(*other, rule)) {
                Some((_, devices)) => devices.push(device),
                None => batches.push((rule, vec![device])),
            }
        }
        for (rule, devices) in batches {
            // Together, which is faster; and one by one if that fails, so that one does not keep the others from it.
            let Some(result) = self.try_attach(&devices, rule).await? else {
                return Ok(false);
            };
            match result {
                Ok(told) => notices.extend(told),
                Err(_) if devices.len() > 1 => {
                    for device in devices {
                        let Some(result) = self.try_attach(&[device], rule).await? else {
                            return Ok(false);
                        };
                        settle(device, result, refused, notices);
                    }
                }
                Err(error) => settle(devices[0], Err(error), refused, notices),
            }
        }
        Ok(true)
    }

    /// Attaches devices; none if a command is at work.
    async fn try_attach(&self, devices: &[&Link], rule: &Rule) -> Result<Option<Result<Vec<Notice>>>> {
        let Some(locked) = self.state.lock_now()? else {
            return Ok(None);
        };
        let names: Vec<String> = devices.iter().map(|device| device.name.clone()).collect();
        let attachment = attach(&locked, &names, &rule.options(), |_, _| ()).await;
        Ok(Some(attachment.map(|attachment| {
            let ports = attachment.ports.into_iter().filter(|port| port.changed);
            ports.map(Notice::Attached).collect()
        })))
    }
}

/// Tells what became of a device, and notes if it was refused.
fn settle(
    device: &Link,
    result: Result<Vec<Notice>>,
    refused: &mut BTreeMap<u32, Error>,
    notices: &mut Vec<Notice>,
) {
    match result {
        Ok(told) => notices.extend(told),
        // It is told of when it is there again.
        Err(Error::WentAway { .. } | Error::NoDevice { .. }) => {}
        Err(error) => {
            refused.insert(device.ifindex, error);
        }
    }
}
