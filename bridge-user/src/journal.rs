//! What devices were like before they became ports, written down a second time outside of bpffs.
//!
//! A bridge's own record goes with its bpffs: unmounted, it takes pins and links along, and leaves the devices as attach
//! has changed them. The next attach must not take that for what they were like. So there is a file for each port under
//! /run, which is gone after a reboot as the devices are. Where /run can't be written, the record in the bridge is the
//! only one.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use bridge_common::port::flag;
use serde::{Deserialize, Serialize};

use crate::{error::Result, namespace::Network, netlink::Link, sysfs::Sysfs};

/// Has a folder for each network namespace, with a file for each port, named after its index.
const ROOT: &str = "/run/tapbridge";

/// What is to be given back to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Original {
    /// Its name then, for whoever looks at the file.
    name: String,
    /// The inode of its folder in sysfs, which no later device of its index has; none if sysfs can't be seen.
    inode: Option<u64>,
    /// It spoke IPv6.
    ipv6: bool,
    /// It was not promiscuous.
    not_promiscuous: bool,
    /// It had the kernel's default queueing discipline.
    default_queue: bool,
}

/// The journal of the calling thread's network namespace.
pub struct Journal {
    folder: PathBuf,
    sysfs: Option<Sysfs>,
}

impl Journal {
    /// Opens it.
    pub fn open() -> Result<Self> {
        Ok(Self {
            folder: folder(Network::current()?),
            sysfs: Sysfs::open().ok(),
        })
    }

    /// What is to be given back to a device according to the journal: a set of [`flag`]s; none unless the device was a
    /// port and is not given back yet.
    pub fn flags(&self, link: &Link) -> Option<u32> {
        let original = fs::read(self.folder.join(link.ifindex.to_string())).ok()?;
        let Original {
            inode,
            ipv6,
            not_promiscuous,
            default_queue,
            ..
        } = serde_json::from_slice(&original).ok()?;
        // Where sysfs can't be seen, a later device of the same index can't be told from this one.
        if inode.is_none() || inode != self.inode(link) {
            return None;
        }
        let flags = [
            (ipv6, flag::RESTORE_IPV6),
            (not_promiscuous, flag::RESTORE_PROMISCUOUS),
            (default_queue, flag::RESTORE_QUEUE),
        ]
        .into_iter()
        .filter_map(|(wanted, flag)| wanted.then_some(flag))
        .sum();
        Some(flags)
    }

    /// Writes down what is to be given back to a device, before it is changed.
    pub fn write(&self, link: &Link, flags: u32) {
        let original = Original {
            name: link.name.clone(),
            inode: self.inode(link),
            ipv6: flags & flag::RESTORE_IPV6 != 0,
            not_promiscuous: flags & flag::RESTORE_PROMISCUOUS != 0,
            default_queue: flags & flag::RESTORE_QUEUE != 0,
        };
        let Ok(text) = serde_json::to_string(&original) else {
            return;
        };
        let _ = fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&self.folder);
        // Whole or not at all.
        let (path, new) = (
            self.folder.join(link.ifindex.to_string()),
            self.folder.join(format!("{}.new", link.ifindex)),
        );
        let _ = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
    }

    /// Forgets devices that are gone, as a tap goes whenever its VM ends: these are all that there are.
    pub fn sweep(&self, links: &[Link]) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            if !links.iter().any(|link| name == *link.ifindex.to_string()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn inode(&self, link: &Link) -> Option<u64> {
        let folder = self.sysfs.as_ref()?.path(&format!("class/net/{}", link.name));
        fs::metadata(folder).ok().map(|folder| folder.ino())
    }
}

/// A device of the calling thread's network namespace has been given back, or is gone.
pub fn forget(ifindex: u32) -> Result<()> {
    let folder = folder(Network::current()?);
    let _ = fs::remove_file(folder.join(ifindex.to_string()));
    // Fail while something is in them.
    let _ = fs::remove_dir(&folder);
    let _ = fs::remove_dir(ROOT);
    Ok(())
}

/// Forgets network namespaces that are gone without a bridge that tells of them.
pub fn sweep_namespaces() -> Result<()> {
    let here = Network::current()?;
    for entry in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let network = name.to_str().and_then(|name| name.split_once('-'));
        let network = network.and_then(|(inode, cookie)| {
            Some(Network {
                inode: inode.parse().ok()?,
                cookie: cookie.parse().ok()?,
            })
        });
        if let Some(network) = network
            && network != here
            && !network.is_kept()
        {
            forget_all(network);
        }
    }
    Ok(())
}

/// A network namespace is gone, and its devices.
pub fn forget_all(network: Network) {
    let _ = fs::remove_dir_all(folder(network));
    let _ = fs::remove_dir(ROOT);
}

fn folder(Network { inode, cookie }: Network) -> PathBuf {
    Path::new(ROOT).join(format!("{inode}-{cookie}"))
}
