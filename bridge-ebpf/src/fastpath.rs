//! The fast path of Linux bridges: at a bridge's port two programs redirect what the bridge would send to one other port
//! unchanged, and leave all else to it. Where a frame goes is [`bridge_common::forwarding`]'s to say.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::needless_pass_by_value,
        reason = "the kernel's helpers and contexts speak in registers, whatever the values' width is"
    )
)]

#[cfg(target_arch = "bpf")]
#[path = "fastpath/ask.rs"]
mod ask;
#[cfg(target_arch = "bpf")]
#[path = "fastpath/bridge.rs"]
mod bridge;
#[cfg(target_arch = "bpf")]
#[path = "fastpath/counters.rs"]
mod counters;
#[cfg(target_arch = "bpf")]
#[path = "fastpath/memory.rs"]
mod memory;
#[cfg(target_arch = "bpf")]
#[path = "fastpath/negative_cache.rs"]
mod negative_cache;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
#[path = "fastpath/peek.rs"]
mod peek;
#[cfg(target_arch = "bpf")]
mod runtime;
#[cfg(target_arch = "bpf")]
#[path = "fastpath/tcx.rs"]
mod tcx;
#[cfg(target_arch = "bpf")]
#[path = "fastpath/xdp.rs"]
mod xdp;

/// On the host there is nothing to run: the programs are built for the kernel by the build script of `bridge-user`.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
