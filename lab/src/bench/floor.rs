//! The floor: programs that redirect every frame of one device to another, and do nothing else; or, where frames stay with
//! the bridge, programs that do nothing. Nothing that sits at the same hooks can cost less.
//!
//! They are assembled by hand and go to the kernel by its bare system call, so that what tapbridge is measured beside
//! shares nothing with it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use anyhow::{Context, Result};
use bridge_common::Hook;
use nix::libc;

// Of `enum bpf_cmd`, `bpf_map_type`, `bpf_prog_type` and `bpf_attach_type`.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_DEVMAP: u32 = 14;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;

const XDP_PASS: i32 = 2;
const TCX_NEXT: i32 = -1;

// Operation codes, and the helpers that are called.
const LOAD_64: u8 = 0x18;
const MOVE: u8 = 0xb7;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const REDIRECT: i32 = 23;
const REDIRECT_MAP: i32 = 51;
/// `BPF_PSEUDO_MAP_FD` in the source register's place, and register 1 in the destination's.
const MAP_TO_R1: u8 = 0x11;

type Instruction = [u8; 8];

/// A program at a device, as long as it lives.
pub struct Floor {
    /// The last one: with it the program and its map go.
    _link: OwnedFd,
}

impl Floor {
    /// Redirects what one interface of the calling thread's namespace receives to another.
    pub fn new(hook: Hook, from: u32, to: u32) -> Result<Self> {
        let program = match hook {
            Hook::Xdp => xdp(to),
            Hook::Tcx => tcx(to),
        };
        Self::attach(hook, program, from)
    }

    /// Lets pass what an interface of the calling thread's namespace receives.
    pub fn idle(hook: Hook, at: u32) -> Result<Self> {
        let (kind, pass) = match hook {
            Hook::Xdp => (PROG_TYPE_XDP, XDP_PASS),
            Hook::Tcx => (PROG_TYPE_SCHED_CLS, TCX_NEXT),
        };
        let program = [instruction(MOVE, 0, pass), instruction(EXIT, 0, 0)];
        Self::attach(hook, load(kind, &program), at)
    }

    fn attach(hook: Hook, program: io::Result<OwnedFd>, at: u32) -> Result<Self> {
        let program = program.with_context(|| format!("loading the floor's program for {}", hook.name()))?;
        let place = match hook {
            Hook::Xdp => ATTACH_XDP,
            Hook::Tcx => ATTACH_TCX_INGRESS,
        };
        let link = bpf(LINK_CREATE, &[word(&program), at, place, 0]).context("attaching the floor")?;
        Ok(Self { _link: owned(link) })
    }
}

fn xdp(to: u32) -> io::Result<OwnedFd> {
    let map = owned(bpf(MAP_CREATE, &[MAP_TYPE_DEVMAP, 4, 4, 1])?);
    let (slot, device) = ([0_u32], [to]);
    let ([k0, k1], [v0, v1]) = (address(&slot), address(&device));
    bpf(MAP_UPDATE_ELEM, &[word(&map), 0, k0, k1, v0, v1, 0, 0])?;
    load(
        PROG_TYPE_XDP,
        &[
            instruction(LOAD_64, MAP_TO_R1, map.as_raw_fd()),
            instruction(0, 0, 0),
            // The slot, and what to do were it empty: XDP_ABORTED.
            instruction(MOVE, 2, 0),
            instruction(MOVE, 3, 0),
            instruction(CALL, 0, REDIRECT_MAP),
            instruction(EXIT, 0, 0),
        ],
    )
}

fn tcx(to: u32) -> io::Result<OwnedFd> {
    load(
        PROG_TYPE_SCHED_CLS,
        &[
            instruction(MOVE, 1, to.cast_signed()),
            // To its egress.
            instruction(MOVE, 2, 0),
            instruction(CALL, 0, REDIRECT),
            instruction(EXIT, 0, 0),
        ],
    )
}

fn load(kind: u32, program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"GPL".to_bytes_with_nul();
    let ([p0, p1], [l0, l1]) = (address(program), address(license));
    let length = u32::try_from(program.len()).expect("a handful");
    bpf(PROG_LOAD, &[kind, length, p0, p1, l0, l1, 0, 0, 0, 0, 0, 0]).map(owned)
}

/// The register is the destination's, in the low half; the source's in the high half.
fn instruction(code: u8, registers: u8, immediate: i32) -> Instruction {
    let [a, b, c, d] = immediate.to_ne_bytes();
    [code, registers, 0, 0, a, b, c, d]
}

/// `union bpf_attr` is a sequence of 32-bit words, 64-bit ones aligned; what is behind the given ones is zero.
fn bpf(command: libc::c_long, attributes: &[u32]) -> io::Result<RawFd> {
    #[repr(C, align(8))]
    struct Attributes([u32; 12]);
    let mut all = Attributes([0; 12]);
    all.0[..attributes.len()].copy_from_slice(attributes);
    let size = size_of_val(attributes);
    // SAFETY: the kernel reads as many bytes as it is told, and through the addresses in them, whose slices the
    // callers hold across the call. Nothing is written.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut all, size) };
    RawFd::try_from(result)
        .ok()
        .filter(|&fd| fd >= 0)
        .ok_or_else(io::Error::last_os_error)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made the descriptor, for nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn word(fd: &impl AsRawFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// The two halves of a 64-bit word in a sequence of 32-bit ones.
fn address<T>(slice: &[T]) -> [u32; 2] {
    let bytes = (slice.as_ptr().expose_provenance() as u64).to_ne_bytes();
    let (first, second) = bytes.split_at(4);
    [first, second].map(|half| u32::from_ne_bytes(half.try_into().expect("four bytes")))
}
