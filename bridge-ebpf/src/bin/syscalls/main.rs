//! Counts the system calls of chosen processes: one program on the tracepoint that every call of every process passes,
//! hence the choice comes first.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::cast_possible_truncation,
        clippy::needless_pass_by_value,
        reason = "the kernel's helpers and contexts speak in registers, whatever the values' width is"
    )
)]

#[cfg(target_arch = "bpf")]
mod address;
#[cfg(target_arch = "bpf")]
#[path = "../../runtime.rs"]
mod runtime;
#[cfg(target_arch = "bpf")]
mod sys_enter;

/// On the host there is nothing to run: the program is built for the kernel by the build script of `bridge-user`.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
