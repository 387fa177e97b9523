//! Mixed: requests and answers of one pair, alone and while others send bulk and broadcasts.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    measuring::Measuring,
    round_trips::{Answering, RoundTrips},
    throughput::{self, Throughput},
};
use crate::{
    host::{job::State, plan::StationNetwork},
    station::task::{Flow, Size, Task},
    testbed::{guest::Guest, stations},
};

/// Broadcasts per second.
const BROADCASTS: u32 = 1000;
/// Seconds that broadcasts last longer than the requests, as the stream does.
const MARGIN_S: u32 = 3;

/// Round trips of one pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mixed {
    pub alone: RoundTrips,
    /// While the others send.
    pub beside: RoundTrips,
    /// Of another pair, one TCP stream.
    pub bulk: Throughput,
    /// Of a fifth guest.
    pub broadcasts: u64,
}

/// Measures: a stream from the first guest to the second, requests of the third to the fourth, broadcasts of the fifth.
pub fn measure(guests: &[Box<dyn Guest>], settings: &Measuring) -> Result<Mixed> {
    let [from, to, asker, answerer, other] = [0, 1, 2, 3, 4].map(|number: usize| &*guests[number]);
    let flow = stations::flow(asker.id(), answerer.id());
    let (payload, rate) = (settings.payload(), Some(settings.requests_per_s()));
    let answering = Answering::start(answerer)?;
    let ask = || answering.ask(asker, flow, payload, rate, settings.time_s);
    let alone = ask()?;

    let seconds = settings.time_s + MARGIN_S;
    let mut bulk = throughput::start_load(from, to, settings)?;
    let broadcasts = Task::Send {
        number: stations::number(),
        flow: Flow {
            from: other.id().station(StationNetwork::First),
            to: Ipv4Addr::BROADCAST,
            to_mac: [0xff; 6],
        },
        size: Size::Shortest,
        rate: Some(BROADCASTS),
        time_ms: u64::from(seconds) * 1000,
    };
    let mut broadcasting = stations::start(other, &broadcasts)?;
    let beside = ask()?;
    ensure!(
        bulk.goes_on()? && broadcasting.state()? == State::Running,
        "the stream or the broadcasts ended before the requests that they were to be beside: the machine is too busy; \
         try a lower --rate"
    );
    let broadcasts = stations::finish(&mut *broadcasting, seconds.into())?;
    Ok(Mixed {
        alone,
        beside,
        bulk: bulk.finish()?,
        broadcasts: broadcasts.sent,
    })
}
