//! `monitor`: changes of the forwarding database as they happen.
//!
//! The programs write a record for each new or moved address to their log's ring buffer while somebody reads it
//! ([`Config::log`](bridge_common::layout::Config)).

use std::{
    fs::{File, TryLockError},
    sync::{Arc, Mutex},
    time::Duration,
};

use aya::programs::ProgramInfo;
use aya_log::EbpfLogger;
use bridge_common::{frame::Vlan, layout::program};
use serde::Serialize;
use tokio::io::unix::AsyncFd;

use crate::{
    bridge::{Bridge, Reading},
    detach::name_of,
    error::{Context as _, Error, Result},
    netlink::Netlink,
    state::{Locked, State},
};

/// How often the monitor looks whether its bridge is still there.
const BRIDGE_CHECK: Duration = Duration::from_secs(1);

/// A change of the forwarding database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// "learned" or "moved".
    pub event: &'static str,
    /// The address.
    pub mac: String,
    /// Its VLAN identifier, none for untagged frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// "802.1ad" where the identifier is a service tag's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan_protocol: Option<&'static str>,
    /// The port that the address is on now.
    pub ifname: String,
    /// The bridge.
    pub master: String,
}

/// A record of the programs' log.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    moved: bool,
    slot: u32,
    vlan: Vlan,
    mac: String,
}

impl Record {
    /// Reads "0 3 5 52:54:00:12:34:56": whether it moved, slot, VLAN, address.
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let record = Self {
            moved: fields.next()? == "1",
            slot: fields.next()?.parse().ok()?,
            vlan: Vlan(fields.next()?.parse().ok()?),
            mac: fields.next()?.to_owned(),
        };
        fields.next().is_none().then_some(record)
    }
}

/// Takes the records from aya's reader.
#[derive(Clone, Default)]
struct Records(Arc<Mutex<Vec<Record>>>);

impl Records {
    fn take(&self) -> Vec<Record> {
        self.0
            .lock()
            .map(|mut records| std::mem::take(&mut *records))
            .unwrap_or_default()
    }
}

impl log::Log for Records {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if let (Some(record), Ok(mut records)) = (Record::parse(&record.args().to_string()), self.0.lock()) {
            records.push(record);
        }
    }

    fn flush(&self) {}
}

/// Calls `report` for every change in the bridge until `report` fails, `end` is done or the bridge is gone.
pub async fn monitor<E: From<Error>>(
    state: &State,
    name: &str,
    end: impl Future<Output = ()>,
    mut report: impl FnMut(Event) -> Result<(), E>,
) -> Result<(), E> {
    let no_bridge = || Error::NoBridge {
        name: name.to_owned(),
    };
    let bridge = Reading::open(&state.read()?.ok_or_else(no_bridge)?, name)?;
    let _only = only_reader(&bridge)?;
    let result = read(state, &bridge, end, &mut report).await;
    // Nobody waits for a command at work to say that nobody listens any more: as after a monitor that was killed, the
    // next one finds records that it throws away.
    if let Some(locked) = state.lock_if_free()? {
        match set_log(&locked, name, false) {
            Err(Error::NoBridge { .. }) => {}
            off => off?,
        }
    }
    result
}

/// A ring buffer has one reader: two would get half of the records each.
fn only_reader(bridge: &Reading) -> Result<File> {
    let folder = File::open(&bridge.folder).at(bridge.folder.display(), "open the bridge's folder")?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(Error::Monitored {
            bridge: bridge.name.clone(),
        }),
        Err(TryLockError::Error(error)) => Err(error).at(bridge.folder.display(), "lock"),
    }
}

async fn read<E: From<Error>>(
    state: &State,
    bridge: &Reading,
    end: impl Future<Output = ()>,
    report: &mut impl FnMut(Event) -> Result<(), E>,
) -> Result<(), E> {
    let netlink = Netlink::connect()?;
    let info =
        ProgramInfo::from_pin(bridge.folder.join(program::XDP)).at(&bridge.name, "open the XDP program")?;
    let records = Records::default();
    let mut logger =
        EbpfLogger::init_from_id_with_logger(info.id(), records.clone()).at(&bridge.name, "open the log")?;
    // A monitor that was killed may have left records that nobody waits for any more.
    logger.flush();
    records.take();
    // SAFETY: the logger owns the ring buffer's descriptor and keeps it for as long as it lives.
    let logger = unsafe { AsyncFd::register(logger) };
    let mut logger = logger
        .map_err(|error| error.into_parts().1)
        .at(&bridge.name, "wait for the log")?;
    let no_bridge = || Error::NoBridge {
        name: bridge.name.clone(),
    };
    set_log(&state.lock_existing()?.ok_or_else(no_bridge)?, &bridge.name, true)?;
    let mut end = std::pin::pin!(end);
    let mut check = tokio::time::interval(BRIDGE_CHECK);
    loop {
        tokio::select! {
            () = &mut end => return Ok(()),
            _ = check.tick() => {
                if !bridge.folder.exists() {
                    return Ok(());
                }
            }
            ready = logger.readable_mut() => {
                let mut ready = ready.at(&bridge.name, "wait for the log")?;
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }
        let records = records.take();
        if records.is_empty() {
            continue;
        }
        let links = netlink.links().await?;
        for record in records {
            let port = bridge.port(record.slot)?;
            let gone = !bridge.has_device(record.slot)?;
            report(Event {
                event: if record.moved { "moved" } else { "learned" },
                mac: record.mac,
                vlan: Some(record.vlan.identifier()).filter(|&identifier| identifier != 0),
                vlan_protocol: record.vlan.is_service().then_some("802.1ad"),
                ifname: name_of(&port, &links, gone),
                master: bridge.name.clone(),
            })?;
        }
    }
}

/// Lets the programs write to the log, or not.
fn set_log(state: &Locked, name: &str, on: bool) -> Result<()> {
    let mut bridge = Bridge::open(state, name)?;
    let mut config = bridge.config()?;
    config.log = u32::from(on);
    bridge.set_config(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_the_programs_write_them() {
        let record = Record {
            moved: true,
            slot: 3,
            vlan: Vlan(5),
            mac: "52:54:00:12:34:56".into(),
        };
        assert_eq!(Record::parse("1 3 5 52:54:00:12:34:56"), Some(record));
        for wrong in [
            "",
            "1 3 5",
            "1 x 5 52:54:00:12:34:56",
            "1 3 5 52:54:00:12:34:56 7",
        ] {
            assert_eq!(Record::parse(wrong), None, "{wrong}");
        }
    }
}
