//! vhost-net, driven by this process in the place of a VMM: the kernel sends what is in a ring of ours, as it does for
//! a guest whose network card has `vhost=on`.

use std::{
    ffi::c_void,
    fs::{File, OpenOptions},
    io::Write as _,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use lab::{Tap, VnetHeader};

use super::program::LIMIT;

/// The device; not there on every machine.
pub const DEVICE: &str = "/dev/vhost-net";

/// `VIRTIO_F_VERSION_1`, without which the header has 10 bytes, and `VIRTIO_NET_F_MRG_RXBUF`, with which it has 12.
const FEATURES: u64 = 1 << 32 | 1 << 15;

/// Descriptors of the ring.
const DESCRIPTORS: usize = 256;
/// Where the ring's parts lie (virtio 1.1, 2.6), and where the frames begin.
const AVAILABLE: usize = 16 * DESCRIPTORS;
const USED: usize = 8192;
const FRAMES: usize = 16384;
/// Memory that the guest would have.
const MEMORY: usize = 24 << 20;

const SENDING: u32 = 1;
const NO: u8 = 0;

mod ioctl {
    use super::{Address, Descriptor, Table, VringFile};

    const VHOST: u8 = 0xaf;

    nix::ioctl_read!(get_features, VHOST, 0x00, u64);
    nix::ioctl_write_ptr!(set_features, VHOST, 0x00, u64);
    nix::ioctl_none!(set_owner, VHOST, 0x01);
    // The command is that of the table's head alone.
    nix::ioctl_write_ptr_bad!(set_memory, nix::request_code_write!(VHOST, 0x03, 8), Table);
    nix::ioctl_write_ptr!(set_vring_number, VHOST, 0x10, Descriptor);
    nix::ioctl_write_ptr!(set_vring_address, VHOST, 0x11, Address);
    nix::ioctl_write_ptr!(set_vring_base, VHOST, 0x12, Descriptor);
    nix::ioctl_write_ptr!(set_vring_kick, VHOST, 0x20, VringFile);
    nix::ioctl_write_ptr!(set_vring_call, VHOST, 0x21, VringFile);
    nix::ioctl_write_ptr!(set_backend, VHOST, 0x30, VringFile);
    nix::ioctl_write_ptr!(set_fork_from_owner, VHOST, 0x84, u8);
}

/// `struct vhost_vring_state`
#[repr(C)]
pub struct Descriptor {
    ring: u32,
    number: u32,
}

/// `struct vhost_vring_file`
#[repr(C)]
pub struct VringFile {
    ring: u32,
    fd: i32,
}

/// `struct vhost_vring_addr`
#[repr(C)]
pub struct Address {
    ring: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// `struct vhost_memory` of one region
#[repr(C)]
pub struct Table {
    regions: u32,
    padding: u32,
    guest: u64,
    size: u64,
    user: u64,
    flags: u64,
}

/// `struct vring_desc`
#[repr(C)]
struct RingDescriptor {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

/// Who carries the frames out of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    /// A thread of the process that serves the ring, made by the kernel: the default since 6.4.
    Task,
    /// A thread of the kernel's own.
    Kthread,
}

/// A tap whose frames vhost-net sends.
pub struct VhostNet {
    device: File,
    memory: *mut c_void,
    kick: File,
    _call: File,
    /// Frames that were ever put into the ring.
    sent: u16,
}

impl VhostNet {
    /// Serves a tap, which is still read through its own descriptor.
    pub fn serve(tap: &Tap, worker: Worker) -> Self {
        let device = OpenOptions::new().read(true).write(true).open(DEVICE);
        let device = device.expect("open /dev/vhost-net");
        let fd = device.as_raw_fd();
        // SAFETY: an anonymous mapping of its own, which is checked.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                MEMORY,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(memory, libc::MAP_FAILED, "map memory");
        let at = |offset: usize| memory as u64 + offset as u64;
        let (kick, call) = (event(), event());
        let table = Table {
            regions: 1,
            padding: 0,
            guest: at(0),
            size: MEMORY as u64,
            user: at(0),
            flags: 0,
        };
        let address = Address {
            ring: SENDING,
            flags: 0,
            descriptors: at(0),
            used: at(USED),
            available: at(AVAILABLE),
            log: 0,
        };
        let file = |file: &File| VringFile {
            ring: SENDING,
            fd: file.as_raw_fd(),
        };
        let number = |number: usize| Descriptor {
            ring: SENDING,
            number: u32::try_from(number).expect("small"),
        };
        let mut features = 0;
        // SAFETY: each command reads or writes one structure of the form that it is declared with, which outlives the
        // call; the memory that they name lives as long as the device is open.
        unsafe {
            if worker == Worker::Kthread {
                ioctl::set_fork_from_owner(fd, ptr::from_ref(&NO)).expect("VHOST_SET_FORK_FROM_OWNER");
            }
            ioctl::set_owner(fd).expect("VHOST_SET_OWNER");
            ioctl::get_features(fd, &raw mut features).expect("VHOST_GET_FEATURES");
            assert_eq!(features & FEATURES, FEATURES);
            ioctl::set_features(fd, ptr::from_ref(&FEATURES)).expect("VHOST_SET_FEATURES");
            ioctl::set_memory(fd, &raw const table).expect("VHOST_SET_MEM_TABLE");
            ioctl::set_vring_number(fd, ptr::from_ref(&number(DESCRIPTORS))).expect("VHOST_SET_VRING_NUM");
            ioctl::set_vring_base(fd, ptr::from_ref(&number(0))).expect("VHOST_SET_VRING_BASE");
            ioctl::set_vring_address(fd, &raw const address).expect("VHOST_SET_VRING_ADDR");
            ioctl::set_vring_kick(fd, ptr::from_ref(&file(&kick))).expect("VHOST_SET_VRING_KICK");
            ioctl::set_vring_call(fd, ptr::from_ref(&file(&call))).expect("VHOST_SET_VRING_CALL");
            let backend = VringFile {
                ring: SENDING,
                fd: tap.as_raw_fd(),
            };
            ioctl::set_backend(fd, &raw const backend).expect("VHOST_NET_SET_BACKEND");
        }
        Self {
            device,
            memory,
            kick,
            _call: call,
            sent: 0,
        }
    }

    /// Puts frames into the ring at once, and waits until all of them have been sent.
    #[track_caller]
    pub fn send(&mut self, frames: &[(VnetHeader, Vec<u8>)]) {
        assert!(frames.len() <= DESCRIPTORS);
        let mut place = FRAMES;
        for (index, (header, frame)) in frames.iter().enumerate() {
            let bytes = [&header.to_bytes()[..], frame].concat();
            assert!(
                place + bytes.len() <= MEMORY,
                "a batch of {} bytes",
                place + bytes.len()
            );
            let slot = (usize::from(self.sent) + index) % DESCRIPTORS;
            let number = u16::try_from(index).expect("few");
            // SAFETY: all of it lies in the mapping, and the kernel reads it only once the ring's index says so.
            unsafe {
                ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.byte_add(place).cast(), bytes.len());
                let descriptors = self.memory.cast::<RingDescriptor>();
                descriptors.add(index).write(RingDescriptor {
                    address: self.memory as u64 + place as u64,
                    length: u32::try_from(bytes.len()).expect("short"),
                    flags: 0,
                    next: 0,
                });
                self.memory
                    .byte_add(AVAILABLE + 4 + 2 * slot)
                    .cast::<u16>()
                    .write(number);
            }
            place = (place + bytes.len()).next_multiple_of(64);
        }
        self.sent = self.sent.wrapping_add(u16::try_from(frames.len()).expect("few"));
        self.index(AVAILABLE).store(self.sent, Ordering::Release);
        self.kick.write_all(&1_u64.to_ne_bytes()).expect("kick");
        let deadline = Instant::now() + LIMIT;
        while self.index(USED).load(Ordering::Acquire) != self.sent {
            assert!(
                Instant::now() < deadline,
                "vhost-net has not sent {} frames in {LIMIT:?}",
                frames.len()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The index of a part of the ring, which follows two bytes of flags.
    fn index(&self, part: usize) -> &AtomicU16 {
        // SAFETY: it lies in the mapping, at an even address, and is read and written only as an atomic.
        unsafe { AtomicU16::from_ptr(self.memory.byte_add(part + 2).cast()) }
    }
}

impl Drop for VhostNet {
    fn drop(&mut self) {
        let none = VringFile {
            ring: SENDING,
            fd: -1,
        };
        // SAFETY: as in `serve`. Without a backend the kernel leaves the memory alone.
        unsafe {
            let _ = ioctl::set_backend(self.device.as_raw_fd(), &raw const none);
            libc::munmap(self.memory, MEMORY);
        }
    }
}

fn event() -> File {
    // SAFETY: the call takes two numbers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    assert!(fd >= 0, "make an eventfd");
    // SAFETY: the kernel has just opened this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }.into()
}
