//! Attaches what the configuration asks for, as devices come.

use std::{
    collections::BTreeMap,
    mem,
    path::PathBuf,
    time::{Duration, Instant},
};

use bridge_common::{
    fastpath::Port,
    port::{HookMode, flag},
};
use serde::Serialize;

use super::{notice::Notice, status::Failing};
use crate::{
    config::{Config, Rule},
    error::{Error, Result},
    fastpath::FastPath,
    kernel::netlink::{Kind, Link, Netlink, bridge_of},
    operations::attach::{Gone, Options, attach_chosen},
    state::State,
};

/// How often all is looked at although nothing was told of: that a program was detached from tcx, nobody tells.
const LOOK: Duration = Duration::from_secs(10);
/// After this time it is tried again to attach a device that could not be, then after twice as long, and so on.
const RETRY: Duration = Duration::from_secs(10);
const LONGEST_RETRY: Duration = Duration::from_mins(10);
/// So many devices are attached before anything else is done, such as answering whoever asks: a second's work.
const BATCH: usize = 64;

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

/// What following a configuration comes to now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What would be done.
    pub steps: Vec<Step>,
    /// Names of rules that are about no device that is here now.
    pub idle: Vec<String>,
}

/// What would be done if this configuration were followed now.
pub async fn plan(state: &State, config: &Config) -> Result<Plan> {
    let links = Netlink::connect()?.links().await?;
    let ports = attached(state, true)?;
    let steps = missing(config, &links, &ports)
        .map(|(device, rule)| step(device, rule, &links, ports.contains_key(&device.ifindex)))
        .collect();
    let idle = config
        .bridges
        .iter()
        .filter(|rule| !links.iter().any(|device| config.is_for(rule, device, &links)));
    Ok(Plan {
        steps,
        idle: idle.map(|rule| rule.name().to_owned()).collect(),
    })
}

/// A port that is attached, and whether one of its programs is not any more.
type Attached = (Port, bool);

/// The ports that are attached, by index. Whether their programs are there is a matter of two files each.
fn attached(state: &State, with_programs: bool) -> Result<BTreeMap<u32, Attached>> {
    let open = state.read()?.map_or(Ok(None), |folder| FastPath::open(&folder))?;
    let Some(fast) = open else {
        return Ok(BTreeMap::new());
    };
    let mut ports = BTreeMap::new();
    for (ifindex, port) in fast.ports()? {
        if port.has(flag::ACTIVE) {
            let is_broken = with_programs && !fast.broken_hooks(ifindex, &port)?.is_empty();
            ports.insert(ifindex, (port, is_broken));
        }
    }
    Ok(ports)
}

/// Devices that are not as a rule asks for, each with its rule.
fn missing<'all>(
    config: &'all Config,
    links: &'all [Link],
    ports: &'all BTreeMap<u32, Attached>,
) -> impl Iterator<Item = (&'all Link, &'all Rule)> {
    let wanted = links
        .iter()
        .filter_map(|device| Some((device, config.rule_for(device, links)?)));
    wanted.filter(|(device, rule)| {
        ports.get(&device.ifindex).is_none_or(|(port, is_broken)| {
            let other_hook = rule.hook.is_some_and(|hook| hook != port.hook_mode());
            let other_rules = rule
                .bypass_netfilter
                .is_some_and(|bypass| bypass != port.has(flag::BYPASS_NETFILTER));
            // Its bridge has gone.
            let is_alone = device.master.is_none();
            *is_broken || is_alone || other_hook && device.kind == Kind::Tap || other_rules
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

/// What went wrong with a device, or with all.
struct Failure {
    /// 0 for all.
    ifindex: u32,
    ifname: Option<String>,
    error: Error,
}

impl Failure {
    fn of(device: &Link, error: Error) -> Self {
        Self {
            ifindex: device.ifindex,
            ifname: Some(device.name.clone()),
            error,
        }
    }

    fn of_all(error: Error) -> Self {
        Self {
            ifindex: 0,
            ifname: None,
            error,
        }
    }
}

/// A device that could not be attached.
struct Refused {
    ifname: Option<String>,
    /// Why, which is told once.
    text: String,
    /// When it is tried again.
    retry: Instant,
    /// How long after that.
    pause: Duration,
}

/// What a look has found.
struct Looked {
    /// Devices that are not as a rule asks for, or were not.
    missing: Vec<u32>,
    /// Whether there are more of them than are attached at once.
    more: bool,
}

/// Who follows the configuration.
pub(super) struct Attacher<'state> {
    state: &'state State,
    netlink: Netlink,
    followed: Followed,
    /// When all is looked at, whether something was told of or not.
    next: Instant,
    /// By index; at 0 what concerns all devices.
    refused: BTreeMap<u32, Refused>,
    gone: Gone,
}

impl<'state> Attacher<'state> {
    /// With the ports that are known to be gone.
    pub(super) fn new(state: &'state State, netlink: Netlink, followed: Followed, gone: Gone) -> Self {
        Self {
            state,
            netlink,
            followed,
            next: Instant::now(),
            refused: BTreeMap::new(),
            gone,
        }
    }

    /// Reads the configuration anew; if that fails what it said before stays.
    pub(super) fn reload(&mut self) -> Notice {
        let path = &self.followed.path;
        let config = Config::read(path)
            .and_then(|config| config.ok_or_else(|| Error::NoConfig { path: path.clone() }));
        match config {
            Err(error) => Notice::Rejected(error),
            Ok(config) => {
                self.followed.config = config;
                self.refused.clear();
                self.next = Instant::now();
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

    /// Whether it is time to look although nothing was told of.
    pub(super) fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    /// Attaches what is missing.
    pub(super) async fn follow(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        let now = Instant::now();
        if let Some(all) = self.refused.get(&0)
            && all.retry > now
        {
            self.next = all.retry;
            return notices;
        }
        // Nobody tells of a program that was taken off, so it is not looked for whenever something is told of.
        let with_programs = self.is_due();
        let mut failed = Vec::new();
        let mut gone = mem::take(&mut self.gone);
        let looked = self
            .attach_missing(now, with_programs, &mut gone, &mut failed, &mut notices)
            .await;
        self.gone = gone;
        if with_programs {
            self.next = now + LOOK;
        }
        match looked {
            Ok(Some(Looked { missing, more })) => {
                if more {
                    self.next = now;
                }
                let fails = failed.iter().any(|failure| failure.ifindex == 0);
                self.refused
                    .retain(|ifindex, _| missing.contains(ifindex) || *ifindex == 0 && fails);
            }
            // A command is at work: the next tick tells.
            Ok(None) => self.next = now,
            // What is pinned could not be read, or the devices not be listed.
            Err(error) => failed.push(Failure::of_all(error)),
        }
        for Failure {
            ifindex,
            ifname,
            error,
        } in failed
        {
            let before = self.refused.remove(&ifindex);
            let text = error.to_string();
            let pause = before
                .as_ref()
                .map_or(RETRY, |before| LONGEST_RETRY.min(2 * before.pause));
            // What concerns several is told once.
            let is_told =
                |notice: &Notice| matches!(notice, Notice::Failed(other) if other.to_string() == text);
            if before.is_none_or(|before| before.text != text) && !notices.iter().any(is_told) {
                notices.push(Notice::Failed(error));
            }
            let retry = now + pause;
            self.next = self.next.min(retry);
            let refused = Refused {
                ifname,
                text,
                retry,
                pause,
            };
            self.refused.insert(ifindex, refused);
        }
        notices
    }

    /// How many devices could not be attached.
    pub(super) fn failures(&self) -> usize {
        self.refused.len()
    }

    /// What could not be attached and why.
    pub(super) fn failing(&self) -> Vec<Failing> {
        let now = Instant::now();
        let mut failing: Vec<_> = self
            .refused
            .values()
            .map(|refused| Failing {
                ifname: refused.ifname.clone(),
                message: refused.text.clone(),
                retry: refused.retry.saturating_duration_since(now).as_secs(),
            })
            .collect();
        failing.sort_by(|one, other| one.ifname.cmp(&other.ifname));
        failing
    }

    /// Clears ports away whose devices are gone, or somewhere else; says whether it could: a command may be at work.
    async fn clear(&self, gone: &mut Gone) -> Result<bool> {
        let Some(locked) = self.state.lock_if_free()? else {
            return Ok(false);
        };
        if let Some(mut fast) = FastPath::open_current(&locked)? {
            // As they are now that nobody else attaches.
            gone.add(fast.reconcile(&self.netlink.links().await?)?);
        }
        Ok(true)
    }

    /// None while a command is at work.
    async fn attach_missing(
        &self,
        now: Instant,
        with_programs: bool,
        gone: &mut Gone,
        failed: &mut Vec<Failure>,
        notices: &mut Vec<Notice>,
    ) -> Result<Option<Looked>> {
        let links = self.netlink.links().await?;
        let ports = attached(self.state, with_programs)?;
        let is_here = |ifindex: &u32| links.iter().any(|link| link.ifindex == *ifindex);
        if !ports.keys().all(is_here) && !self.clear(gone).await? {
            return Ok(None);
        }
        // What is attached may have been changed since, and is remembered when it goes.
        let here = ports.iter().filter(|(ifindex, _)| is_here(ifindex));
        gone.forget(here.map(|(_, (port, _))| port));
        let mut all = Vec::new();
        if !with_programs {
            // Whether those still lack theirs is not known now.
            let refused = self.refused.keys();
            all.extend(refused.filter(|ifindex| ports.contains_key(ifindex)));
        }
        let (mut chosen, mut more) = (0, false);
        let mut batches = Vec::<(&Rule, Vec<&Link>)>::new();
        for (device, rule) in missing(&self.followed.config, &links, &ports) {
            all.push(device.ifindex);
            let refused = self.refused.get(&device.ifindex);
            if refused.is_some_and(|refused| refused.retry > now) {
                continue;
            }
            if chosen == BATCH {
                more = true;
                continue;
            }
            chosen += 1;
            match batches.iter_mut().find(|(other, _)| std::ptr::eq(*other, rule)) {
                Some((_, devices)) => devices.push(device),
                None => batches.push((rule, vec![device])),
            }
        }
        for (rule, devices) in batches {
            // Together, which is faster; and one by one if that fails, so that one does not keep the others from it.
            let Some(result) = self.try_attach(&devices, rule, gone).await? else {
                return Ok(None);
            };
            match result {
                Ok(told) => notices.extend(told),
                Err(error) if let [device] = devices[..] => settle(device, Err(error), failed, notices),
                Err(_) => {
                    for device in devices {
                        let Some(result) = self.try_attach(&[device], rule, gone).await? else {
                            return Ok(None);
                        };
                        settle(device, result, failed, notices);
                    }
                }
            }
        }
        Ok(Some(Looked { missing: all, more }))
    }

    /// Attaches devices, as far as the rule is still about them by then; none if a command is at work.
    async fn try_attach(
        &self,
        devices: &[&Link],
        rule: &Rule,
        gone: &mut Gone,
    ) -> Result<Option<Result<Vec<Notice>>>> {
        let Some(locked) = self.state.lock_now()? else {
            return Ok(None);
        };
        let config = &self.followed.config;
        let choose = |links: &[Link]| {
            let is_meant = |link: &Link| {
                let is_one = devices.iter().any(|device| device.ifindex == link.ifindex);
                is_one && config.is_for(rule, link, links)
            };
            Ok((0..links.len())
                .filter(|place| is_meant(&links[*place]))
                .collect())
        };
        let ports = attach_chosen(&locked, choose, &rule.options(), gone, |_, _| ()).await;
        Ok(Some(ports.map(|ports| {
            let changed = ports.into_iter().filter(|port| port.changed);
            changed.map(Notice::Attached).collect()
        })))
    }
}

/// Tells what became of a device, and notes that it was refused.
fn settle(device: &Link, result: Result<Vec<Notice>>, failed: &mut Vec<Failure>, notices: &mut Vec<Notice>) {
    match result {
        Ok(told) => notices.extend(told),
        // It is told of when it is there again.
        Err(Error::WentAway { .. } | Error::NoDevice { .. }) => {}
        Err(error) => failed.push(Failure::of(device, error)),
    }
}
