//! Commands are heeded by the very next frame, though the programs remember what they did with the one before. Through
//! the library, which is done within the tick of the kernel's clock that they remember for; a process is not.

use lab::Tap;
use tapbridge::{
    bridge::Bridge,
    common::{frame::Vlan, mac::Mac},
    state::{Locked, State},
};

use crate::support::{
    frames::{Flow, mac},
    switch::Switch,
    wire::{assert_receives, drain, send},
};

crate::tests![
    an_address_that_has_just_been_deleted_is_flooded_to,
    an_address_that_has_just_been_put_elsewhere_is_sent_to_there,
    an_address_that_has_just_been_flushed_is_flooded_to,
    a_static_address_that_has_just_been_taken_away_is_flooded_to,
];

/// A tick may pass between a frame and the next: often enough it does not.
const TIMES: usize = 30;

const UNTAGGED: Vlan = Vlan(0);

/// Does something to the bridge after a frame from vm1 to vm2, and finds the next one on these taps.
fn check(prepare: fn(&mut Bridge), change: fn(&mut Bridge), then: &[usize]) {
    for hook in ["xdp", "tcx"] {
        let switch = Switch::with_hook(3, hook);
        let taps: [&Tap; 3] = switch.taps();
        let locked: Locked = State::new(switch.state()).lock().expect("lock the state");
        let mut bridge = Bridge::open(&locked, "tapbridge").expect("open the bridge");
        let frame = Flow::tcp(1, 2).frame(b"to whom?");
        for _ in 0..TIMES {
            bridge.flush(None, true).expect("flush");
            switch.introduce();
            prepare(&mut bridge);
            drain(&taps);
            send(taps[0], &frame);
            assert_receives(taps[1], &frame);
            send(taps[0], &frame);
            change(&mut bridge);
            send(taps[0], &frame);
            assert_receives(taps[1], &frame);
            for &tap in then {
                assert_receives(taps[tap], &frame);
            }
            for tap in taps {
                assert_eq!(
                    tap.drain().expect("drain"),
                    0,
                    "{hook}: a frame too many on {}",
                    tap.name()
                );
            }
        }
    }
}

fn an_address_that_has_just_been_deleted_is_flooded_to() {
    check(
        |_| {},
        |bridge| assert!(bridge.remove_address(Mac(mac(2)), UNTAGGED).expect("delete")),
        &[1, 2],
    );
}

fn an_address_that_has_just_been_put_elsewhere_is_sent_to_there() {
    check(
        |_| {},
        |bridge| bridge.add_static(Mac(mac(2)), UNTAGGED, 2).expect("add"),
        &[2],
    );
}

fn an_address_that_has_just_been_flushed_is_flooded_to() {
    check(
        |_| {},
        |bridge| assert_ne!(bridge.flush(Some(&[1]), false).expect("flush"), 0),
        &[1, 2],
    );
}

fn a_static_address_that_has_just_been_taken_away_is_flooded_to() {
    check(
        |bridge| bridge.add_static(Mac(mac(2)), UNTAGGED, 1).expect("add"),
        |bridge| assert_ne!(bridge.flush(Some(&[1]), true).expect("flush"), 0),
        &[1, 2],
    );
}
