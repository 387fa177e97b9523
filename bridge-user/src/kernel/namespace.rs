//! Namespaces: maps hold ifindexes, which mean something in one network namespace only, and process ids mean
//! something in one namespace of processes only.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{fs::MetadataExt as _, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    thread,
};

use caps::Capability;
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::stat::{major, minor},
};

use super::requirements;
use crate::error::{Context as _, Error, Result};

/// Inode of the initial namespace of process ids (`PROC_PID_INIT_INO`).
const INITIAL_PID_INODE: u64 = 0xefff_fffc;

/// Inode of the initial user namespace (`PROC_USER_INIT_INO`).
const INITIAL_USER_INODE: u64 = 0xefff_fffd;

/// Where `ip netns` keeps the namespaces that have names (`NETNS_RUN_DIR`).
const NAMED: &str = "/run/netns";

/// Moves the calling thread into the network namespace of this name, or of this path if it has a slash, as `ip -n` does; threads
/// that it starts later are there too. Mounts stay what they are, `/sys` with the bpffs as well.
pub fn enter(name: &str) -> Result<()> {
    let path = if name.contains('/') {
        PathBuf::from(name)
    } else {
        Path::new(NAMED).join(name)
    };
    let namespace = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !name.contains('/') => {
            return Err(Error::NoNetworkNamespace {
                name: name.to_owned(),
                folder: NAMED.into(),
            });
        }
        opened => opened.at(path.display(), "open the network namespace")?,
    };
    match setns(namespace, CloneFlags::CLONE_NEWNET) {
        // A file of this name that nothing is mounted on, or a namespace of another kind.
        Err(Errno::EINVAL) => Err(Error::NotANetworkNamespace { path }),
        Err(Errno::EPERM) => Err(Error::NotPermitted {
            missing: Capability::CAP_SYS_ADMIN.to_string(),
        }),
        entered => entered.at(path.display(), "enter the network namespace"),
    }
}

/// Whether the process is in a user namespace other than the initial one, as far as can be told.
pub fn has_other_users() -> bool {
    fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() != INITIAL_USER_INODE)
}

/// A network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// To find it by. A later one can have the same.
    pub inode: u64,
    /// The lower half of its cookie, which no other has had since the machine was started (`net_cookie`). 0 if it is not
    /// known.
    pub cookie: u32,
}

impl Network {
    /// The calling thread's.
    pub fn current() -> Result<Self> {
        // A thread may have entered a namespace of its own.
        let path = "/proc/thread-self/ns/net";
        Ok(Self {
            inode: fs::metadata(path).at(path, "read")?.ino(),
            cookie: own_cookie().at("network namespace", "read its cookie")?,
        })
    }

    /// Whether it is the calling thread's.
    pub fn is_current(&self) -> Result<bool> {
        let here = Self::current()?;
        Ok(self.inode == here.inode && self.can_have(here.cookie))
    }

    fn can_have(&self, cookie: u32) -> bool {
        self.cookie == 0 || self.cookie == cookie
    }

    /// Whether something that commands can get at keeps the namespace: a thread, a descriptor, a name. In doubt it does.
    ///
    /// Looks through all processes in sight, and where not all of the machine's are, or where they need not tell which namespaces
    /// they are in, the answer is in doubt. A namespace
    /// that only sockets keep is not found.
    pub fn is_kept(&self) -> bool {
        if !of_processes().is_ok_and(|namespace| namespace == [0, 0])
            || !requirements::may_look_at_processes()
        {
            return true;
        }
        // There is one of this inode at a time.
        self.handles()
            .next()
            .is_some_and(|handle| cookie_of(&handle).is_none_or(|cookie| self.can_have(cookie)))
    }

    /// Files that stand for the namespace of this inode.
    fn handles(&self) -> impl Iterator<Item = PathBuf> {
        let inode = self.inode;
        let target = format!("net:[{inode}]");
        let mut seen = BTreeSet::new();
        entries(Path::new("/proc"))
            .filter(|process| process.join("task").is_dir())
            .flat_map(move |process| {
                let mut handles: Vec<_> = entries(&process.join("task"))
                    .map(|thread| thread.join("ns/net"))
                    .filter(|link| fs::read_link(link).is_ok_and(|found| found == Path::new(&target)))
                    .collect();
                handles.extend(opened(&process, inode));
                // Processes that see the same mounts need one look.
                let mounts = fs::read_link(process.join("ns/mnt")).unwrap_or_default();
                if seen.insert(mounts) {
                    handles.extend(mounted(&process, &target));
                }
                handles
            })
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// A process's descriptors of the namespace of this inode.
fn opened(process: &Path, inode: u64) -> Vec<PathBuf> {
    let nsfs = fs::metadata("/proc/self/ns/net").map_or(0, |own| own.dev());
    let ino = format!("ino:\t{inode}");
    // A link's target names the file by which the namespace was opened; and asking a file for its metadata can take
    // forever if it lies on another machine.
    let same_inode =
        |info: &PathBuf| fs::read_to_string(info).is_ok_and(|info| info.lines().any(|line| line == ino));
    entries(&process.join("fdinfo"))
        .filter(same_inode)
        .filter_map(|info| Some(process.join("fd").join(info.file_name()?)))
        .filter(|file| fs::metadata(file).is_ok_and(|file| file.dev() == nsfs))
        .collect()
}

/// Where a process sees the namespace mounted that nsfs calls so, as `ip netns` mounts the named ones.
fn mounted(process: &Path, target: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    let places = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        (root == target).then(|| process.join("root").join(place.trim_start_matches('/')))
    });
    places.collect()
}

/// The cookie of the namespace that a file stands for; none if it can't be entered.
fn cookie_of(handle: &Path) -> Option<u32> {
    let handle = File::open(handle).ok()?;
    let enter = move || {
        setns(&handle, CloneFlags::CLONE_NEWNET)?;
        own_cookie()
    };
    // Entering is for good, so a thread does it that ends then.
    thread::spawn(enter).join().ok()?.ok()
}

fn own_cookie() -> io::Result<u32> {
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).map_err(io::Error::other)?;
    // SAFETY: the kernel writes no more bytes than `length` says there are.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        let [a, b, c, d, ..] = cookie.to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }
}

/// Device, as the kernel writes it, and inode of the calling process's namespace of process ids; zeros for the initial
/// one.
pub fn of_processes() -> Result<[u64; 2]> {
    let path = "/proc/self/ns/pid";
    let namespace = fs::metadata(path).at(path, "read")?;
    Ok(match namespace.ino() {
        INITIAL_PID_INODE => [0, 0],
        // `MKDEV`; what stat tells is folded otherwise.
        inode => [major(namespace.dev()) << 20 | minor(namespace.dev()), inode],
    })
}

/// Whether the calling process sees other mounts than the machine does, as far as can be told.
pub fn has_private_mounts() -> bool {
    let mounts = |process: &str| {
        fs::metadata(format!("/proc/{process}/ns/mnt"))
            .ok()
            .map(|data| data.ino())
    };
    // The machine's mounts are those of process 1; where that one may not be looked at, those of the kernel's threads.
    let kthreadd = fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd");
    let machine = mounts("1").or_else(|| if kthreadd { mounts("2") } else { None });
    machine.is_none_or(|machine| mounts("self") != Some(machine))
}
