//! That the fast path is native XDP, as the kernel's tracepoints have it.

use std::os::fd::AsRawFd as _;

use io_uring::{IoUring, opcode::Write, squeue, types::Fd};
use lab::{Tap, VnetHeader, vnet::GSO_NONE};

use crate::support::{
    frames::{Flow, Network, TCP_HEADERS, Tag, Transport, hello, partial, payload, segmented, tagged},
    linux_bridge::stop_learning,
    switch::Switch,
    trace::{Trace, Transmission},
    wire::{assert_receives_gso, assert_receives_with, receive, send, send_with},
};

crate::tests![
    small_known_unicast_leaves_by_a_native_redirect,
    what_tcx_forwards_makes_no_redirect_in_xdp,
    without_the_xdp_hook_nothing_is_redirected_in_xdp,
    no_redirect_is_refused_after_it_was_counted,
    what_a_worker_of_io_uring_writes_leaves_by_a_native_redirect,
];

fn transmission(from: &Tap, to: &Tap) -> Transmission {
    Transmission {
        from: from.ifindex(),
        to: to.ifindex(),
        sent: 1,
        drops: 0,
    }
}

fn small_known_unicast_leaves_by_a_native_redirect() {
    let switch = Switch::of(3);
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let trace = Trace::start();
    let mut expected = Vec::new();
    for (target, station) in [(vm2, 2), (vm3, 3)] {
        for network in [Network::V4, Network::V6] {
            for transport in [Transport::Tcp, Transport::Udp] {
                let frame = Flow::new(1, station, network, transport).frame(&payload(1000));
                for frame in [
                    frame.clone(),
                    tagged(&frame, Tag::customer(5)),
                    tagged(&frame, Tag::service(6)),
                ] {
                    let (header, frame) = partial(&frame);
                    send_with(vm1, &header, &frame);
                    let (received, _) = receive(target);
                    assert_eq!(received, VnetHeader::none());
                    expected.push(transmission(vm1, target));
                }
            }
        }
    }
    assert_eq!(trace.transmissions(), expected);
    assert_eq!(trace.errors(), Vec::<String>::new());
    let stats = switch.stats();
    assert_eq!(
        (stats.frames("vm1", "vm2"), stats.frames("vm1", "vm3")),
        ((12, 0), (12, 0)),
        "{stats:#?}"
    );
}

fn what_tcx_forwards_makes_no_redirect_in_xdp() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let trace = Trace::start();
    for (header, frame) in [
        segmented(&Flow::tcp(1, 2).frame(&payload(1000)), 536),
        segmented(&Flow::tcp(1, 2).frame(&payload(60_000)), 1400),
        (
            VnetHeader::none(),
            Flow::udp(1, 2).without_checksum(&payload(1000)),
        ),
        (VnetHeader::none(), hello(1)),
    ] {
        send_with(vm1, &header, &frame);
        if header.gso_type == GSO_NONE {
            assert_receives_with(vm2, &header, &frame);
        } else {
            assert_receives_gso(vm2, &header, &frame);
        }
    }
    assert_eq!((trace.transmissions(), trace.errors()), (vec![], vec![]));
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (0, 3), "{stats:#?}");
}

fn without_the_xdp_hook_nothing_is_redirected_in_xdp() {
    let mut switch = Switch::with_hook(2, "tcx");
    switch.add(Tap::builder("vm3").blocking());
    switch.ok("attach vm3");
    let [vm1, vm2, vm3] = switch.taps();
    switch.introduce();
    ["vm1", "vm3"].into_iter().for_each(stop_learning);
    let trace = Trace::start();
    for (from, station) in [(vm1, 1), (vm3, 3)] {
        send(from, &Flow::tcp(station, 2).frame(b"small"));
        receive(vm2);
    }
    assert_eq!((trace.transmissions(), trace.errors()), (vec![], vec![]));
    // To a port that has no program of its own a native redirect goes all the same.
    switch.ok("attach vm1 --hook xdp");
    send(vm1, &Flow::tcp(1, 2).frame(b"small"));
    receive(vm2);
    assert_eq!(trace.transmissions(), [transmission(vm1, vm2)]);
}

fn no_redirect_is_refused_after_it_was_counted() {
    let mut switch = Switch::empty();
    switch.add(Tap::builder("vm1").mtu(3000));
    switch.add(Tap::builder("vm2").mtu(1500));
    switch.attach_all("xdp");
    let [vm1, vm2] = switch.taps();
    let tags = [None, Some(Tag::customer(5)), Some(Tag::service(6))];
    let wrap = |frame: &[u8], tag: Option<Tag>| tag.map_or_else(|| frame.to_vec(), |tag| tagged(frame, tag));
    switch.introduce();
    stop_learning("vm1");
    let trace = Trace::start();
    for tag in tags {
        for length in [TCP_HEADERS, 60, 1514, 1515, 1516, 1517, 1518, 1519, 2000] {
            let (header, frame) = partial(&wrap(&Flow::tcp(1, 2).of_length(length), tag));
            send_with(vm1, &header, &frame);
        }
    }
    assert_eq!(trace.errors(), Vec::<String>::new());
    let stats = switch.stats();
    // What is left to the bridge is too long for it too.
    let received = vm2.drain().expect("receive") as u64;
    assert_eq!(received, stats.port("vm1").forwarded.frames, "{stats:#?}");
    assert_eq!(received, 3 * 7, "{stats:#?}");
    assert_eq!(
        trace.transmissions().len() as u64,
        stats.path("vm1", "vm2", "xdp").frames,
        "{stats:#?}"
    );
}

/// A worker is a thread of the kernel's, as one of vhost-net is, but what it writes is no part of a batch.
fn what_a_worker_of_io_uring_writes_leaves_by_a_native_redirect() {
    let switch = Switch::of(2);
    let [vm1, vm2] = switch.taps();
    switch.introduce();
    stop_learning("vm1");
    let (header, frame) = partial(&Flow::tcp(1, 2).frame(&payload(100)));
    let bytes = [&header.to_bytes()[..], &frame].concat();
    let mut ring = IoUring::new(2).expect("make an io_uring");
    let length = u32::try_from(bytes.len()).expect("short");
    // By a worker, not by the calling thread.
    let write = Write::new(Fd(vm1.as_raw_fd()), bytes.as_ptr(), length)
        .build()
        .flags(squeue::Flags::ASYNC);
    // SAFETY: the bytes outlive the call that waits for the end of the operation.
    unsafe { ring.submission().push(&write) }.expect("room for an operation");
    ring.submit_and_wait(1).expect("write");
    let written = ring
        .completion()
        .next()
        .expect("an operation that has ended")
        .result();
    assert_eq!(written, i32::try_from(bytes.len()).expect("short"));
    receive(vm2);
    let stats = switch.stats();
    assert_eq!(stats.frames("vm1", "vm2"), (1, 0), "{stats:#?}");
}
