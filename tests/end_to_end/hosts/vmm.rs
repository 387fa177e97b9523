//! Taps as VMMs open and drive them, each in its own manner: the flags of its descriptor, and the ioctls in its order.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, IoSlice, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    time::Duration,
};

use lab::{VnetHeader, tap::MAX_FRAME};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};

use crate::support::program::{LIMIT, happens, ip, link};

/// What is done to a tap after its descriptor was opened.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// `TUNSETIFF`, with more flags than `IFF_TAP` and `IFF_NO_PI`.
    Interface(libc::c_int),
    /// `TUNSETVNETHDRSZ`
    HeaderSize(libc::c_int),
    /// `TUNSETOFFLOAD`
    Offload(libc::c_uint),
    /// `TUNSETSNDBUF`
    SendBuffer(libc::c_int),
    /// `O_NONBLOCK` by `F_SETFL`
    NonBlocking,
    Up,
}

/// How a VMM opens a tap.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Of `open`, beside `O_RDWR` and `O_CLOEXEC`.
    pub flags: libc::c_int,
    pub steps: &'static [Step],
}

const CHECKSUMS_AND_TSO: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;

/// Firecracker 1.16.1: `Tap::open_named` (`src/vmm/src/devices/virtio/net/tap.rs`), then `configure_tap` and
/// `build_tap_offload_features` (`device.rs` beside it) for a guest that takes everything.
pub const FIRECRACKER: Manner = Manner {
    flags: libc::O_NONBLOCK,
    steps: &[
        Step::Interface(libc::IFF_VNET_HDR),
        Step::HeaderSize(12),
        Step::Offload(CHECKSUMS_AND_TSO | libc::TUN_F_UFO),
    ],
};

/// Cloud Hypervisor 53.0 with one pair of queues: `open_tap_rx_q_0` (`net_util/src/open_tap.rs`), then
/// `virtio_features_to_tap_offload` (`lib.rs` beside it) for a guest that takes everything.
pub const CLOUD_HYPERVISOR: Manner = Manner {
    flags: libc::O_NONBLOCK,
    steps: &[
        Step::Interface(libc::IFF_VNET_HDR),
        Step::Up,
        Step::HeaderSize(12),
        Step::Offload(CHECKSUMS_AND_TSO | libc::TUN_F_TSO_ECN | libc::TUN_F_UFO),
    ],
};

/// The same with several pairs of queues.
pub const CLOUD_HYPERVISOR_QUEUES: Manner = Manner {
    flags: libc::O_NONBLOCK,
    steps: &[
        Step::Interface(libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE),
        Step::Up,
        Step::HeaderSize(12),
        Step::Offload(CHECKSUMS_AND_TSO | libc::TUN_F_TSO_ECN | libc::TUN_F_UFO),
    ],
};

/// QEMU 10.0 without vhost-net (`net/tap-linux.c`, as strace has it), for a guest whose virtio driver takes everything.
/// It makes the tap itself, or opens one that is there; libvirt and Proxmox have it, or do the first step for it.
pub const QEMU: Manner = Manner {
    flags: 0,
    steps: &[
        Step::Interface(libc::IFF_VNET_HDR),
        Step::NonBlocking,
        Step::HeaderSize(10),
        Step::SendBuffer(i32::MAX),
        Step::HeaderSize(12),
        Step::Offload(CHECKSUMS_AND_TSO),
    ],
};

/// QEMU with two queues, whose descriptors it gets from incus (`internal/server/instance/drivers/driver_qemu.go` of
/// 7.3).
pub const INCUS: Manner = Manner {
    flags: 0,
    steps: &[
        Step::Interface(libc::IFF_VNET_HDR | libc::IFF_ONE_QUEUE | libc::IFF_MULTI_QUEUE),
        Step::NonBlocking,
        Step::SendBuffer(i32::MAX),
        Step::HeaderSize(12),
        Step::Offload(CHECKSUMS_AND_TSO),
    ],
};

/// `struct ifreq`
#[repr(C)]
pub struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

impl Request {
    fn new(device: &str, flags: libc::c_int) -> Self {
        let mut name = [0; libc::IFNAMSIZ];
        name[..device.len()].copy_from_slice(device.as_bytes());
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | flags;
        Self {
            name,
            flags: flags.try_into().expect("flags of a tap"),
            rest: [0; 22],
        }
    }
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

mod ioctl {
    use super::Request;

    nix::ioctl_readwrite_bad!(set_interface, libc::TUNSETIFF, Request);
    nix::ioctl_write_ptr_bad!(set_header_size, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_write_int_bad!(set_offload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_ptr_bad!(set_send_buffer, libc::TUNSETSNDBUF, libc::c_int);
}

/// A tap in the hands of a VMM. It goes when it is dropped, unless it is one that stays.
pub struct VmmTap {
    name: String,
    queues: Vec<File>,
}

impl VmmTap {
    /// Opens a tap, which is made unless it is there.
    #[track_caller]
    pub fn open(name: &str, manner: &Manner) -> Self {
        Self::with_queues(name, manner, 1)
    }

    /// Likewise, so many queues of it.
    #[track_caller]
    pub fn with_queues(name: &str, manner: &Manner, queues: usize) -> Self {
        let queues = (0..queues).map(|_| open_one(name, manner)).collect();
        Self {
            name: name.into(),
            queues,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The VMM ends, and its tap, which nobody has made one that stays, is gone. Not at once: a process that another
    /// thread is starting has the descriptor too until it executes its program.
    #[track_caller]
    pub fn end(self) {
        let name = self.name.clone();
        drop(self);
        assert!(
            happens(LIMIT, || link(&name).is_none()),
            "{name} is there {LIMIT:?} later"
        );
    }

    /// One `writev`, to the first queue.
    #[track_caller]
    pub fn send(&self, header: VnetHeader, frame: &[u8]) {
        let header = header.to_bytes();
        let written = (&self.queues[0]).write_vectored(&[IoSlice::new(&header), IoSlice::new(frame)]);
        let written = written.unwrap_or_else(|error| panic!("{}: send: {error}", self.name));
        assert_eq!(written, VnetHeader::LEN + frame.len());
    }

    /// The next frame, which must come, of any queue.
    #[track_caller]
    pub fn receive(&self) -> (VnetHeader, Vec<u8>) {
        let received = self.receive_within(LIMIT);
        received.unwrap_or_else(|| panic!("{}: nothing came in {LIMIT:?}", self.name))
    }

    /// The next frame of any queue, if one comes in time.
    #[track_caller]
    pub fn receive_within(&self, limit: Duration) -> Option<(VnetHeader, Vec<u8>)> {
        let mut buffer = vec![0; VnetHeader::LEN + MAX_FRAME];
        let mut length = 0;
        let came = happens(limit, || {
            self.queues.iter().any(|mut queue| match queue.read(&mut buffer) {
                Ok(read) => {
                    length = read;
                    true
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => false,
                Err(error) => panic!("{}: receive: {error}", self.name),
            })
        });
        let (header, frame) = buffer[..length].split_first_chunk().filter(|_| came)?;
        Some((VnetHeader::from_bytes(*header), frame.to_vec()))
    }
}

/// A descriptor of a tap.
#[track_caller]
pub fn open_one(name: &str, manner: &Manner) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(manner.flags)
        .open("/dev/net/tun");
    let file = file.expect("open /dev/net/tun");
    for step in manner.steps {
        take(&file, name, *step);
    }
    file
}

#[track_caller]
fn take(file: &File, name: &str, step: Step) {
    let fd = file.as_raw_fd();
    // SAFETY: the descriptor is open, and what the kernel reads and writes outlives each call.
    let taken = unsafe {
        match step {
            Step::Interface(flags) => {
                let mut request = Request::new(name, flags);
                let mut set = ioctl::set_interface(fd, &raw mut request);
                // A process that another thread is starting has the descriptor of who had it before until it executes its
                // program.
                happens(LIMIT, || {
                    if set == Err(Errno::EBUSY) {
                        set = ioctl::set_interface(fd, &raw mut request);
                    }
                    set != Err(Errno::EBUSY)
                });
                set
            }
            Step::HeaderSize(bytes) => ioctl::set_header_size(fd, &raw const bytes),
            Step::Offload(flags) => ioctl::set_offload(fd, flags.cast_signed()),
            Step::SendBuffer(bytes) => ioctl::set_send_buffer(fd, &raw const bytes),
            Step::NonBlocking => fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)),
            Step::Up => {
                ip(&format!("link set {name} up"));
                Ok(0)
            }
        }
    };
    taken.unwrap_or_else(|error| panic!("{name}: {step:?}: {error}"));
}
