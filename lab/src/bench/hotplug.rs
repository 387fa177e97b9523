//! `tapbridge-lab hotplug`: how soon `tapbridge run` has attached a new port.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use lab::Tap;
use nix::{
    errno::Errno,
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
        socket, sockopt::RcvBuf,
    },
};
use rtnetlink::{
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{RouteNetlinkMessage, link::LinkAttribute},
};
use serde_json::Value;

use super::live::{Arrivals, Live, talk};
use crate::{
    host::{
        interrupt, process,
        wait::{self, OnSignal},
    },
    testbed::datapath::linux_bridge::BRIDGE,
};

/// What a new port may have to wait, but for one in a hundred.
const BUDGET: Duration = Duration::from_millis(200);
/// Until a port is attached, on a machine that does much else.
const LIMIT: Duration = Duration::from_mins(1);
/// Those that carry traffic meanwhile.
const TALKERS: usize = 2;
/// `RTMGRP_LINK`
const LINKS: u32 = 1;
/// More than is told between two looks.
const ROOM: usize = 1 << 20;
/// For some messages of the kernel's.
const BUFFER: usize = 1 << 16;

/// Measure how soon 'tapbridge run' has attached a new port
///
/// Taps are plugged in one after another and stay, while one guest sends to another as fast as that takes it. What counts
/// is the time from the kernel's message that the tap is a port now (`RTM_NEWLINK`), as the lab itself hears it, until
/// 'tapbridge run' says that it is attached.
#[derive(Debug, Args)]
pub struct HotplugArguments {
    /// This project's binary
    #[arg(long, value_name = "PATH")]
    tapbridge: PathBuf,
    /// How many taps
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=4000))]
    taps: u32,
    /// Fail where one in a hundred has waited longer than 200 ms, or a frame is lost
    #[arg(long)]
    check: bool,
}

impl HotplugArguments {
    pub fn run(&self) -> Result<()> {
        interrupt::catch()?;
        let live = Live::start(&self.tapbridge, TALKERS, &[])?;
        let stop = AtomicBool::new(false);
        let told = Told::default();
        let socket = live.host.run(listen)?;
        let bridge = live.host.run(|| if_nametoindex(BRIDGE))?;
        let (waits, arrivals) = thread::scope(|scope| {
            let talk = scope.spawn(|| talk(&live.guests, &stop));
            let hear = scope.spawn(|| hear(&socket, bridge, &told, &stop));
            let waits = self.plug(&live, &told);
            stop.store(true, Ordering::Relaxed);
            let arrivals = talk.join().expect("no panic");
            hear.join().expect("no panic")?;
            anyhow::Ok((waits?, arrivals?))
        })?;
        live.end()?;
        print!("{}", text(&waits, arrivals));
        if self.check {
            let late = percentile(&waits.from_told, 99);
            ensure!(
                late <= BUDGET,
                "one in a hundred waited {late:.1?} or more, and {BUDGET:?} are allowed"
            );
            ensure!(arrivals.all_in_order(), "frames were lost, doubled or overtaken");
        }
        Ok(())
    }

    fn plug(&self, live: &Live, told: &Told) -> Result<Waits> {
        let mut waits = Waits::default();
        let mut taps: Vec<Tap> = Vec::new();
        for number in 0..self.taps {
            let name = format!("vnet{number}");
            let (tap, asked) = live.plug(&name)?;
            taps.push(tap);
            let what = format!("{name} to be attached, by 'tapbridge run'");
            let attached = wait::until(&what, LIMIT, OnSignal::Stop, || attached(live, &name))?;
            let what = format!("the kernel to say that {name} is a port");
            let heard = wait::until(&what, LIMIT, OnSignal::Stop, || Ok(told.when(&name)))?;
            waits.from_asked.push(attached.duration_since(asked));
            waits.from_told.push(attached.duration_since(heard));
        }
        waits.from_asked.sort();
        waits.from_told.sort();
        let shown = process::call(live.tapbridge(&["show", "-j"])?)?;
        let shown: Value = serde_json::from_str(&shown).context("what 'tapbridge show -j' says")?;
        let ports = shown["bridges"][0]["ports"].as_array().map_or(0, |ports| {
            ports.iter().filter(|port| port["attached"] == true).count()
        });
        ensure!(
            ports == taps.len() + TALKERS,
            "of {} ports {ports} are attached in the end",
            taps.len() + TALKERS
        );
        Ok(waits)
    }
}

/// Sorted.
#[derive(Debug, Default)]
struct Waits {
    /// Since the kernel was asked to make the device a port.
    from_asked: Vec<Duration>,
    /// Since it has told that it is one.
    from_told: Vec<Duration>,
}

/// When `run` has said that a device is attached, if it has.
fn attached(live: &Live, name: &str) -> Result<Option<Instant>> {
    for (at, line) in live.said().into_iter().rev() {
        let event: Value =
            serde_json::from_str(&line).with_context(|| format!("tapbridge run -j: {line}"))?;
        if event["event"] == "attached" && event["ifname"] == name {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// When the kernel has told first that devices of these names are ports of the bridge.
#[derive(Default)]
struct Told(Mutex<BTreeMap<String, Instant>>);

impl Told {
    fn when(&self, name: &str) -> Option<Instant> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .copied()
    }

    fn note(&self, name: String, at: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(name).or_insert(at);
    }
}

/// Listens for news of devices of the calling thread's network namespace.
fn listen() -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    setsockopt(&socket, RcvBuf, &ROOM)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS)).context("listening for news of devices")?;
    Ok(socket)
}

fn hear(socket: &OwnedFd, bridge: u32, told: &Told, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; BUFFER];
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(50_u8)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            polled => polled.context("waiting for news of devices")?,
        };
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                let at = Instant::now();
                ports(&buffer[..length], bridge)?
                    .into_iter()
                    .for_each(|name| told.note(name, at));
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error).context("reading news of devices"),
        }
    }
    Ok(())
}

/// The devices of which messages say that they are ports of this bridge.
fn ports(mut messages: &[u8], bridge: u32) -> Result<Vec<String>> {
    let mut names = Vec::new();
    while !messages.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(messages)
            .context("understanding news of devices")?;
        let length = usize::try_from(message.header.length)?.next_multiple_of(4);
        messages = messages.get(length.max(1)..).unwrap_or_default();
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload else {
            continue;
        };
        let is_port = link.attributes.contains(&LinkAttribute::Controller(bridge));
        let name = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        names.extend(name.filter(|_| is_port));
    }
    Ok(names)
}

/// The time that so many of a hundred do not exceed.
fn percentile(sorted: &[Duration], of_hundred: usize) -> Duration {
    let place = (sorted.len() * of_hundred).div_ceil(100).max(1);
    sorted.get(place - 1).copied().unwrap_or_default()
}

fn text(waits: &Waits, arrivals: Arrivals) -> String {
    let milliseconds = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1000.0);
    let row = |what: &str, sorted: &[Duration]| {
        let [median, late, last] =
            [50, 99, 100].map(|of_hundred| milliseconds(percentile(sorted, of_hundred)));
        format!("{what:44} {median:>10} {late:>10} {last:>10}\n")
    };
    let head = format!(
        "{:44} {:>10} {:>10} {:>10}\n",
        format!("{} taps, until they are attached", waits.from_told.len()),
        "p50",
        "p99",
        "most"
    );
    let Arrivals {
        sent,
        arrived,
        astray,
    } = arrivals;
    let frames = format!(
        "frames meanwhile: {sent} sent, {} lost, {astray} doubled or overtaken\n",
        sent - arrived
    );
    [
        head,
        row("from RTM_NEWLINK", &waits.from_told),
        row("from the call that makes the tap a port", &waits.from_asked),
        frames,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    #[test]
    fn one_in_a_hundred_may_be_later() {
        let waits: Vec<_> = (1..=300).map(Duration::from_millis).collect();
        assert_eq!(percentile(&waits, 50), Duration::from_millis(150));
        assert_eq!(percentile(&waits, 99), Duration::from_millis(297));
        assert_eq!(percentile(&waits, 100), Duration::from_millis(300));
        assert_eq!(percentile(&waits[..1], 99), Duration::from_millis(1));
    }

    #[test]
    fn of_devices_those_are_ports_that_have_the_bridge() {
        let message = |name: &str, master: Option<u32>| {
            let mut link = LinkMessage::default();
            link.attributes.push(LinkAttribute::IfName(name.into()));
            link.attributes.extend(master.map(LinkAttribute::Controller));
            let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            bytes
        };
        let all = [
            message("a", Some(7)),
            message("bcd", None),
            message("e", Some(8)),
            message("f", Some(7)),
        ];
        assert_eq!(ports(&all.concat(), 7).unwrap(), ["a", "f"]);
        assert!(ports(&all[0][..9], 7).is_err());
    }

    #[test]
    fn it_says_what_was_lost() {
        let waits = Waits {
            from_asked: vec![Duration::from_millis(12)],
            from_told: vec![Duration::from_micros(10_450)],
        };
        let arrivals = Arrivals {
            sent: 10,
            arrived: 8,
            astray: 1,
        };
        let text = text(&waits, arrivals);
        for words in ["1 taps", "10.4 ms", "12.0 ms", "10 sent, 2 lost, 1 doubled"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
