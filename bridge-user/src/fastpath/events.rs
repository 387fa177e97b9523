//! What the programs tell of as it happens, and what commands tell of by one of them.

use std::{
    os::fd::{AsFd as _, AsRawFd, RawFd},
    path::Path,
};

use aya::{
    maps::{HashMap, MapData, PerCpuArray},
    programs::SchedClassifier,
};
use bridge_common::{
    Hook,
    fastpath::{Event, Told, map, program},
    forwarding::Reason,
};

use super::{
    pins::{gone, pinned, pinned_data},
    scratch,
};
use crate::{
    error::{Context as _, Result},
    kernel::{
        bpf::{bytes, lacks_memory, when_refilled},
        ring::{Begin, Ring},
    },
};

/// Names of the maps.
pub(super) const MAPS: [&str; 3] = [map::EVENTS, map::EVENTS_LOST, map::TOLD];

/// The events of a network namespace, for one reader.
pub(crate) struct Events {
    pub(crate) ring: Ring<Event>,
    lost: PerCpuArray<MapData, u64>,
    lost_before: u64,
}

impl Events {
    /// How many events this reader will never see, since it last asked: there was no room, or it came too late.
    pub(crate) fn take_lost(&mut self) -> Result<u64> {
        let lost = self.lost_since_loaded()?;
        let without_room = lost - std::mem::replace(&mut self.lost_before, lost);
        Ok(without_room + self.ring.take_missed())
    }

    fn lost_since_loaded(&self) -> Result<u64> {
        let lost = self.lost.get(&0, 0).at(map::EVENTS_LOST, "read")?;
        Ok(lost.iter().sum())
    }
}

/// Readable when something has been told of.
impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

/// Opens the events of what is pinned here, for a reader.
pub(super) fn open(folder: &Path, begin: Begin) -> Result<Events> {
    let data = pinned_data(folder, map::EVENTS)?;
    let bytes = data.info().at(map::EVENTS, "read its size")?.max_entries();
    let fd = data.fd().as_fd().try_clone_to_owned().at(map::EVENTS, "open")?;
    let mut events = Events {
        ring: Ring::open(fd, bytes, begin).at(map::EVENTS, "map into memory")?,
        lost: pinned(folder, map::EVENTS_LOST)?,
        lost_before: 0,
    };
    if begin == Begin::Now {
        events.lost_before = events.lost_since_loaded()?;
    }
    Ok(events)
}

/// Tells of an event. Nothing is undone because nobody could be told.
pub(super) fn tell(folder: &Path, event: &Event) {
    let told = SchedClassifier::from_pin(folder.join(program::TELL))
        .at(program::TELL, "open the pinned program")
        .and_then(|program| scratch::run_alone(&program, bytes(event)));
    if let Err(error) = told {
        log::warn!(
            "device {}: nobody was told what has happened to it: {error}",
            event.ifindex
        );
    }
}

/// Takes over what other programs have told, so that it is no news again.
pub(super) fn take_over(folder: &Path, old: &Path) -> Result<()> {
    let before: HashMap<_, Told, u64> = pinned(old, map::TOLD)?;
    let mut told: HashMap<_, Told, u64> = pinned(folder, map::TOLD)?;
    for entry in &before {
        let (key, last) = entry.at(map::TOLD, "read")?;
        when_refilled(lacks_memory, || told.insert(key, last, 0)).at(map::TOLD, "take over")?;
    }
    Ok(())
}

/// Makes news of what has been told of a device of this index.
pub(super) fn forget(folder: &Path, ifindex: u32) -> Result<()> {
    let mut told: HashMap<_, Told, u64> = pinned(folder, map::TOLD)?;
    let reasons = (0_u16..).take(Reason::COUNT).chain([Told::STOPPED]);
    for reason in reasons {
        for hook in Hook::ALL {
            let key = Told {
                ifindex,
                hook: hook as u16,
                reason,
            };
            gone(told.remove(&key)).at(map::TOLD, "forget a port")?;
        }
    }
    Ok(())
}
