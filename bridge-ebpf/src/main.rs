//! The switch's two programs. Each is a thin shell: it reads the frame's header, asks [`bridge_common::decision`]
//! where the frame goes, and does it.

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
mod account;
#[cfg(target_arch = "bpf")]
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod learn;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod runtime;
#[cfg(target_arch = "bpf")]
mod tcx;
#[cfg(target_arch = "bpf")]
mod xdp;

/// On the host there is nothing to run: the programs are built for the kernel by the build script of `bridge-user`.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
