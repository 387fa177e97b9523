//! Macvtaps on the real kernel.

use std::{os::fd::AsFd, time::Duration};

use lab::{Macvtap, Namespace, Offloads, VnetHeader, netns};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{read, write},
};

use crate::{
    PATIENCE, Test,
    devices::{ip, udp_frame},
};

pub const TESTS: &[Test] = &[(
    "frames_cross_the_macvtaps_of_the_namespace_that_they_were_opened_in",
    frames_stay_in_their_namespace,
)];

/// Two connected macvtaps in a namespace of their own.
struct Pair {
    sender: Macvtap,
    receiver: Macvtap,
}

impl Pair {
    fn new() -> Self {
        let namespace = Namespace::anonymous().expect("namespace");
        namespace.run(|| {
            netns::disable_ipv6().expect("a quiet namespace");
            ip("link add lower type veth peer name lower-peer");
            for end in ["lower-peer", "lower"] {
                ip(&format!("link set {end} up"));
            }
            make("vm1", "02:00:00:00:00:01");
            make("vm2", "02:00:00:00:00:02");
            let [sender, receiver] =
                ["vm1", "vm2"].map(|name| Macvtap::open(name, Offloads::All).expect("open a macvtap"));
            Self { sender, receiver }
        })
    }

    fn send(&self, frame: &[u8]) {
        let message = [&VnetHeader::none().to_bytes(), frame].concat();
        assert_eq!(write(&self.sender, &message), Ok(message.len()));
    }

    /// The frame that comes within a time.
    fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let timeout = PollTimeout::try_from(timeout).expect("a short time");
        let mut ready = [PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, timeout).expect("poll") == 0 {
            return None;
        }
        let mut buffer = [0; 2048];
        let length = read(&self.receiver, &mut buffer).expect("read");
        Some(buffer[VnetHeader::LEN..length].to_vec())
    }
}

fn make(name: &str, mac: &str) {
    ip(&format!(
        "link add {name} link lower address {mac} type macvtap mode bridge"
    ));
    ip(&format!("link set {name} up"));
}

/// Names and indices are the same in both namespaces.
fn frames_stay_in_their_namespace() {
    let pairs = [Pair::new(), Pair::new()];
    for (mine, other) in [(0, 1), (1, 0)] {
        let frame = udp_frame(&[0x5a; 100]);
        pairs[mine].send(&frame);
        assert_eq!(pairs[mine].receive(PATIENCE), Some(frame));
        assert_eq!(pairs[other].receive(Duration::ZERO), None);
    }
}
