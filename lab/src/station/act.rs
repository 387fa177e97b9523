//! What a station does, in one thread, with the system calls of QEMU's main loop.

use std::{
    ops::Range,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use lab::pump::{BUFFER, BURST};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use super::{
    Port,
    frame::{HEADERS, Mark, Purpose, Template, answer, arp_answer, hello},
    orders::Orders,
    task::{Flow, Report, Size, Task},
};
use crate::{
    host::{
        interrupt,
        plan::{GuestId, StationNetwork},
    },
    testbed::device::NicCounters,
};

/// Like stations that speak to the network itself, by DHCP or ARP, so that the bridge does not forget them.
const HELLO: Duration = Duration::from_secs(1);
/// How often a station that sends as fast as it can looks whether it is told something else.
const LOOK: Duration = Duration::from_millis(5);
/// How long the first frame is waited for: guests without KVM start slowly.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long frames may be on their way.
const ON_THE_WAY: Duration = Duration::from_millis(300);
/// When a request that nobody has answered is one that is lost.
const LOST: Duration = Duration::from_secs(1);

/// A generator and receiver of frames.
pub struct Station {
    id: GuestId,
    port: Port,
    /// None where there is one task alone.
    orders: Option<Orders>,
    card: NicCounters,
    /// What times in frames are counted from.
    epoch: Instant,
    hello: Vec<u8>,
    next_hello: Instant,
    buffer: Vec<u8>,
}

/// A frame that was received.
struct Received {
    /// Of a station's.
    mark: Option<(Mark, Purpose)>,
    /// Its place in the buffer.
    from: usize,
    to: usize,
}

impl Station {
    /// That of a guest; with orders, they end tasks that have no end of their own.
    pub fn new(id: GuestId, port: Port, orders: Option<Orders>) -> Self {
        let now = Instant::now();
        Self {
            id,
            port,
            orders,
            card: NicCounters::default(),
            epoch: now,
            hello: hello(id.mac_bytes()),
            next_hello: now,
            buffer: vec![0; BUFFER],
        }
    }

    /// Waits for the next order; none when there will be none.
    pub fn rest(&mut self) -> Result<Option<Task>> {
        loop {
            self.discard()?;
            let Some(orders) = &mut self.orders else {
                return Ok(None);
            };
            if let Some(task) = orders.next()? {
                return Ok(Some(task));
            }
            if orders.ended() || interrupt::received().is_some() {
                return Ok(None);
            }
            self.wait(None)?;
        }
    }

    /// Does it.
    pub fn perform(&mut self, task: Task) -> Result<Report> {
        let time = |time_ms| Duration::from_millis(time_ms);
        let report = match task {
            Task::Rest => Report::default(),
            Task::Send {
                number,
                flow,
                size,
                rate,
                time_ms,
            } => self.send(number, flow, size, rate, time(time_ms))?,
            Task::Count {
                number,
                lead_ms,
                time_ms,
            } => self.count(number, time(lead_ms), time(time_ms))?,
            Task::Echo { number } => self.echo(number)?,
            Task::Ask {
                number,
                flow,
                payload,
                rate: Some(rate),
                time_ms,
            } => self.ask_at_rate(number, self.request(flow, payload), rate, time(time_ms))?,
            Task::Ask {
                number,
                flow,
                payload,
                rate: None,
                time_ms,
            } => self.ask(number, self.request(flow, payload), time(time_ms))?,
        };
        Ok(Report {
            card: self.card,
            ..report
        })
    }

    fn request(&self, flow: Flow, payload: u16) -> Template {
        let length = HEADERS + usize::from(payload);
        Template::new(self.id.mac_bytes(), flow, Purpose::Request, length)
    }

    fn send(
        &mut self,
        number: u16,
        flow: Flow,
        size: Size,
        rate: Option<u32>,
        time: Duration,
    ) -> Result<Report> {
        let template = |&length| Template::new(self.id.mac_bytes(), flow, Purpose::Discard, length);
        let mut templates: Vec<_> = size.lengths().iter().map(template).collect();
        let mut report = Report::default();
        let start = Instant::now();
        let mut next_look = start;
        let mut in_turn = 0;
        loop {
            let now = Instant::now();
            if now >= start + time || self.told() {
                break;
            }
            let due = match rate {
                Some(rate) => due_by(now - start, rate).min(report.sent + u64::from(BURST)),
                None => report.sent + u64::from(BURST),
            };
            let mut room = true;
            while report.sent < due && room {
                let mark = Mark {
                    number,
                    sequence: wrapped(report.sent),
                    time: 0,
                };
                let frame = templates[in_turn].marked(mark);
                room = self.port.send(frame).context("sending a frame")?;
                if room {
                    self.card.sent(frame.len());
                    report.sent += 1;
                    in_turn = (in_turn + 1) % templates.len();
                }
            }
            // What a VMM reads between two bursts.
            self.discard()?;
            match rate {
                _ if !room => self.wait_for_room()?,
                Some(rate) => {
                    let next = start + moment(report.sent, rate);
                    if next > Instant::now() {
                        self.wait(Some(next))?;
                    }
                }
                // Who never waits has to look for orders, and has to be known to the bridge all the same.
                None if now >= next_look => {
                    next_look = now + LOOK;
                    self.wait(Some(now))?;
                }
                None => {}
            }
        }
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    fn count(&mut self, number: u16, lead: Duration, time: Duration) -> Result<Report> {
        let give_up = Instant::now() + PATIENCE;
        let mut report = Report {
            seconds: time.as_secs_f64(),
            ..Report::default()
        };
        // The time that is counted, and when the last frame came.
        let mut window: Option<(Range<Instant>, Instant)> = None;
        loop {
            let now = Instant::now();
            let (mut frames, mut bytes) = (0, 0);
            for _ in 0..BURST {
                let Some(received) = self.receive()? else { break };
                if received.mark_of(number, Purpose::Discard).is_some() {
                    frames += 1;
                    bytes += length(&received);
                }
            }
            if frames > 0 {
                let begin = now + lead;
                let (counted, last) = window.get_or_insert_with(|| (begin..begin + time, now));
                *last = now;
                report.received += frames;
                report.bytes += bytes;
                if counted.contains(&now) {
                    report.in_time += frames;
                }
            }
            let until = window
                .as_ref()
                .map_or(give_up, |(counted, last)| counted.end.max(*last) + ON_THE_WAY);
            if now >= until || self.told() {
                return Ok(report);
            }
            self.wait(Some(until))?;
        }
    }

    fn echo(&mut self, number: u16) -> Result<Report> {
        let mut report = Report::default();
        while !self.told() {
            for _ in 0..BURST {
                let Some(request) = self.receive()? else { break };
                if request.mark_of(number, Purpose::Request).is_none() {
                    continue;
                }
                let frame = &mut self.buffer[request.from..request.to];
                answer(frame, self.id.mac_bytes());
                report.received += 1;
                report.bytes += length(&request);
                if self.port.send(frame).context("sending an answer")? {
                    self.card.sent(frame.len());
                    report.sent += 1;
                }
            }
            self.wait(None)?;
        }
        Ok(report)
    }

    /// One request after the other.
    fn ask(&mut self, number: u16, mut request: Template, time: Duration) -> Result<Report> {
        let mut report = Report::default();
        let start = Instant::now();
        let end = start + time;
        let mut next = start;
        let mut asked: Option<u32> = None;
        while !self.told() {
            let now = Instant::now();
            if asked.is_none() || now >= next {
                if now >= end {
                    break;
                }
                let sequence = wrapped(report.sent);
                if self.ask_once(request.marked(self.mark(number, sequence, now)))? {
                    report.sent += 1;
                    (asked, next) = (Some(sequence), now + LOST);
                }
            }
            self.wait(Some(next))?;
            for _ in 0..BURST {
                let Some(received) = self.receive()? else { break };
                if let Some(mark) = received.mark_of(number, Purpose::Answer)
                    && Some(mark.sequence) == asked
                {
                    self.note(&mut report, &received, mark);
                    asked = None;
                }
            }
        }
        report.seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Requests when they are due, whether those before were answered or not; their time counts from when they were due,
    /// so that a station which is kept from sending them does not hide that.
    fn ask_at_rate(
        &mut self,
        number: u16,
        mut request: Template,
        rate: u32,
        time: Duration,
    ) -> Result<Report> {
        let mut report = Report {
            seconds: time.as_secs_f64(),
            ..Report::default()
        };
        let start = Instant::now() + phase(self.id, rate);
        let end = start + time;
        while !self.told() {
            let now = Instant::now();
            let mut due = start + moment(report.sent, rate);
            while due <= now && due < end {
                let sequence = wrapped(report.sent);
                if !self.ask_once(request.marked(self.mark(number, sequence, due)))? {
                    break;
                }
                report.sent += 1;
                due = start + moment(report.sent, rate);
            }
            if now >= end && (report.received == report.sent || now >= end + LOST) {
                break;
            }
            self.wait(Some(if due < end { due } else { end.max(now) + ON_THE_WAY }))?;
            for _ in 0..BURST {
                let Some(received) = self.receive()? else { break };
                if let Some(mark) = received.mark_of(number, Purpose::Answer) {
                    self.note(&mut report, &received, mark);
                }
            }
        }
        Ok(report)
    }

    fn mark(&self, number: u16, sequence: u32, time: Instant) -> Mark {
        let time = time.saturating_duration_since(self.epoch).as_nanos();
        Mark {
            number,
            sequence,
            time: u64::try_from(time).unwrap_or(u64::MAX),
        }
    }

    /// False if there is no room for it now.
    fn ask_once(&mut self, request: &[u8]) -> Result<bool> {
        let sent = self.port.send(request).context("sending a request")?;
        if sent {
            self.card.sent(request.len());
        }
        Ok(sent)
    }

    fn note(&self, report: &mut Report, answer: &Received, mark: Mark) {
        report.received += 1;
        report.bytes += length(answer);
        let asked = self.epoch + Duration::from_nanos(mark.time);
        report.times.add(Instant::now().saturating_duration_since(asked));
    }

    /// A frame, if one has come. Questions by ARP are answered.
    fn receive(&mut self) -> Result<Option<Received>> {
        let place = self.port.receive(&mut self.buffer).context("receiving a frame")?;
        let Some(place) = place else {
            return Ok(None);
        };
        self.card.received(place.len());
        let frame = &self.buffer[place.clone()];
        let mark = Mark::to(frame, self.id.mac_bytes());
        let own = |address| {
            let networks = [StationNetwork::First, StationNetwork::Second];
            networks
                .map(|network| self.id.station(network))
                .contains(&address)
        };
        if mark.is_none()
            && let Some(answer) = arp_answer(frame, self.id.mac_bytes(), own)
            && self.port.send(&answer).context("answering ARP")?
        {
            self.card.sent(answer.len());
        }
        Ok(Some(Received {
            mark,
            from: place.start,
            to: place.end,
        }))
    }

    /// Takes what has come, as much as a VMM takes at a time.
    fn discard(&mut self) -> Result<()> {
        for _ in 0..BURST {
            if self.receive()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// Whether the task is to end.
    fn told(&self) -> bool {
        interrupt::received().is_some() || self.orders.as_ref().is_some_and(Orders::waiting)
    }

    /// Waits until a frame or an order comes, at most until then; says hello meanwhile.
    fn wait(&mut self, until: Option<Instant>) -> Result<()> {
        let now = Instant::now();
        if now >= self.next_hello {
            self.next_hello = now + HELLO;
            if self.port.send(&self.hello).context("sending a frame")? {
                self.card.sent(self.hello.len());
            }
        }
        let until = until.map_or(self.next_hello, |until| until.min(self.next_hello));
        let timeout = TimeSpec::from_duration(until.saturating_duration_since(now));
        let mut waited = vec![PollFd::new(self.port.as_fd(), PollFlags::POLLIN)];
        waited.extend(
            self.orders
                .as_ref()
                .map(|orders| PollFd::new(orders.as_fd(), PollFlags::POLLIN)),
        );
        match ppoll(&mut waited, Some(timeout), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error).context("waiting for frames"),
        }
        let told = waited.get(1).is_some_and(|orders| orders.any() != Some(false));
        if told && let Some(orders) = &mut self.orders {
            orders.take()?;
        }
        Ok(())
    }

    fn wait_for_room(&self) -> Result<()> {
        let timeout = TimeSpec::from_duration(Duration::from_millis(10));
        match ppoll(
            &mut [PollFd::new(self.port.as_fd(), PollFlags::POLLOUT)],
            Some(timeout),
            None,
        ) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("waiting for room"),
        }
    }
}

impl Received {
    /// Its mark, if it is a frame of this task and for that.
    fn mark_of(&self, number: u16, purpose: Purpose) -> Option<Mark> {
        let (mark, its_purpose) = self.mark?;
        (mark.number == number && its_purpose == purpose).then_some(mark)
    }
}

impl NicCounters {
    fn sent(&mut self, bytes: usize) {
        self.tx_frames += 1;
        self.tx_bytes += bytes as u64;
    }

    fn received(&mut self, bytes: usize) {
        self.rx_frames += 1;
        self.rx_bytes += bytes as u64;
    }
}

fn length(received: &Received) -> u64 {
    (received.to - received.from) as u64
}

/// The number of a frame in frames.
fn wrapped(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("it is cut off")
}

/// How many frames are due that time after the first one, that one included.
fn due_by(time: Duration, rate: u32) -> u64 {
    let frames = time.as_nanos() * u128::from(rate) / 1_000_000_000;
    u64::try_from(frames).unwrap_or(u64::MAX).saturating_add(1)
}

/// How long after the first one a frame is due.
fn moment(number: u64, rate: u32) -> Duration {
    Duration::from_nanos_u128(u128::from(number) * 1_000_000_000 / u128::from(rate))
}

/// When in its period a station asks: stations that have been told at the same time don't ask at the same time.
fn phase(id: GuestId, rate: u32) -> Duration {
    /// Of the golden ratio: whatever the number of stations, they are spread evenly.
    const PART: f64 = 0.618_033_988_749_895;
    let part = (f64::from(id.0) * PART).fract();
    Duration::from_secs_f64(part / f64::from(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_due_as_the_rate_says() {
        let ms = Duration::from_millis;
        assert_eq!(
            [0, 1, 999, 1000].map(|time| due_by(ms(time), 1000)),
            [1, 2, 1000, 1001]
        );
        assert_eq!(moment(1000, 1000), ms(1000));
        for number in [0, 1, 2, 333, 1_000_000] {
            assert!(due_by(moment(number, 333), 333) <= number + 1);
            assert!(due_by(moment(number, 333) + Duration::from_nanos(1), 333) > number);
        }
    }

    #[test]
    fn stations_ask_one_after_the_other() {
        let phases = (1..=64).map(|number| phase(GuestId(2 * number), 1000));
        let mut phases: Vec<_> = phases.collect();
        phases.sort();
        let apart = |two: &[Duration]| two[1].saturating_sub(two[0]) > Duration::from_micros(3);
        assert!(phases.windows(2).all(apart), "{phases:?}");
        assert!(*phases.last().unwrap() < Duration::from_millis(1));
    }

    #[test]
    fn numbers_begin_again() {
        assert_eq!(wrapped((1 << 32) + 5), 5);
    }
}
