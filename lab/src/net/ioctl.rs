//! The ioctls of tun/tap and of network interfaces, as safe functions: the library's only door to raw memory.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;

/// `struct ifreq`: an interface's name and one value, whose kind the request number decides.
#[repr(C, align(8))]
pub struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 24],
}

const _: () = assert!(size_of::<IfReq>() == size_of::<libc::ifreq>());
const _: () = assert!(align_of::<IfReq>() >= align_of::<libc::ifreq>());

impl IfReq {
    fn new(name: &str) -> io::Result<Self> {
        if name.len() >= libc::IFNAMSIZ || name.bytes().any(|byte| byte == 0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an interface's name has at most 15 bytes",
            ));
        }
        let mut request = Self {
            name: [0; libc::IFNAMSIZ],
            value: [0; 24],
        };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn with_i32(mut self, value: i32) -> Self {
        self.value[..4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn with_i16(mut self, value: i16) -> Self {
        self.value[..2].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn with_pointer<T>(mut self, value: *mut T) -> Self {
        self.value[..size_of::<usize>()].copy_from_slice(&value.expose_provenance().to_ne_bytes());
        self
    }

    fn i32(&self) -> i32 {
        i32::from_ne_bytes([self.value[0], self.value[1], self.value[2], self.value[3]])
    }

    fn i16(&self) -> i16 {
        i16::from_ne_bytes([self.value[0], self.value[1]])
    }

    fn name(&self) -> String {
        let end = self
            .name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(libc::IFNAMSIZ);
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

/// `struct ethtool_value`
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// Of `linux/ethtool.h`.
const ETHTOOL_GLINK: u32 = 0xa;

mod raw {
    use super::{IfReq, libc};

    nix::ioctl_readwrite_bad!(tunsetiff, libc::TUNSETIFF, IfReq);
    nix::ioctl_readwrite_bad!(tungetiff, libc::TUNGETIFF, IfReq);
    nix::ioctl_write_int_bad!(tunsetoffload, libc::TUNSETOFFLOAD);
    nix::ioctl_write_int_bad!(tunsetpersist, libc::TUNSETPERSIST);
    nix::ioctl_write_ptr_bad!(tunsetsndbuf, libc::TUNSETSNDBUF, libc::c_int);
    nix::ioctl_write_ptr_bad!(tunsetvnethdrsz, libc::TUNSETVNETHDRSZ, libc::c_int);
    nix::ioctl_readwrite_bad!(siocgifflags, libc::SIOCGIFFLAGS, IfReq);
    nix::ioctl_readwrite_bad!(siocsifflags, libc::SIOCSIFFLAGS, IfReq);
    nix::ioctl_readwrite_bad!(siocsifmtu, libc::SIOCSIFMTU, IfReq);
    nix::ioctl_readwrite_bad!(siocgifindex, libc::SIOCGIFINDEX, IfReq);
    nix::ioctl_readwrite_bad!(siocethtool, libc::SIOCETHTOOL, IfReq);
}

/// Ties a fresh `/dev/net/tun` to the tap `name`, made if it does not exist; returns the name the kernel gave it.
pub fn tun_set_iff(tun: impl AsFd, name: &str, flags: i16) -> io::Result<String> {
    let mut request = IfReq::new(name)?.with_i16(flags);
    // SAFETY: the kernel reads and writes one `struct ifreq`, whose size and alignment `IfReq` has.
    unsafe { raw::tunsetiff(tun.as_fd().as_raw_fd(), &raw mut request) }?;
    Ok(request.name())
}

/// Whether the tap outlives its file descriptors.
pub fn tun_is_persistent(tun: impl AsFd) -> io::Result<bool> {
    let mut request = IfReq::new("")?;
    // SAFETY: the kernel writes one `struct ifreq`, whose size and alignment `IfReq` has.
    unsafe { raw::tungetiff(tun.as_fd().as_raw_fd(), &raw mut request) }?;
    Ok(i32::from(request.i16()) & libc::IFF_PERSIST != 0)
}

/// Which offloads the reader of the tap takes: a set of `TUN_F_*`.
pub fn tun_set_offload(tun: impl AsFd, flags: u32) -> io::Result<()> {
    // SAFETY: the argument is a plain integer.
    unsafe { raw::tunsetoffload(tun.as_fd().as_raw_fd(), flags.cast_signed()) }?;
    Ok(())
}

/// Makes the tap outlive its file descriptors, or not.
pub fn tun_set_persist(tun: impl AsFd, persist: bool) -> io::Result<()> {
    // SAFETY: the argument is a plain integer.
    unsafe { raw::tunsetpersist(tun.as_fd().as_raw_fd(), i32::from(persist)) }?;
    Ok(())
}

/// Bytes of frames on their way that a writer of the tap may have outstanding.
pub fn tun_set_sndbuf(tun: impl AsFd, bytes: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int, which lives across the call.
    unsafe { raw::tunsetsndbuf(tun.as_fd().as_raw_fd(), &raw const bytes) }?;
    Ok(())
}

/// Bytes of the `virtio_net_hdr` before each frame: 10 or 12.
pub fn tun_set_vnet_hdr_size(tun: impl AsFd, bytes: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int, which lives across the call.
    unsafe { raw::tunsetvnethdrsz(tun.as_fd().as_raw_fd(), &raw const bytes) }?;
    Ok(())
}

/// The index of an interface in the socket's network namespace.
pub fn interface_index(socket: impl AsFd, name: &str) -> io::Result<u32> {
    let mut request = IfReq::new(name)?;
    // SAFETY: the kernel reads and writes one `struct ifreq`, whose size and alignment `IfReq` has.
    unsafe { raw::siocgifindex(socket.as_fd().as_raw_fd(), &raw mut request) }?;
    Ok(request.i32().cast_unsigned())
}

/// Whether an interface of the socket's network namespace is up and has a carrier: for a tap, somebody who reads it.
pub fn interface_has_carrier(socket: impl AsFd, name: &str) -> io::Result<bool> {
    let mut link = EthtoolValue {
        command: ETHTOOL_GLINK,
        data: 0,
    };
    let mut request = IfReq::new(name)?.with_pointer(&raw mut link);
    // SAFETY: the kernel reads one `struct ifreq`, and reads and writes the `struct ethtool_value` that it points to.
    // Both live across the call.
    unsafe { raw::siocethtool(socket.as_fd().as_raw_fd(), &raw mut request) }?;
    // SAFETY: the compiler can't see that the kernel has written it.
    Ok(unsafe { (&raw const link.data).read_volatile() } != 0)
}

/// Sets an interface of the socket's network namespace up or down.
pub fn set_interface_up(socket: impl AsFd, name: &str, up: bool) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_fd();
    let mut request = IfReq::new(name)?;
    // SAFETY: the kernel reads and writes one `struct ifreq`, whose size and alignment `IfReq` has.
    unsafe { raw::siocgifflags(socket, &raw mut request) }?;
    let bit = i16::try_from(libc::IFF_UP).expect("IFF_UP is 1");
    let flags = if up {
        request.i16() | bit
    } else {
        request.i16() & !bit
    };
    let mut request = request.with_i16(flags);
    // SAFETY: as above.
    unsafe { raw::siocsifflags(socket, &raw mut request) }?;
    Ok(())
}

/// Sets the MTU, in bytes of layer 3, of an interface of the socket's network namespace.
pub fn set_interface_mtu(socket: impl AsFd, name: &str, mtu: u32) -> io::Result<()> {
    let mtu = i32::try_from(mtu).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut request = IfReq::new(name)?.with_i32(mtu);
    // SAFETY: the kernel reads and writes one `struct ifreq`, whose size and alignment `IfReq` has.
    unsafe { raw::siocsifmtu(socket.as_fd().as_raw_fd(), &raw mut request) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_sixteen_bytes_is_refused() {
        assert!(IfReq::new("fifteen-letters").is_ok());
        assert!(IfReq::new("sixteen--letters").is_err());
    }

    #[test]
    fn a_request_keeps_name_and_value() {
        let request = IfReq::new("vm1").unwrap().with_i32(-7);
        assert_eq!((request.name().as_str(), request.i32()), ("vm1", -7));
    }
}
