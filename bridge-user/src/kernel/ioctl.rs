//! ioctls of bridges and taps, which need no dump of netlink and no runtime.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

/// `SIOCBRADDBR`, `SIOCBRADDIF` and `SIOCBRDELIF` (include/uapi/linux/sockios.h)
const ADD_BRIDGE: libc::c_ulong = 0x89a0;
const ADD_PORT: libc::c_ulong = 0x89a2;
const REMOVE_PORT: libc::c_ulong = 0x89a3;

/// `TUNSETOFFLOAD` and `TUNSETVNETHDRSZ` (`include/uapi/linux/if_tun.h`)
const SET_OFFLOADS: libc::c_ulong = 0x4004_54d0;
const SET_HEADER: libc::c_ulong = 0x4004_54d8;
/// `TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6`, `TUN_F_USO4` and `TUN_F_USO6`
const OFFLOADS: libc::c_ulong = 0x67;
/// Bytes of `struct virtio_net_hdr_v1`.
const HEADER: libc::c_int = 12;

/// A socket to ask by, in the calling thread's network namespace.
pub fn socket() -> io::Result<OwnedFd> {
    // Any will do, and this family is there where services may not speak to the internet.
    // SAFETY: the call takes three numbers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `struct ifreq` of an interface.
fn request(name: &str) -> libc::ifreq {
    // SAFETY: all zeroes are a valid `struct ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1]
        .iter_mut()
        .zip(name.bytes())
    {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

pub fn make_tap(tun: &File, name: &str) -> io::Result<()> {
    make(tun, name, libc::IFF_TAP | libc::IFF_NO_PI)
}

/// Makes a tap as a VMM holds it: with a virtio-net header of 12 bytes before each frame, and with all offloads.
pub fn make_tap_of_vmm(tun: &File, name: &str) -> io::Result<()> {
    make(tun, name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)?;
    let header = HEADER;
    // SAFETY: the kernel reads an `int`, which outlives the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), SET_HEADER as _, &raw const header) })?;
    // SAFETY: the argument is a number.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), SET_OFFLOADS as _, OFFLOADS) })
}

fn make(tun: &File, name: &str, flags: libc::c_int) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes one `struct ifreq`.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })
}

pub fn add_bridge(socket: &OwnedFd, bridge: &str) -> io::Result<()> {
    let request = request(bridge);
    // SAFETY: the kernel reads a name of at most `IFNAMSIZ` bytes.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), ADD_BRIDGE as _, request.ifr_name.as_ptr()) })
}

/// Makes the device of this index a port of a bridge.
pub fn add_port(socket: &OwnedFd, bridge: &str, ifindex: u32) -> io::Result<()> {
    let mut request = request(bridge);
    request.ifr_ifru.ifru_ifindex = ifindex.cast_signed();
    // SAFETY: the kernel reads one `struct ifreq`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), ADD_PORT as _, &raw mut request) })
}

/// Takes the device of this index out of a bridge; `EINVAL` if it is no port of that one (`br_del_if`).
pub fn remove_port(socket: &OwnedFd, bridge: &str, ifindex: u32) -> io::Result<()> {
    let mut request = request(bridge);
    request.ifr_ifru.ifru_ifindex = ifindex.cast_signed();
    // SAFETY: the kernel reads one `struct ifreq`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), REMOVE_PORT as _, &raw mut request) })
}

pub fn index(socket: &OwnedFd, name: &str) -> io::Result<u32> {
    let mut request = request(name);
    // SAFETY: the kernel reads and writes one `struct ifreq`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request) })?;
    // SAFETY: the kernel has just written this member.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned())
}

/// The name of the device of this index; `ENODEV` if there is none.
pub fn name(socket: &OwnedFd, ifindex: u32) -> io::Result<String> {
    let mut request = request("");
    request.ifr_ifru.ifru_ifindex = ifindex.cast_signed();
    // SAFETY: the kernel reads and writes one `struct ifreq`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFNAME as _, &raw mut request) })?;
    let bytes = request.ifr_name.map(|byte| byte.to_ne_bytes()[0]);
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

pub fn set_up(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the kernel reads one `struct ifreq`.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) })
}
