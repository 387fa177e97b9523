//! What a service manager such as systemd is told (`sd_notify(3)`). Where there is none, nothing is.

use std::time::{Duration, Instant};

use sd_notify::{NotifyState, notify, watchdog_enabled};
use tapbridge::control::{Load, Notice};

/// Who started this process, and wants to know how it goes.
pub struct ServiceManager {
    /// How often it wants to hear that the process is not stuck.
    period: Option<Duration>,
    pinged: Instant,
    is_ready: bool,
    /// What it has been told last.
    load: Option<Load>,
}

impl ServiceManager {
    pub fn new() -> Self {
        Self {
            // Twice as often as it must be, as sd_watchdog_enabled(3) has it, and once more for the time between two.
            period: watchdog_enabled().map(|limit| limit / 3),
            pinged: Instant::now(),
            is_ready: false,
            load: None,
        }
    }

    /// Tells it what concerns it. That nobody listens is no reason to end.
    pub fn tell(&mut self, notice: &Notice) {
        match notice {
            Notice::Ready => {
                self.is_ready = true;
                let _ = notify(&[NotifyState::Ready]);
            }
            Notice::Reloading => {
                let now = NotifyState::monotonic_usec_now().ok();
                let states = [NotifyState::Reloading].into_iter().chain(now);
                let _ = notify(&states.collect::<Vec<_>>());
            }
            // Which ends the reloading.
            Notice::Following { .. } if self.is_ready => {
                self.load = None;
                let _ = notify(&[NotifyState::Ready]);
            }
            Notice::Rejected(_) => {
                let text = notice.to_string();
                let _ = notify(&[NotifyState::Ready, NotifyState::Status(&text)]);
            }
            Notice::Alive(load) => {
                if self.load != Some(*load) {
                    self.load = Some(*load);
                    let _ = notify(&[NotifyState::Status(&notice.to_string())]);
                }
                self.ping();
            }
            _ => {}
        }
    }

    fn ping(&mut self) {
        if self.period.is_some_and(|period| self.pinged.elapsed() >= period) {
            self.pinged = Instant::now();
            let _ = notify(&[NotifyState::Watchdog]);
        }
    }
}

/// `run` ends.
impl Drop for ServiceManager {
    fn drop(&mut self) {
        let _ = notify(&[NotifyState::Stopping]);
    }
}
