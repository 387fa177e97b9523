//! What is told of as it happens: records that the programs, and commands by a program, put into a ring buffer.

use crate::{forwarding::Reason, hook::Hook, port::INTERFACE_NAME};

/// Room for events that nobody has read yet, in bytes.
pub const EVENTS_BYTES: u32 = 1 << 16;

/// Reasons that are remembered as told, of all ports together.
pub const MAX_TOLD: u32 = 65_536;

/// For how many seconds no frame may have been left for a reason of the whole port until it is told of anew.
pub const SILENCE: u64 = 10;

/// Something that has happened to a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// When, in ns since boot (`CLOCK_BOOTTIME`).
    pub time: u64,
    /// The number of an [`EventKind`].
    pub kind: u32,
    /// Index of the port's device.
    pub ifindex: u32,
    /// Index of its bridge; 0 where that was not looked for.
    pub bridge: u32,
    /// See [`EventKind`].
    pub detail: u32,
    /// See [`EventKind`].
    pub cause: u32,
    /// Zero.
    pub reserved: u32,
    /// The device's name when it was attached, zero-terminated.
    pub name: [u8; INTERFACE_NAME],
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    /// A device was attached. `detail` are the port's [`flag`](crate::port::flag)s.
    Attached = 1,
    /// The hooks of a port have changed, for a [`Cause`]. `detail` are its flags.
    Hooks = 2,
    /// A port was detached, for a [`Cause`].
    Detached = 3,
    /// A [`Hook`], `cause`, has left the first frame of a port for a [`Reason`], `detail`.
    Left = 4,
    /// No frame of a port goes past its bridge, for a [`Reason`], `detail`: the first, or the first for ten seconds, was left.
    Stopped = 5,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Attached,
        Self::Hooks,
        Self::Detached,
        Self::Left,
        Self::Stopped,
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attached => "attached",
            Self::Hooks => "hook",
            Self::Detached => "detached",
            Self::Left => "left",
            Self::Stopped => "stopped",
        }
    }
}

/// Who or what has changed a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Cause {
    /// A user's command.
    Command = 0,
    /// `tapbridge run`, since the hooks did not fit the traffic.
    Cost = 1,
    /// `tapbridge run`, since vhost-net sends the port's frames.
    VhostNet = 2,
    /// The device is no more, or has left the network namespace.
    Gone = 3,
    /// A command that failed or was killed has been undone.
    Undone = 4,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 5] = [
        Self::Command,
        Self::Cost,
        Self::VhostNet,
        Self::Gone,
        Self::Undone,
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Cost => "cost",
            Self::VhostNet => Reason::VhostNet.name(),
            Self::Gone => "gone",
            Self::Undone => "undone",
        }
    }
}

impl Event {
    /// What has happened; none if this version does not know it.
    pub fn kind(&self) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|&kind| kind as u32 == self.kind)
    }

    /// Why something was changed.
    pub fn cause(&self) -> Option<Cause> {
        Cause::ALL.into_iter().find(|&cause| cause as u32 == self.cause)
    }

    /// Why a frame was left.
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL
            .into_iter()
            .find(|&reason| reason as u32 == self.detail)
    }

    /// By which hook it was left.
    pub fn hook(&self) -> Option<Hook> {
        Hook::ALL.into_iter().find(|&hook| hook as u32 == self.cause)
    }
}

/// What of a port has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Told {
    /// Index of the port's device.
    pub ifindex: u32,
    /// A [`Hook`].
    pub hook: u16,
    /// A [`Reason`], or [`Told::STOPPED`].
    pub reason: u16,
}

impl Told {
    /// Stands for all reasons that stop a port.
    pub const STOPPED: u16 = u16::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_stands_for_what_it_was_made_of() {
        for kind in EventKind::ALL {
            let event = Event {
                kind: kind as u32,
                ..Event::default()
            };
            assert_eq!(event.kind(), Some(kind));
        }
        for cause in Cause::ALL {
            let event = Event {
                cause: cause as u32,
                ..Event::default()
            };
            assert_eq!(event.cause(), Some(cause));
        }
        for reason in Reason::ALL {
            let event = Event {
                detail: reason as u32,
                ..Event::default()
            };
            assert_eq!(event.reason(), Some(reason));
        }
        let of_another_version = Event {
            kind: u32::MAX,
            detail: u32::MAX,
            cause: u32::MAX,
            ..Event::default()
        };
        assert_eq!(of_another_version.kind(), None);
        assert_eq!(of_another_version.reason(), None);
        assert_eq!(of_another_version.cause(), None);
        assert_eq!(of_another_version.hook(), None);
    }
}
