//! Packets: frames of guests that generate them, from the first guest of each pair to the second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{kind::Traffic, measuring::Measuring};
use crate::{
    host::plan::{GuestId, StationNetwork},
    shares,
    station::task::{Flow, Report, Size, Task},
    testbed::{guest::Guest, stations},
};

/// Seconds in which all generators may start, one after the other, each tried where the one before was too short.
const LEADS: &[u32] = &[1, 3, 10];

/// Frames that were generated and received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Packets {
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Of each pair, per second; null of as fast as they go.
    pub rate: Option<u32>,
    /// All frames, also those of before and after the time that rates are of.
    pub sent: u64,
    pub received: u64,
    pub received_bytes: u64,
    pub sent_per_s: f64,
    /// While all sent.
    pub received_per_s: f64,
    /// Jain's index of what the pairs received: 1 if all got the same, one of n if one got all.
    pub fairness: f64,
    /// What the pair received that received least, by the mean of all.
    pub worst_share: f64,
    pub pairs_alone: Vec<PairFrames>,
}

/// Frames of one pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairFrames {
    pub sent: u64,
    pub received: u64,
    pub sent_per_s: f64,
    pub received_per_s: f64,
}

/// Measures, from the first of each pair of guests to the second.
pub fn measure(guests: &[Box<dyn Guest>], traffic: Traffic, settings: &Measuring) -> Result<Packets> {
    let pairs = guests.chunks_exact(2).take(traffic.pairs.into());
    let ways: Vec<_> = pairs
        .map(|pair| {
            let [from, to] = [&*pair[0], &*pair[1]];
            (from, to, stations::flow(from.id(), to.id()))
        })
        .collect();
    between(&ways, traffic, settings)
}

/// Measures from the first guest to the third, by the second.
pub fn measure_forwarding(guests: &[Box<dyn Guest>], settings: &Measuring) -> Result<Packets> {
    let (from, router, to) = (&*guests[0], guests[1].id(), &*guests[2]);
    let traffic = Traffic {
        size: Size::Shortest,
        pairs: 1,
    };
    between(
        &[(from, to, routed(from.id(), router, to.id()))],
        traffic,
        settings,
    )
}

/// From one station to another in the second network, by a router.
pub fn routed(from: GuestId, router: GuestId, to: GuestId) -> Flow {
    Flow {
        from: from.station(StationNetwork::First),
        to: to.station(StationNetwork::Second),
        to_mac: router.mac_bytes(),
    }
}

fn between(
    ways: &[(&dyn Guest, &dyn Guest, Flow)],
    traffic: Traffic,
    settings: &Measuring,
) -> Result<Packets> {
    // One pair alone has nobody to wait for.
    let mut allowed = if ways.len() == 1 { &[0][..] } else { LEADS }.iter();
    loop {
        let lead = *allowed.next().with_context(|| {
            format!(
                "{} generators took too long to start: the machine is too busy for so many --pairs",
                ways.len()
            )
        })?;
        if let Some(packets) = with_lead(ways, traffic, settings, lead)? {
            return Ok(packets);
        }
    }
}

/// Generators send so many seconds more before and after the time that is counted, so that all send in all of it. `None` if
/// they took longer than that to start, one after the other.
fn with_lead(
    ways: &[(&dyn Guest, &dyn Guest, Flow)],
    traffic: Traffic,
    settings: &Measuring,
    lead: u32,
) -> Result<Option<Packets>> {
    let seconds = settings.time_s + 2 * lead;
    let [lead_ms, time_ms, sending_ms] =
        [lead, settings.time_s, seconds].map(|seconds| u64::from(seconds) * 1000);
    let seconds = f64::from(seconds);
    let number = stations::number();
    let count = Task::Count {
        number,
        lead_ms,
        time_ms,
    };
    let counting = ways.iter().map(|(_, to, _)| stations::start(*to, &count));
    let mut counting = counting.collect::<Result<Vec<_>>>()?;
    let begin = Instant::now();
    let sending = ways.iter().map(|&(from, _, flow)| {
        from.perform(&Task::Send {
            number,
            flow,
            size: traffic.size,
            rate: settings.rate,
            time_ms: sending_ms,
        })
    });
    let mut sending = sending.collect::<Result<Vec<_>>>()?;
    if lead > 0 {
        stations::wait_until_started(&mut sending)?;
        if begin.elapsed() > Duration::from_secs(lead.into()) {
            return Ok(None);
        }
    }
    let mut pairs = Vec::new();
    let mut received_bytes = 0;
    for (sent, received) in sending.iter_mut().zip(&mut counting) {
        let sent = stations::finish(&mut **sent, seconds)?;
        let received = stations::finish(&mut **received, seconds)?;
        received_bytes += received.bytes;
        pairs.push(PairFrames::of(&sent, &received));
    }
    ensure!(pairs.iter().any(|pair| pair.received > 0), "no frame arrived");
    Ok(Some(Packets::of(traffic, settings.rate, received_bytes, pairs)))
}

impl PairFrames {
    fn of(sent: &Report, received: &Report) -> Self {
        Self {
            sent: sent.sent,
            received: received.received,
            sent_per_s: number(sent.sent) / sent.seconds,
            received_per_s: number(received.in_time) / received.seconds,
        }
    }
}

impl Packets {
    fn of(traffic: Traffic, rate: Option<u32>, received_bytes: u64, pairs: Vec<PairFrames>) -> Self {
        let rates: Vec<_> = pairs.iter().map(|pair| pair.received_per_s).collect();
        Self {
            traffic,
            rate,
            sent: pairs.iter().map(|pair| pair.sent).sum(),
            received: pairs.iter().map(|pair| pair.received).sum(),
            received_bytes,
            sent_per_s: pairs.iter().map(|pair| pair.sent_per_s).sum(),
            received_per_s: rates.iter().sum(),
            fairness: shares::fairness(&rates),
            worst_share: shares::worst(&rates),
            pairs_alone: pairs,
        }
    }

    /// Per cent of the frames that did not arrive.
    pub fn lost_percent(&self) -> f64 {
        100.0 * number(self.sent.saturating_sub(self.received)) / number(self.sent.max(1))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn rates_are_of_the_time_and_losses_of_all() {
        let sent = Report {
            sent: 1000,
            seconds: 2.0,
            ..Report::default()
        };
        let received = Report {
            received: 800,
            in_time: 700,
            seconds: 2.0,
            ..Report::default()
        };
        let traffic = Traffic {
            size: Size::Imix,
            pairs: 2,
        };
        let pair = PairFrames::of(&sent, &received);
        let packets = Packets::of(traffic, None, 7, vec![pair.clone(), pair]);
        assert!(near(packets.sent_per_s, 1000.0) && near(packets.received_per_s, 700.0));
        assert!(near(packets.lost_percent(), 20.0));
        let json = serde_json::to_value(&packets).unwrap();
        assert_eq!((&json["size"], &json["pairs"]), (&"imix".into(), &2.into()));
    }
}
