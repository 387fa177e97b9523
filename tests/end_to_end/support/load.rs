//! Frames on their way while something else is done.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use lab::Tap;

use super::{
    end::EndOnDrop,
    frames::{Flow, TCP_HEADERS},
    program::LIMIT,
    wire::{receive, send},
};

/// Frames on their way at most: fewer than a tap's ring holds.
const WINDOW: u64 = 100;
/// Between two frames: what is done meanwhile is to get on.
const PAUSE: Duration = Duration::from_micros(100);

/// Of those that [`talk`], so many frames are one after the other.
const BURST: u32 = 16;

/// Sends numbered frames from one tap to the other, stations 1 and 2, each of which must be the next that arrives, until it
/// shall end; how many. However long that is, it leaves the CPUs to what is done meanwhile.
pub fn talk(from: &Tap, to: &Tap, end: &AtomicBool) -> u32 {
    let mut number = 0_u32;
    while !end.load(Ordering::Relaxed) {
        let frame = Flow::udp(1, 2).frame(&number.to_be_bytes());
        send(from, &frame);
        let (_, received) = receive(to);
        assert_eq!(received, frame, "frame {number}");
        number += 1;
        if number.is_multiple_of(BURST) {
            thread::sleep(BURST * PAUSE);
        }
    }
    number
}

/// Sends numbered frames from one tap to the other, stations 1 and 2, while `work` is done, and proves that each arrives once
/// and in order.
#[track_caller]
pub fn under_load<T>([from, to]: [&Tap; 2], work: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    let end = EndOnDrop(&ended);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut sent, mut arrived) = (0_u64, 0_u64);
            let mut last = Instant::now();
            while !ended.load(Ordering::Relaxed) || arrived < sent {
                if sent - arrived < WINDOW && !ended.load(Ordering::Relaxed) {
                    send(from, &Flow::tcp(1, 2).frame(&sent.to_be_bytes()));
                    sent += 1;
                }
                while let Some((_, frame)) = to.receive(Duration::ZERO).expect("receive") {
                    let number = frame[TCP_HEADERS..].first_chunk().expect("a number");
                    assert_eq!(u64::from_be_bytes(*number), arrived, "of {sent}");
                    arrived += 1;
                    last = Instant::now();
                }
                thread::sleep(PAUSE);
                assert!(
                    last.elapsed() < LIMIT,
                    "frame {arrived} of {sent} did not come in {LIMIT:?}"
                );
            }
            assert!(arrived > 0);
        });
        let result = work();
        drop(end);
        result
    })
}
