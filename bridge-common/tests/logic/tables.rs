//! A bridge in memory, as the decision sees it.

use std::{cell::Cell, collections::BTreeMap};

use bridge_common::{
    decision::{Device, Tables},
    fdb::{FdbEntry, FdbKey},
    frame::Vlan,
    mac::Mac,
    port::{Ingress, Port, flag},
    recent::{Flow, Location},
};

use crate::packet::{DESTINATION, SOURCE};

pub const SECOND: u64 = 1_000_000_000;
pub const NOW: u64 = 1_000 * SECOND;
pub const AGEING: u64 = 300 * SECOND;

/// Stations on the slots of their names in [`FakeTables::usual`].
pub const ON_0: Mac = Mac(SOURCE);
pub const ON_1: Mac = Mac(DESTINATION);
/// A station that nobody has heard of.
pub const UNKNOWN: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

/// The port that frames come in by, in slot 0.
pub const INGRESS: Ingress = Ingress {
    generation: generation(0),
    slot: 0,
};

/// The generation of the port in a slot.
pub const fn generation(slot: u32) -> u32 {
    10 + slot
}

#[derive(Clone, Debug, Default)]
pub struct FakeTables {
    pub learned: BTreeMap<FdbKey, FdbEntry>,
    pub statics: BTreeMap<FdbKey, FdbEntry>,
    pub ports: Vec<Port>,
    /// By slot; `None` where the device is gone.
    pub devices: Vec<Option<FakeDevice>>,
    pub now: u64,
    /// The flow that was remembered last.
    pub recent: Cell<Option<(Flow, Location)>>,
}

#[derive(Clone, Copy, Debug)]
pub struct FakeDevice {
    pub state: Device,
    /// `None` if the device vanishes between the question for its state and the one for its MTU.
    pub mtu: Option<u32>,
}

impl FakeTables {
    /// Slots 0 to 2 hold ports, all up, slot 3 is empty; [`ON_0`] and [`ON_1`] were learned just now.
    pub fn usual() -> Self {
        let port = |slot| Port {
            ifindex: 100 + slot,
            generation: generation(slot),
            flags: flag::ACTIVE,
            ..Port::EMPTY
        };
        let device = FakeDevice {
            state: Device {
                up: true,
                carrier: true,
                queues: 1,
            },
            mtu: Some(1500),
        };
        let mut tables = Self {
            ports: vec![port(0), port(1), port(2), Port::EMPTY],
            devices: vec![Some(device), Some(device), Some(device), None],
            now: NOW,
            ..Self::default()
        };
        tables.learn(ON_0, 0, NOW);
        tables.learn(ON_1, 1, NOW);
        tables
    }

    /// Makes the untagged address known on a slot.
    pub fn learn(&mut self, mac: Mac, slot: u16, last_seen: u64) {
        self.learned.insert(untagged(mac), entry(slot, last_seen));
    }

    /// Puts the untagged address on a slot for good.
    pub fn fix(&mut self, mac: Mac, slot: u16) {
        self.statics.insert(untagged(mac), entry(slot, 0));
    }

    /// The learned entry of an untagged address.
    pub fn entry(&mut self, mac: Mac) -> &mut FdbEntry {
        self.learned.get_mut(&untagged(mac)).expect("a learned address")
    }

    /// The device in a slot.
    pub fn device(&mut self, slot: usize) -> &mut FakeDevice {
        self.devices[slot].as_mut().expect("a device")
    }
}

pub fn untagged(mac: Mac) -> FdbKey {
    FdbKey { mac, vlan: Vlan(0) }
}

pub fn entry(slot: u16, last_seen: u64) -> FdbEntry {
    FdbEntry {
        last_seen,
        generation: generation(slot.into()),
        slot,
        reserved: 0,
    }
}

impl Tables for FakeTables {
    fn now(&self) -> u64 {
        self.now
    }

    fn recall(&self, flow: &Flow) -> Option<Location> {
        let (recent, location) = self.recent.get()?;
        (recent == *flow).then_some(location)
    }

    fn remember(&self, flow: &Flow, location: Location) {
        self.recent.set(Some((*flow, location)));
    }

    fn learned(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.learned.get(key).copied()
    }

    fn static_entry(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.statics.get(key).copied()
    }

    fn port(&self, slot: u32) -> Option<Port> {
        self.ports.get(slot as usize).copied()
    }

    fn device(&self, slot: u32) -> Option<Device> {
        Some(self.devices.get(slot as usize)?.as_ref()?.state)
    }

    fn mtu(&self, slot: u32) -> Option<u32> {
        self.devices.get(slot as usize)?.as_ref()?.mtu
    }
}
