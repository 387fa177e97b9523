//! A switch with three taps on it, and stations known on each.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use lab::{Entered, Tap, netns, tap::IdleTap};
use tapbridge::common::{
    fdb::{FdbEntry, FdbKey},
    frame::Vlan,
    mac::Mac,
    port::{Ingress, Port, flag},
};

use crate::{
    packet::{DESTINATION, SOURCE, Tag, VLAN},
    shared::Shared,
    switch::{Frames, SECOND, Switch, now},
};

/// The slot that frames come in by.
pub const INGRESS: u32 = 0;
/// Slots with taps; the others are empty.
pub const TAPS: u32 = 3;

/// Stations known on the slots of their names.
pub const ON_0: Mac = Mac(SOURCE);
pub const ON_1: Mac = Mac(DESTINATION);
pub const ON_2: Mac = Mac([2, 0, 0, 0, 0, 0x12]);
/// A station that nobody has heard of.
pub const UNKNOWN: Mac = Mac([2, 0, 0, 0, 0, 0x99]);

/// The tags that frames of the tables have.
pub const TAGS: [Tag; 3] = [Tag::None, Tag::Customer, Tag::Service];

/// The broadcast domain of a tag.
fn domain(tag: Tag) -> Vlan {
    match tag {
        Tag::None => Vlan(0),
        Tag::Customer => Vlan::new(VLAN, false),
        Tag::Service => Vlan::new(VLAN, true),
    }
}

pub fn untagged(mac: Mac) -> FdbKey {
    FdbKey { mac, vlan: Vlan(0) }
}

/// The generation of the port in a slot.
pub const fn generation(slot: u32) -> u32 {
    10 + slot
}

/// A switch, its taps, and the network namespace that they are in, which is the calling thread's meanwhile.
pub struct Bench {
    pub switch: Shared,
    /// By slot; `None` where the VMM has exited or the device is gone.
    taps: Vec<Option<Tap>>,
    idle: Vec<IdleTap>,
    /// Whether the taps may not be as they were.
    changed: bool,
    _private: Entered,
}

impl Bench {
    pub fn new(frames: Frames) -> Self {
        Self::with(Shared::take(frames))
    }

    /// A bench whose switch no test has before or after.
    pub fn unshared(frames: Frames) -> Self {
        Self::with(Shared::unshared(frames))
    }

    fn with(switch: Shared) -> Self {
        let private = netns::enter_private().expect("a private namespace");
        let mut bench = Self {
            switch,
            taps: Vec::new(),
            idle: Vec::new(),
            changed: true,
            _private: private,
        };
        bench.reset();
        bench
    }

    /// Makes everything as it was in the beginning: taps in slots 0 to 2, each with a reader; one station learned on
    /// each, in every domain, just now; nothing counted.
    pub fn reset(&mut self) {
        if self.changed {
            self.idle.clear();
            self.taps.clear();
            let open = |slot| Tap::open(format!("vm{slot}")).expect("open a tap");
            self.taps.extend((0..TAPS).map(open).map(Some));
            self.changed = false;
        }
        let ifindexes: Vec<u32> = self.taps().map(|(_, tap)| tap.ifindex()).collect();
        fill(&mut self.switch, &ifindexes);
    }

    /// Another switch over the same taps, filled in the same way.
    pub fn another_switch(&self) -> Shared {
        let mut switch = Shared::take(Frames::Generic);
        let ifindexes: Vec<u32> = self.taps().map(|(_, tap)| tap.ifindex()).collect();
        fill(&mut switch, &ifindexes);
        switch
    }

    /// Changes something until the next [`Bench::reset`].
    pub fn change(&mut self, change: impl FnOnce(&mut Self)) {
        self.changed = true;
        change(self);
    }

    pub fn tap(&self, slot: u32) -> &Tap {
        self.taps[slot as usize].as_ref().expect("a tap with a reader")
    }

    /// All taps that have a reader, with their slots.
    pub fn taps(&self) -> impl Iterator<Item = (u32, &Tap)> {
        (0..)
            .zip(&self.taps)
            .filter_map(|(slot, tap)| Some((slot, tap.as_ref()?)))
    }

    /// The tap's reader goes, and with it the carrier.
    pub fn exit_vmm(&mut self, slot: u32) {
        let tap = self.taps[slot as usize].take().expect("a tap with a reader");
        let name = tap.name().to_owned();
        self.idle.push(tap.close().expect("close a tap"));
        // Until the kernel has told the news (`linkwatch_event`, up to a second), the device's state has a bit more.
        let deadline = Instant::now() + Duration::from_mins(1);
        while !is_known_to_be_down(&name) {
            assert!(Instant::now() < deadline, "{name} has not lost its carrier");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The device goes.
    pub fn remove_tap(&mut self, slot: u32) {
        self.taps[slot as usize] = None;
    }

    /// Changes a port and leaves its device where it is.
    pub fn change_port(&mut self, slot: u32, change: impl FnOnce(&mut Port)) {
        let mut port = self.switch.port(slot);
        change(&mut port);
        self.switch.ports.set(slot, port, 0).expect("write PORTS");
    }

    /// Makes an untagged address known on a slot, seen this long ago.
    pub fn learn(&mut self, mac: Mac, slot: u16, age: u64) {
        self.switch.learn(untagged(mac), entry(slot, age));
    }

    /// Makes the station on slot 1 known there under this tag, and on slot 2 under the others.
    pub fn separate(&mut self, tag: Tag) {
        for other in TAGS {
            let key = FdbKey {
                mac: ON_1,
                vlan: domain(other),
            };
            self.switch.learn(key, entry(if other == tag { 1 } else { 2 }, 0));
        }
    }

    /// Puts an untagged address on a slot for good.
    pub fn fix(&mut self, mac: Mac, slot: u16) {
        self.switch.fix(
            untagged(mac),
            FdbEntry {
                last_seen: 0,
                ..entry(slot, 0)
            },
        );
    }
}

/// Whether the kernel shows the device as operationally down.
fn is_known_to_be_down(device: &str) -> bool {
    let output = Command::new("ip").args(["link", "show", "dev", device]).output();
    String::from_utf8_lossy(&output.expect("run ip").stdout).contains("state DOWN")
}

fn fill(switch: &mut Switch, ifindexes: &[u32]) {
    switch.clear();
    for (slot, &ifindex) in (0..).zip(ifindexes) {
        let port = Port {
            ifindex,
            generation: generation(slot),
            flags: flag::ACTIVE | flag::NATIVE_TARGET | flag::XDP,
            ..Port::EMPTY
        };
        switch.set_port(slot, port);
        let ingress = Ingress {
            generation: generation(slot),
            slot,
        };
        switch.enter(ifindex, ingress);
    }
    for (slot, mac) in (0..).zip([ON_0, ON_1, ON_2]) {
        // Ahead of the clock, so that a test on a slow machine finds them as fresh as one on a fast one.
        let fresh = FdbEntry {
            last_seen: now() + 60 * SECOND,
            ..entry(slot, 0)
        };
        for vlan in TAGS.map(domain) {
            switch.learn(FdbKey { mac, vlan }, fresh);
        }
    }
}

/// An entry of the port in a slot, seen this long ago.
pub fn entry(slot: u16, age: u64) -> FdbEntry {
    // A machine that has just been started waits until it can have seen it.
    while now() <= age {
        thread::sleep(Duration::from_millis(100));
    }
    FdbEntry {
        last_seen: now() - age,
        generation: generation(slot.into()),
        slot,
        reserved: 0,
    }
}
