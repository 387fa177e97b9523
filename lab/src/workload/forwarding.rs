//! A guest that routes between two networks by its one network card.

use std::time::Duration;

use anyhow::Result;

use super::packets::routed;
use crate::{
    host::{
        job,
        plan::{GuestId, StationNetwork},
        wait::OnSignal,
    },
    testbed::{guest::Guest, stations},
};

const LIMIT: Duration = Duration::from_secs(40);

/// Makes the second guest a router between the first and the third, and waits until it is. A second time changes nothing.
pub fn prepare(guests: &[Box<dyn Guest>]) -> Result<()> {
    let (from, router, to) = (&*guests[0], &*guests[1], &*guests[2]);
    let script = script(router.id());
    let mut job = router.start(&["sh", "-c", &script])?;
    job::finish(&mut *job, LIMIT, OnSignal::Stop)?;
    let flow = routed(from.id(), router.id(), to.id());
    stations::wait_for_answers(from, to, flow)
}

/// Of a shell: without redirects, which tell a station that it is not the router's to hand on, and without a check whether
/// addresses are behind the right card.
fn script(router: GuestId) -> String {
    let addresses = [StationNetwork::First, StationNetwork::Second].map(|network| {
        let address = router.station(network);
        format!("ip address show dev $card | grep -q '{address}/' || ip address add {address}/24 dev $card;")
    });
    format!(
        "set -e; cd /proc/sys/net/ipv4; card=$(ip -o -4 address show | grep -v ' lo ' | head -n 1 | awk '{{print $2}}'); \
         for name in all $card; do echo 0 >conf/$name/send_redirects; echo 0 >conf/$name/rp_filter; done; \
         {} echo 1 >ip_forward",
        addresses.join(" ")
    )
}
