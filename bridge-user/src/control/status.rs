//! What `run` does, and has done lately, for whoever asks it.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::notice::{Load, Notice};
use crate::SCHEMA;

/// So many events are kept.
const KEPT: usize = 50;

/// What a `run` says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its process, in its own namespace of process ids.
    pub pid: u32,
    /// Version of its tapbridge.
    pub version: String,
    /// When it began: UTC, as in RFC 3339, whole seconds.
    pub since: String,
    /// What it follows; none if there is no configuration.
    pub config: Option<Configured>,
    /// Ports of this network namespace that are attached, by whomever.
    pub ports: usize,
    /// What the configuration asks for and could not be done, sorted by device.
    pub failing: Vec<Failing>,
    /// What it did last, up to 50 events, oldest first.
    pub last: Vec<Event>,
}

/// A configuration that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// The file.
    pub path: PathBuf,
    /// How many rules it has.
    pub rules: usize,
    /// When it was read, as [`Status::since`].
    pub read: String,
    /// Why the file could not be used when it was to be read again: what it said before is followed.
    pub rejected: Option<String>,
}

/// Something that could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// The device; none if it concerns all.
    pub ifname: Option<String>,
    /// Why.
    pub message: String,
    /// Seconds until it is tried again.
    pub retry: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, as [`Status::since`].
    pub time: String,
    /// What it was: "following", "rejected", "attached", "hook", "failed" or "vanished".
    pub event: String,
    /// In words.
    pub message: String,
}

/// What happened lately.
pub(super) struct Journal {
    since: SystemTime,
    config: Option<Configured>,
    load: Load,
    last: VecDeque<Event>,
}

/// As in RFC 3339, in UTC and whole seconds.
fn written(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            since: SystemTime::now(),
            config: None,
            load: Load::default(),
            last: VecDeque::with_capacity(KEPT),
        }
    }

    /// Keeps in mind what is told.
    pub(super) fn note(&mut self, notice: &Notice) {
        self.note_at(notice, SystemTime::now());
    }

    fn note_at(&mut self, notice: &Notice, now: SystemTime) {
        // Five times a second, and nothing to write.
        if let Notice::Alive(load) = notice {
            self.load = *load;
            return;
        }
        let time = written(now);
        match notice {
            Notice::Ready | Notice::Reloading | Notice::Alive(_) => return,
            Notice::Following { path, rules } => {
                self.config = Some(Configured {
                    path: path.clone(),
                    rules: *rules,
                    read: time.clone(),
                    rejected: None,
                });
            }
            Notice::Rejected(cause) => {
                if let Some(config) = &mut self.config {
                    config.rejected = Some(cause.to_string());
                }
            }
            Notice::Attached(_) | Notice::Changed(_) | Notice::Failed(_) | Notice::Vanished(_) => {}
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(Event {
            time,
            event: notice.event().to_owned(),
            message: notice.to_string(),
        });
    }

    /// All of it.
    pub(super) fn status(&self, failing: Vec<Failing>) -> Status {
        Status {
            schema: SCHEMA,
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: written(self.since),
            config: self.config.clone(),
            ports: self.load.ports,
            failing,
            last: self.last.iter().cloned().collect(),
        }
    }
}

impl Status {
    /// How long ago it began; none if the clock was set back since.
    pub fn age(&self) -> Option<Duration> {
        let since = humantime::parse_rfc3339(&self.since).ok()?;
        since.elapsed().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn rejected(number: usize) -> Notice {
        Notice::Rejected(Error::NoDevice {
            name: format!("tap{number}"),
        })
    }

    #[test]
    fn the_last_fifty_events_are_kept() {
        let mut journal = Journal::new();
        for number in 0..60 {
            journal.note_at(&rejected(number), SystemTime::UNIX_EPOCH);
            journal.note(&Notice::Alive(Load { ports: 7, failing: 0 }));
        }
        let status = journal.status(Vec::new());
        assert_eq!((status.ports, status.last.len()), (7, 50));
        let first = &status.last[0];
        assert_eq!(
            (first.time.as_str(), first.event.as_str()),
            ("1970-01-01T00:00:00Z", "rejected")
        );
        assert!(first.message.starts_with("tap10: "), "{}", first.message);
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }

    #[test]
    fn a_file_that_can_not_be_used_is_remembered_until_it_can() {
        let mut journal = Journal::new();
        let following = || Notice::Following {
            path: "f.toml".into(),
            rules: 2,
        };
        let rejected_config = |journal: &Journal| journal.status(Vec::new()).config.unwrap().rejected;
        journal.note(&following());
        assert_eq!(rejected_config(&journal), None);
        journal.note(&rejected(1));
        assert!(rejected_config(&journal).unwrap().starts_with("tap1: "));
        journal.note(&following());
        assert_eq!(rejected_config(&journal), None);
    }
}
