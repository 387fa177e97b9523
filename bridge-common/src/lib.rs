//! What both sides of `tapbridge` share: the types that live in maps, and the programs' logic as pure functions.
//!
//! A frame's way, read top to bottom: [`frame`] reads its Ethernet header, [`forwarding`] says whether it can go past the
//! bridge and where, [`checksum`] says what native XDP must do to its checksum before it can leave by XDP. None of these
//! calls the kernel: what they need to know reaches them through the traits [`frame::Frame`] and [`forwarding::Tables`],
//! so the same code runs in both hooks and in tests on the host. Which hooks a port has is chosen in user space, as
//! [`hook_policy`] says.

#![cfg_attr(not(test), no_std)]

pub mod checksum;
pub mod counters;
pub mod fastpath;
pub mod forwarding;
pub mod frame;
mod hook;
pub mod hook_policy;
pub mod layout;
pub mod mac;
pub mod observed;
pub mod port;
pub mod syscalls;

pub use hook::Hook;

/// Marks the types that aya may copy in and out of maps.
#[cfg(feature = "user")]
mod plain {
    macro_rules! plain {
        ($($shared:ty),* $(,)?) => {
            $(
                // SAFETY: `repr(C)`, made of integers only, without padding (asserted below).
                unsafe impl aya::Pod for $shared {}
            )*
        };
    }

    plain!(
        crate::counters::PathCounters,
        crate::counters::Traffic,
        crate::fastpath::Addition,
        crate::fastpath::Event,
        crate::fastpath::Offsets,
        crate::fastpath::Path,
        crate::fastpath::Peek,
        crate::fastpath::Port,
        crate::fastpath::PortCounters,
        crate::fastpath::Settings,
        crate::fastpath::Told,
        crate::forwarding::NegativeCache,
        crate::observed::Key,
        crate::syscalls::Key,
        crate::syscalls::Settings,
    );
}

/// No padding: the verifier refuses uninitialised bytes on their way into a map.
const _: () = {
    assert!(size_of::<counters::PathCounters>() == 4 * 8);
    assert!(size_of::<counters::Traffic>() == 2 * 8);
    assert!(size_of::<fastpath::Addition>() == 4 * 4);
    assert!(size_of::<fastpath::Event>() == 8 + 6 * 4 + port::INTERFACE_NAME);
    assert!(size_of::<fastpath::Offsets>().is_multiple_of(8));
    assert!(size_of::<fastpath::Path>() == 2 * 4);
    assert!(size_of::<fastpath::Peek>() == 2 * 4 + 8 + 8 * fastpath::PEEK_SLOTS);
    assert!(size_of::<fastpath::Port>() == 2 * 4 + 8 + port::INTERFACE_NAME + 2 * 4 + 2 * 8);
    assert!(size_of::<fastpath::PortCounters>() == fastpath::PortCounters::WORDS * 8);
    assert!(size_of::<fastpath::Settings>() == 2 * 4 + 2 * 8);
    assert!(size_of::<fastpath::Told>() == 4 + 2 * 2);
    assert!(size_of::<forwarding::NegativeCache>().is_multiple_of(4 * 8));
    assert!(size_of::<observed::Key>() == 3 * 4);
    assert!(size_of::<syscalls::Key>() == syscalls::NAME + 3 * 4);
    assert!(size_of::<syscalls::Settings>() == 7 * 8);
};
