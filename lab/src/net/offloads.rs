//! How a VMM sets up the file that it exchanges frames with, of a tap or a macvtap.

use std::{fs::File, io};

use nix::libc;

use super::{
    error::{Context, Result},
    ioctl,
    vnet::VnetHeader,
};

const OFFLOADS: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
/// Both or neither: the kernel refuses one alone (since 6.2, before that it refuses both).
const OFFLOADS_USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// What the holder of the tap, standing for the guest's driver, takes: what it is sent, and what its stack may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offloads {
    /// Partial checksums, TCP segments of up to 64 KiB, and UDP ones where the kernel has them (6.2).
    #[default]
    All,
    /// Every frame complete and at most as long as the MTU allows, like a guest with no offload negotiated.
    None,
}

impl Offloads {
    /// Sets them for the open device `name`; with them the header's length and QEMU's limit on what is on its way.
    pub(crate) fn configure(self, file: &File, name: &str) -> Result<()> {
        let header_len = i32::try_from(VnetHeader::LEN).expect("12");
        ioctl::tun_set_vnet_hdr_size(file, header_len).context(name, "TUNSETVNETHDRSZ")?;
        self.set(file).context(name, "TUNSETOFFLOAD")?;
        // QEMU's default too. With anything less tun never runs native XDP.
        ioctl::tun_set_sndbuf(file, i32::MAX).context(name, "TUNSETSNDBUF")
    }

    fn set(self, file: &File) -> io::Result<()> {
        match self {
            Self::None => ioctl::tun_set_offload(file, 0),
            Self::All => ioctl::tun_set_offload(file, OFFLOADS | OFFLOADS_USO)
                .or_else(|_| ioctl::tun_set_offload(file, OFFLOADS)),
        }
    }
}
