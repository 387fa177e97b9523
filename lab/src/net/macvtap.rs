//! A macvtap device, held the way a VMM holds its guest's network card.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

use nix::{
    libc::{self, dev_t},
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, makedev, mknod},
};

use super::{
    error::{Context, Result},
    netns,
    offloads::Offloads,
};

/// Where a private sysfs, then a private tmpfs is mounted.
const MOUNT: &str = "/sys";
const NODE: &str = "/sys/macvtap";

/// An open macvtap: one more way for frames into an interface that is another's to make, set up, and remove.
#[derive(Debug)]
pub struct Macvtap {
    name: String,
    file: File,
}

impl Macvtap {
    /// Opens the macvtap of this name in the calling thread's network namespace, without blocking.
    pub fn open(name: impl Into<String>, offloads: Offloads) -> Result<Self> {
        let name = name.into();
        // Its mounts are gone when the thread is.
        let file = netns::in_thread(|| open(&name))?;
        offloads.configure(&file, &name)?;
        Ok(Self { name, file })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Macvtap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<Macvtap> for OwnedFd {
    fn from(macvtap: Macvtap) -> Self {
        macvtap.file.into()
    }
}

/// Finds the interface's character device and opens it, in a mount namespace that the calling thread gets for good.
///
/// The kernel may have made a node for it in `/dev`, but called it by the interface's index, which an interface of
/// another namespace may have too. Unlike that, sysfs shows the interfaces of the namespace it is mounted in.
fn open(name: &str) -> Result<File> {
    netns::unshare_mounts()?;
    mount_here("sysfs").context(name, "mount sysfs")?;
    let number =
        device_number(&Path::new(MOUNT).join("class/net").join(name)).context(name, "find the macvtap")?;
    mount_here("tmpfs").context(name, "mount a tmpfs")?;
    mknod(NODE, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, number).context(name, "mknod")?;
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(NODE)
        .context(name, "open the macvtap's character device")
}

fn mount_here(filesystem: &str) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some(filesystem), MOUNT, Some(filesystem), flags, None::<&str>)
}

/// The number of the character device that belongs to an interface, which is a folder of sysfs.
fn device_number(interface: &Path) -> io::Result<dev_t> {
    let index = fs::read_to_string(interface.join("ifindex"))?;
    let number = fs::read_to_string(interface.join(format!("macvtap/tap{}/dev", index.trim())))?;
    parse_number(&number).ok_or_else(|| io::Error::other(format!("no device number: {number}")))
}

/// From "246:1\n", major and minor.
fn parse_number(text: &str) -> Option<dev_t> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::{major, minor};

    use super::*;

    #[test]
    fn a_device_number_is_major_and_minor() {
        let number = parse_number("246:1\n").unwrap();
        assert_eq!((major(number), minor(number)), (246, 1));
        assert_eq!(parse_number("246"), None);
        assert_eq!(parse_number("a:b"), None);
    }
}
