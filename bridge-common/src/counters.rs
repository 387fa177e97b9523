//! What the programs count, per CPU.

use crate::Hook;

/// Why the switch did not forward a frame that a port received.
///
/// As wide as a register: a narrower one would be widened where a verdict may hold something else, which the verifier
/// refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum DropReason {
    /// The frame ends before its Ethernet header does.
    TooShort = 0,
    /// The source is a group address or zero.
    InvalidSource = 1,
    /// The destination is a link-local group (01:80:C2:00:00:00–0F).
    LinkLocalGroup = 2,
    /// The port that the frame came in by is down.
    IngressDown = 3,
    /// The destination is on the port that the frame came in by.
    SamePort = 4,
    /// The destination's port is down.
    EgressDown = 5,
    /// The destination's port has no carrier: nobody reads the tap.
    EgressNoCarrier = 6,
    /// The frame is larger than the destination port's MTU and is not GSO.
    EgressMtu = 7,
    /// The frame was to be flooded and no other port is up.
    NoOtherPort = 8,
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 9] = [
        Self::TooShort,
        Self::InvalidSource,
        Self::LinkLocalGroup,
        Self::IngressDown,
        Self::SamePort,
        Self::EgressDown,
        Self::EgressNoCarrier,
        Self::EgressMtu,
        Self::NoOtherPort,
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::InvalidSource => "invalid_source",
            Self::LinkLocalGroup => "link_local_group",
            Self::IngressDown => "ingress_down",
            Self::SamePort => "same_port",
            Self::EgressDown => "egress_down",
            Self::EgressNoCarrier => "egress_no_carrier",
            Self::EgressMtu => "egress_mtu",
            Self::NoOtherPort => "no_other_port",
        }
    }
}

/// Why XDP left a frame to tcx, which carries every frame that the switch takes.
///
/// As wide as a register, like [`DropReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum PassReason {
    /// The frame is an skb already: GSO, longer than a page has room for, or written in a way that native XDP does not
    /// take (`tun_can_build_skb`).
    Generic = 0,
    /// It is no known unicast, or is to be dropped, or is too long by its tag alone: tcx floods, drops and counts.
    NotForwarded = 1,
    /// The target takes no native frames: it is no tap.
    Target = 2,
    /// The frame does not prove that it is complete without its metadata, or can't be completed.
    Checksum = 3,
    /// vhost-net sent it, in a batch in which a native redirect is overtaken by what XDP passes.
    VhostNet = 4,
    /// The target has several queues: a native redirect chooses one by CPU (`tun_xdp_xmit`), all else by flow
    /// (`tun_select_queue`).
    TargetQueues = 5,
    /// Receive packet steering is set on the port: what XDP passes may change the CPU and is overtaken by what it
    /// redirects (`get_rps_cpu`).
    Steering = 6,
}

impl PassReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Every reason, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::Generic,
        Self::NotForwarded,
        Self::Target,
        Self::Checksum,
        Self::VhostNet,
        Self::TargetQueues,
        Self::Steering,
    ];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generic => "generic",
            Self::NotForwarded => "not_forwarded",
            Self::Target => "target",
            Self::Checksum => "checksum",
            Self::VhostNet => "vhost_net",
            Self::TargetQueues => "target_queues",
            Self::Steering => "rps",
        }
    }
}

/// Frames and their octets: from the destination address to the end of the payload, tags included, without FCS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Traffic {
    /// Frames; a GSO frame is one.
    pub frames: u64,
    /// Octets.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one frame.
    #[inline(always)]
    pub const fn count(&mut self, bytes: u32) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

impl core::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
    }
}

/// Frames that went from one port to another as known unicast, by hook. In the map `PATHS`, at index
/// `from * max_ports + to`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PathCounters {
    /// Indexed by [`Hook`].
    pub via: [Traffic; Hook::ALL.len()],
}

/// The share of a port's traffic that was with ports that have been detached since: their paths are gone, the frames
/// are not. In the map `DETACHED`, indexed by slot; the user side alone writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DetachedPaths {
    /// Frames from the port, by whichever hook.
    pub forwarded: Traffic,
    /// Frames to the port, by whichever hook.
    pub transmitted: Traffic,
    /// Slot and generation of the port whose paths were added last, so that a detach that is repeated adds them once.
    pub last: PortId,
}

/// Tells a port from every other that the bridge has had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortId {
    /// Its slot.
    pub slot: u32,
    /// Its generation, which is not 0.
    pub generation: u32,
}

/// What happened at one port. In the map `PORT_COUNTERS`, indexed by slot.
///
/// `received` = Σ paths from the port + [`DetachedPaths::forwarded`] + `flooded` + Σ `dropped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortCounters {
    /// Frames that the switch took from the port. A frame that XDP passed up is counted by tcx.
    pub received: Traffic,
    /// Received frames that were sent to all other ports.
    pub flooded: Traffic,
    /// Copies of flooded frames sent to this port.
    pub flood_copies: Traffic,
    /// Copies of flooded frames for this port that the kernel refused to make or take.
    pub flood_errors: u64,
    /// Frames that XDP left to tcx, by [`PassReason`].
    pub passed_up: [u64; PassReason::COUNT],
    /// Partial checksums that XDP completed.
    pub checksums_completed: u64,
    /// Received frames that native XDP can't take: GSO, or longer than a page has room for.
    pub bulk: Traffic,
    /// Received frames that carry several segments (GSO).
    pub gso: u64,
    /// Addresses learned on this port that were unknown.
    pub learned: u64,
    /// Addresses learned on this port that were on another.
    pub moved: u64,
    /// Received frames that went nowhere, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
}

impl PathCounters {
    /// By whichever hook.
    pub fn total(&self) -> Traffic {
        let mut total = Traffic::default();
        self.via.iter().for_each(|traffic| total += *traffic);
        total
    }
}

impl PortCounters {
    /// All frames that XDP left to tcx.
    pub fn all_passed_up(&self) -> u64 {
        self.passed_up.iter().sum()
    }
}

impl core::ops::AddAssign for PathCounters {
    fn add_assign(&mut self, other: Self) {
        for (sum, traffic) in self.via.iter_mut().zip(other.via) {
            *sum += traffic;
        }
    }
}

impl core::ops::AddAssign for PortCounters {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.flooded += other.flooded;
        self.flood_copies += other.flood_copies;
        self.flood_errors += other.flood_errors;
        for (sum, passed_up) in self.passed_up.iter_mut().zip(other.passed_up) {
            *sum += passed_up;
        }
        self.checksums_completed += other.checksums_completed;
        self.bulk += other.bulk;
        self.gso += other.gso;
        self.learned += other.learned;
        self.moved += other.moved;
        for (sum, dropped) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_at_its_own_index() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
        for (index, reason) in PassReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.name());
        }
    }

    #[test]
    fn sums_cover_every_counter() {
        let one = PortCounters {
            received: Traffic { frames: 1, bytes: 2 },
            flooded: Traffic { frames: 3, bytes: 4 },
            flood_copies: Traffic { frames: 5, bytes: 6 },
            flood_errors: 7,
            passed_up: core::array::from_fn(|index| 100 + index as u64),
            checksums_completed: 9,
            bulk: Traffic {
                frames: 10,
                bytes: 11,
            },
            gso: 12,
            learned: 13,
            moved: 14,
            dropped: core::array::from_fn(|index| 15 + index as u64),
        };
        let mut sum = one;
        sum += one;
        assert_eq!(sum.received, Traffic { frames: 2, bytes: 4 });
        assert_eq!(sum.flooded, Traffic { frames: 6, bytes: 8 });
        assert_eq!(
            sum.flood_copies,
            Traffic {
                frames: 10,
                bytes: 12
            }
        );
        assert_eq!([sum.flood_errors, sum.checksums_completed], [14, 18]);
        assert_eq!(sum.passed_up, one.passed_up.map(|count| 2 * count));
        assert_eq!(
            sum.bulk,
            Traffic {
                frames: 20,
                bytes: 22
            }
        );
        assert_eq!([sum.gso, sum.learned, sum.moved], [24, 26, 28]);
        assert_eq!(sum.dropped, one.dropped.map(|count| 2 * count));
    }
}
