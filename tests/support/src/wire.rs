//! Sending and receiving on taps, with the expectations that tests have of it.

use std::{thread, time::Duration};

use etherparse::SingleVlanHeader;
use lab::{Tap, VnetHeader};

/// Long enough for a frame to arrive on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// A frame that comes at all has come by now: the switch works inside the sender's system call.
const SILENCE: Duration = Duration::from_millis(20);

/// Sends a frame that is complete.
#[track_caller]
pub fn send(tap: &Tap, frame: &[u8]) {
    send_with(tap, &VnetHeader::none(), frame);
}

/// Sends a frame with what its sender left to be done.
#[track_caller]
pub fn send_with(tap: &Tap, header: &VnetHeader, frame: &[u8]) {
    let sent = tap.send(header, frame);
    sent.unwrap_or_else(|error| {
        panic!(
            "{}: send {} bytes with {header:?}: {error}",
            tap.name(),
            frame.len()
        )
    });
}

/// The next frame, which must come.
#[track_caller]
pub fn receive(tap: &Tap) -> (VnetHeader, Vec<u8>) {
    let received = tap.receive(PATIENCE).expect("receive");
    received.unwrap_or_else(|| panic!("{}: nothing came in {PATIENCE:?}", tap.name()))
}

/// The next frame is this one, and is complete.
#[track_caller]
pub fn assert_receives(tap: &Tap, frame: &[u8]) {
    assert_receives_with(tap, &VnetHeader::none(), frame);
}

/// The next frame is this one, with just this left to be done.
#[track_caller]
pub fn assert_receives_with(tap: &Tap, header: &VnetHeader, frame: &[u8]) {
    let (received_header, received) = receive(tap);
    assert_same(tap.name(), &received, frame);
    assert_eq!(
        received_header,
        *header,
        "{}: header of {} bytes",
        tap.name(),
        frame.len()
    );
}

/// The next frame is this one of several segments. The length of its headers is only a hint: the kernel says how much
/// of the frame is linear, which is all of it where an XDP program has seen it, and does not count a VLAN tag.
#[track_caller]
pub fn assert_receives_gso(tap: &Tap, header: &VnetHeader, frame: &[u8]) {
    let (received, data) = receive(tap);
    assert_same(tap.name(), &data, frame);
    let hint = usize::from(received.hdr_len);
    let headers = usize::from(header.hdr_len) - SingleVlanHeader::LEN;
    assert!(
        (headers..=frame.len()).contains(&hint),
        "{}: {received:?}",
        tap.name()
    );
    let received = VnetHeader {
        hdr_len: header.hdr_len,
        ..received
    };
    assert_eq!(
        received,
        *header,
        "{}: header of {} bytes",
        tap.name(),
        frame.len()
    );
}

/// Two frames are equal; says where they are not.
#[track_caller]
pub fn assert_same(place: &str, received: &[u8], expected: &[u8]) {
    let different = received
        .iter()
        .zip(expected)
        .position(|(received, expected)| received != expected);
    assert!(
        received == expected,
        "{place}: received {} bytes instead of {}; the first different one is {different:?}; beginning of both:\n\
         {:02x?}\n{:02x?}",
        received.len(),
        expected.len(),
        &received[..received.len().min(64)],
        &expected[..expected.len().min(64)],
    );
}

/// Nothing comes.
#[track_caller]
pub fn assert_silent(taps: &[&Tap]) {
    thread::sleep(SILENCE);
    for tap in taps {
        if let Some((header, frame)) = tap.receive(Duration::ZERO).expect("receive") {
            panic!(
                "{}: received {} bytes, {header:?}, {:02x?}",
                tap.name(),
                frame.len(),
                &frame[..14]
            );
        }
    }
}

/// Throws away what waits.
pub fn drain(taps: &[&Tap]) {
    for tap in taps {
        tap.drain().expect("receive");
    }
}
