//! `stats`: what the programs counted, and what the kernel dropped after they had done their part.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use bridge_common::{
    Hook,
    counters::{DetachedPaths, DropReason, PassReason, PathCounters, PortCounters, Traffic},
    port::Port,
};
use serde::Serialize;

use crate::{
    bridge::{Bridge, Unreadable},
    detach::name_of,
    error::{Context as _, Result},
    fastpath::statistics,
    netlink::Link,
    sys::sums,
};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// The drop reason that no program counts: the device took the frame from the switch and dropped it, for a tap
/// because its ring was full.
pub const EGRESS_RING_FULL: &str = "egress_ring_full";

/// Statistics of some bridges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Sorted by name.
    pub bridges: Vec<BridgeStatistics>,
    /// Linux bridges with ports that are attached, sorted by name.
    pub accelerated: Vec<statistics::BridgeStatistics>,
    /// What can't be read, sorted by name.
    pub unreadable: Vec<Unreadable>,
}

/// Statistics of a bridge, since each of its ports was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BridgeStatistics {
    /// The bridge.
    pub bridge: String,
    /// In order of slots.
    pub ports: Vec<PortStatistics>,
    /// Paths that frames have taken, in order of slots.
    pub paths: Vec<PathStatistics>,
}

/// Frames and octets; a GSO frame counts as one, octets go from the destination address to the end of the payload,
/// VLAN tags included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Octets.
    pub bytes: u64,
}

impl From<Traffic> for Count {
    fn from(traffic: Traffic) -> Self {
        Self {
            frames: traffic.frames,
            bytes: traffic.bytes,
        }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// Statistics of a port.
///
/// `rx.frames` = `forwarded.frames` + `flooded.frames` + Σ `dropped` without `egress_ring_full`. That one counts
/// frames of `tx` that were lost on their way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortStatistics {
    /// The device.
    pub ifname: String,
    /// Frames that the switch received from the device.
    pub rx: Count,
    /// Frames that the switch sent to the device: forwarded to it and copies of flooded ones.
    pub tx: Count,
    /// Received frames that went to one port.
    pub forwarded: Count,
    /// What of `forwarded` and `tx` was with ports that have been detached since: no path tells of it any more.
    pub detached: DetachedStatistics,
    /// Received frames that went to every other port.
    pub flooded: Count,
    /// Times that XDP left a frame to tcx.
    pub passed_up: u64,
    /// The same by reason ([`PassReason::name`]); reasons without any are left out.
    pub passed_up_by_reason: BTreeMap<&'static str, u64>,
    /// Partial checksums that XDP completed.
    pub checksums_completed: u64,
    /// Received frames that native XDP can't take: GSO, or longer than a page has room for.
    pub bulk: Count,
    /// Received frames that carried several segments.
    pub gso_frames: u64,
    /// Addresses that were new.
    pub learned: u64,
    /// Addresses that came from another port.
    pub moved: u64,
    /// Copies of flooded frames that the kernel could not make, or not cut into segments for this device. The latter are
    /// in `tx` and in what the device dropped.
    pub flood_errors: u64,
    /// Lost frames by reason; reasons without any are left out.
    pub dropped: BTreeMap<&'static str, u64>,
}

/// What a port has exchanged with ports that are no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DetachedStatistics {
    /// Part of [`PortStatistics::forwarded`].
    pub forwarded: Count,
    /// Part of [`PortStatistics::tx`].
    pub tx: Count,
}

/// Statistics of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathStatistics {
    /// The port that the frames came in by.
    pub from: String,
    /// The port that they left by.
    pub to: String,
    /// The hook that forwarded them.
    pub via: &'static str,
    /// Frames.
    pub frames: u64,
    /// Octets.
    pub bytes: u64,
}

/// How long a reading is put off while a command moves counters. It takes a millisecond for each port that is detached.
const SETTLING: Duration = Duration::from_secs(2);
const SETTLING_POLL: Duration = Duration::from_millis(5);

impl Bridge<'_> {
    /// Sums the counters of all CPUs.
    pub fn statistics(&self, links: &[Link]) -> Result<BridgeStatistics> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let before = self.config()?.settling;
            let statistics = self.read_statistics(links)?;
            let settled = before % 2 == 0 && self.config()?.settling == before;
            // A command that was killed amid of it leaves it as it is until the next one.
            if settled || Instant::now() > deadline {
                return Ok(statistics);
            }
            thread::sleep(SETTLING_POLL);
        }
    }

    fn read_statistics(&self, links: &[Link]) -> Result<BridgeStatistics> {
        let mut names = Vec::new();
        for (slot, port) in self.occupied()? {
            let gone = !self.has_device(slot)?;
            names.push((slot, port, name_of(&port, links, gone), gone));
        }
        let mut paths = Vec::new();
        let mut forwarded = BTreeMap::<u32, Count>::new();
        let mut transmitted = BTreeMap::<u32, Count>::new();
        for (from, _, from_name, _) in &names {
            let row = self.paths_from(*from)?;
            for (to, _, to_name, _) in &names {
                let counters = row[*to as usize];
                for hook in Hook::ALL {
                    let count = Count::from(counters.via[hook as usize]);
                    if count.frames == 0 {
                        continue;
                    }
                    *forwarded.entry(*from).or_default() += count;
                    *transmitted.entry(*to).or_default() += count;
                    paths.push(PathStatistics {
                        from: from_name.clone(),
                        to: to_name.clone(),
                        via: hook.name(),
                        frames: count.frames,
                        bytes: count.bytes,
                    });
                }
            }
        }
        let mut ports = Vec::new();
        for (slot, port, name, gone) in names {
            let counters = self.counters(slot)?;
            let link = links.iter().find(|link| !gone && link.ifindex == port.ifindex);
            let detached = self.detached_paths(slot)?;
            let detached = DetachedStatistics {
                forwarded: detached.forwarded.into(),
                tx: detached.transmitted.into(),
            };
            let mut all_forwarded = forwarded.remove(&slot).unwrap_or_default();
            all_forwarded += detached.forwarded;
            let mut tx = transmitted.remove(&slot).unwrap_or_default();
            tx += detached.tx;
            tx += counters.flood_copies.into();
            ports.push(PortStatistics {
                ifname: name,
                rx: counters.received.into(),
                tx,
                forwarded: all_forwarded,
                detached,
                flooded: counters.flooded.into(),
                passed_up: counters.all_passed_up(),
                passed_up_by_reason: PassReason::ALL
                    .into_iter()
                    .map(|reason| (reason.name(), counters.passed_up[reason as usize]))
                    .filter(|&(_, count)| count != 0)
                    .collect(),
                checksums_completed: counters.checksums_completed,
                bulk: counters.bulk.into(),
                gso_frames: counters.gso,
                learned: counters.learned,
                moved: counters.moved,
                flood_errors: counters.flood_errors,
                dropped: drops(&counters, &port, link),
            });
        }
        Ok(BridgeStatistics {
            bridge: self.name.clone(),
            ports,
            paths,
        })
    }

    pub(crate) fn counters(&self, slot: u32) -> Result<PortCounters> {
        let values = self.port_counters.get(&slot, 0).at(&self.name, "read counters")?;
        let mut sum = PortCounters::default();
        values.iter().for_each(|value| sum += *value);
        Ok(sum)
    }

    pub(crate) fn detached_paths(&self, slot: u32) -> Result<DetachedPaths> {
        self.detached.get(&slot, 0).at(&self.name, "read counters")
    }

    /// Of all paths from a slot, by the slot that they lead to.
    pub(crate) fn paths_from(&self, slot: u32) -> Result<Vec<PathCounters>> {
        let slots = self.meta.max_ports;
        sums(&self.path_data, slot * slots, slots).at(&self.name, "read counters")
    }
}

fn drops(counters: &PortCounters, port: &Port, link: Option<&Link>) -> BTreeMap<&'static str, u64> {
    let counted = DropReason::ALL
        .into_iter()
        .map(|reason| (reason.name(), counters.dropped[reason as usize]));
    let ring_full = link.map_or(0, |link| {
        link.tx_dropped.saturating_sub(port.tx_dropped_at_attach)
    });
    counted
        .chain([(EGRESS_RING_FULL, ring_full)])
        .filter(|&(_, count)| count != 0)
        .collect()
}
