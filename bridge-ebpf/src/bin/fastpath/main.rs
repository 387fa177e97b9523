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
mod clock;
#[cfg(target_arch = "bpf")]
mod counters;
#[cfg(target_arch = "bpf")]
mod events;
#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod log;
#[cfg(target_arch = "bpf")]
mod negative_cache;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod ports;
#[cfg(target_arch = "bpf")]
mod probes;
#[cfg(target_arch = "bpf")]
#[path = "../../runtime.rs"]
mod runtime;

/// On the host there is nothing to run: the programs are built for the kernel by the build script of `bridge-user`.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
