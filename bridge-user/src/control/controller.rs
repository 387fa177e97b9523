//! Looks at all ports again and again, and changes the hooks of those that they do not fit.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use bridge_common::hook_policy::CALM_INTERVAL;

use super::{notice::Notice, ports::Ports};
use crate::{
    error::{Error, Result},
    kernel::netlink::Netlink,
    state::State,
};

/// Who looks after the ports.
pub(super) struct HookController<'state> {
    state: &'state State,
    netlink: Netlink,
    ports: Ports,
    start: Instant,
    /// When it looked last, since `start`.
    last: Duration,
    /// Failures that were told of in this minute.
    told: (u64, BTreeSet<String>),
}

impl<'state> HookController<'state> {
    pub(super) fn new(state: &'state State, netlink: Netlink) -> Self {
        Self {
            state,
            netlink,
            ports: Ports::default(),
            start: Instant::now(),
            last: Duration::ZERO,
            told: (0, BTreeSet::new()),
        }
    }

    /// Looks at all ports once, unless they were calm a moment ago, and changes what is to be changed.
    pub(super) async fn tick(&mut self) -> Vec<Notice> {
        let now = self.start.elapsed();
        if self.ports.are_calm() && now.saturating_sub(self.last) < CALM_INTERVAL {
            return Vec::new();
        }
        let interval = now.saturating_sub(std::mem::replace(&mut self.last, now));
        let mut notices = Vec::new();
        if let Err(error) = self.adapt_ports(now, interval, &mut notices).await {
            notices.extend(self.failed(error, now));
        }
        notices
    }

    /// How many ports were attached when it looked last, by whomever.
    pub(super) fn attached(&self) -> usize {
        self.ports.attached()
    }

    async fn adapt_ports(
        &mut self,
        now: Duration,
        interval: Duration,
        notices: &mut Vec<Notice>,
    ) -> Result<()> {
        let folder = self.state.read()?;
        notices.extend(self.ports.find(folder.as_ref())?.map(Notice::Vanished));
        for wanted in self.ports.observe(now)? {
            // A command is at work: the next tick tells.
            let Some(locked) = self.state.lock_if_free()? else {
                return Ok(());
            };
            let changed = wanted.change(&locked, &self.netlink, interval).await;
            let Some(policy) = self.ports.policy(wanted.ifindex) else {
                continue;
            };
            match changed {
                Ok(Some(change)) => {
                    policy.changed(wanted.xdp, now);
                    notices.push(Notice::Changed(change));
                }
                // The port has gone or been changed by a command: the next tick tells.
                Ok(None) => {}
                Err(error) => {
                    policy.failed(now);
                    notices.extend(self.failed(error, now));
                }
            }
        }
        Ok(())
    }

    /// The same failure can come with every tick; once a minute is enough.
    fn failed(&mut self, error: Error, now: Duration) -> Option<Notice> {
        let minute = now.as_secs() / 60;
        if self.told.0 != minute {
            self.told = (minute, BTreeSet::new());
        }
        self.told
            .1
            .insert(error.to_string())
            .then_some(Notice::Failed(error))
    }
}
