//! The thread that has sent a frame.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;

use super::memory::{Address, member};

// Of `task_struct.flags`; they are macros, which BTF does not describe (include/linux/sched.h).

/// `PF_IO_WORKER`: a worker of `io_uring`.
const IO_WORKER: u32 = 0x10;
/// `PF_USER_WORKER`: a kernel thread of a user's process.
const USER_WORKER: u32 = 0x4000;
/// `PF_KTHREAD`: a thread of the kernel's own.
const KERNEL_THREAD: u32 = 0x20_0000;

/// Whether the frame that is being received is part of a batch of vhost-net, which the driver hands on frame by frame
/// (`tun_sendmsg`): the sender is a worker of vhost, and neither a process that writes nor a worker of `io_uring`.
#[inline(always)]
pub fn is_from_vhost() -> bool {
    // SAFETY: the helper has no preconditions.
    let task = Address::of(unsafe { bpf_get_current_task_btf() } as *const u8);
    let flags: u32 = task.open().read(member!(task_flags));
    flags & KERNEL_THREAD != 0 || flags & (USER_WORKER | IO_WORKER) == USER_WORKER
}
