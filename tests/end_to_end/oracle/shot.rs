//! A program of somebody else's at tcx: it drops frames that are longer than 1000 bytes.

use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::support::bpf;

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const LINK_DETACH: libc::c_long = 34;
/// `BPF_PROG_TYPE_SCHED_CLS`
const SCHED_CLS: u32 = 3;

/// Where it is attached (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Side {
    Ingress = 46,
    Egress = 47,
}

/// `struct bpf_insn`; registers are the destination's number and 16 times the source's.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers,
        offset,
        immediate,
    }
}

const PROGRAM: [Instruction; 5] = [
    // r2 = skb->len
    instruction(0x61, 0x12, 0, 0),
    // r0 = TCX_NEXT
    instruction(0xb7, 0, 0, -1),
    // if r2 <= 1000 goto exit
    instruction(0xb5, 2, 1, 1000),
    // r0 = TCX_DROP
    instruction(0xb7, 0, 0, 2),
    // exit
    instruction(0x95, 0, 0, 0),
];

#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    address: u64,
    license: u64,
}

#[repr(C)]
struct Create {
    program: u32,
    ifindex: u32,
    side: u32,
    flags: u32,
}

#[repr(C)]
struct Detach {
    link: u32,
}

/// The program where it is attached.
pub struct Shot(OwnedFd);

impl Drop for Shot {
    fn drop(&mut self) {
        // Closing the descriptor is not enough at once: a process that another thread is starting has a copy of it
        // until its exec. It fails only where the device is gone.
        let link = self.0.as_raw_fd().cast_unsigned();
        let _ = bpf::call(LINK_DETACH, &Detach { link });
    }
}

/// Attaches it behind what is there.
pub fn attach(ifindex: u32, side: Side) -> Shot {
    let program = bpf::open(
        PROG_LOAD,
        &Load {
            kind: SCHED_CLS,
            instructions: u32::try_from(PROGRAM.len()).expect("few"),
            address: PROGRAM.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
        },
    );
    Shot(bpf::open(
        LINK_CREATE,
        &Create {
            program: program.as_raw_fd().cast_unsigned(),
            ifindex,
            side: side as u32,
            flags: 0,
        },
    ))
}
