//! Network namespaces that exist as long as their guard.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    marker::PhantomData,
    os::{
        fd::AsRawFd,
        unix::{net::UnixDatagram, process::CommandExt},
    },
    panic,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

use super::{
    error::{Context, Result},
    ioctl,
};

/// Where `ip netns` keeps the names.
pub const NAMED: &str = "/run/netns";

const CURRENT: &str = "/proc/thread-self/ns/net";

/// A network namespace, held open. A named one is removed on drop; the kernel frees a namespace, with the taps and
/// veths in it, once nothing holds it any more: no name, no descriptor, no process, no open tap.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
    name: Option<String>,
}

impl Namespace {
    /// A new namespace under `/run/netns`, as `ip netns` knows it, with `lo` up and no netfilter on bridges.
    ///
    /// Put the process's id into the name, so that what a killed process left can be told from what is in use.
    pub fn create(name: &str) -> Result<Self> {
        ip(&["netns", "add", name]).context(name, "create the namespace")?;
        let handle = File::open(Path::new(NAMED).join(name)).context(name, "open the namespace");
        let handle = handle.inspect_err(|_| remove(name))?;
        let namespace = Self {
            handle,
            name: Some(name.into()),
        };
        namespace.run(prepare)?;
        Ok(namespace)
    }

    /// A new namespace without a name, with `lo` up and no netfilter on bridges.
    pub fn anonymous() -> Result<Self> {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("network namespace", "unshare")?;
            prepare()?;
            Self::current()
        })
    }

    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        let handle = File::open(CURRENT).context("network namespace", format!("open {CURRENT}"))?;
        Ok(Self { handle, name: None })
    }

    /// The existing namespace that a file stands for, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> Result<Self> {
        let handle = File::open(path).context(&path.display().to_string(), "open the namespace")?;
        Ok(Self { handle, name: None })
    }

    /// A second handle, without the name: it does not remove the namespace.
    pub fn try_clone(&self) -> Result<Self> {
        let handle = self.handle.try_clone().context("network namespace", "dup")?;
        Ok(Self { handle, name: None })
    }

    /// The file that other programs find the namespace by, if it has a name.
    pub fn path(&self) -> Option<PathBuf> {
        self.name.as_ref().map(|name| Path::new(NAMED).join(name))
    }

    /// Moves the calling thread into the namespace until the guard is dropped. Processes that the thread starts
    /// meanwhile, and the taps and sockets it opens, are in the namespace too.
    pub fn enter(&self) -> Result<Entered> {
        let before = Self::current()?;
        self.set()?;
        Ok(Entered {
            before,
            _stays_on_its_thread: PhantomData,
        })
    }

    /// Runs a closure in the namespace, on a thread of its own.
    ///
    /// A child with a parent-death signal dies with the thread that started it: start those with
    /// [`Namespace::command`] instead.
    ///
    /// # Panics
    ///
    /// If the closure does, or if the process may not enter namespaces.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_thread(|| {
            self.set().expect("entering a network namespace");
            work()
        })
    }

    /// A command whose process will run in the namespace. Unlike with `ip netns exec` its mounts stay those of this
    /// process, so it sees `/sys/fs/bpf`; but `/sys/class/net` keeps showing this process's namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let namespace = self.try_clone()?;
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(setns(&namespace.handle, CloneFlags::CLONE_NEWNET)?));
        }
        Ok(command)
    }

    /// The namespace's file for programs that take a path, as long as this process holds the namespace.
    pub fn handle_path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd()).into()
    }

    fn set(&self) -> Result<()> {
        let object = self.name.as_deref().unwrap_or("network namespace");
        setns(&self.handle, CloneFlags::CLONE_NEWNET).context(object, "setns")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            remove(name);
        }
    }
}

/// The calling thread is in another namespace; it goes back when this is dropped.
#[derive(Debug)]
pub struct Entered {
    before: Namespace,
    /// A thread can only move itself.
    _stays_on_its_thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // A thread in the wrong namespace would change the machine's own network.
        self.before
            .set()
            .expect("going back to the thread's own network namespace");
    }
}

/// Moves the calling thread into a new namespace of its own, quiet for frame-level tests: `lo` is up, IPv6 is off,
/// so the only frames there are the test's own. It vanishes with the guard and the taps opened in it.
pub fn enter_private() -> Result<Entered> {
    let entered = Namespace::anonymous()?.enter()?;
    disable_ipv6()?;
    Ok(entered)
}

/// Keeps the kernel's IPv6 off all interfaces, present and future, of the calling thread's namespace: no
/// neighbour discovery, no multicast reports. Frames that are forwarded are not concerned.
pub fn disable_ipv6() -> Result<()> {
    for interfaces in ["all", "default"] {
        sysctl(&format!("net/ipv6/conf/{interfaces}/disable_ipv6"), "1")?;
    }
    Ok(())
}

/// Gives the calling thread, and what it starts, a mount namespace of their own, for good: the machine's other
/// processes do not see what is mounted there, and it is gone with the last of them.
pub fn unshare_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("mount namespace", "unshare")?;
    // A new one begins as the old one's peer.
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("mount namespace", "make private")
}

/// Removes a namespace of this name that an earlier process left behind.
pub fn remove(name: &str) {
    if let Err(error) = ip(&["netns", "delete", name]) {
        eprintln!("left behind: {name}: {error}");
    }
}

fn prepare() -> Result<()> {
    let socket = UnixDatagram::unbound().context("lo", "socket")?;
    ioctl::set_interface_up(socket, "lo", true).context("lo", "set up")?;
    // On in every new namespace when br_netfilter is loaded: bridged frames would cross the host's IP filters.
    for family in ["arptables", "iptables", "ip6tables"] {
        let key = format!("net/bridge/bridge-nf-call-{family}");
        if Path::new("/proc/sys").join(&key).exists() {
            sysctl(&key, "0")?;
        }
    }
    Ok(())
}

fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(key);
    fs::write(&path, value).context(key, format!("set to {value}"))
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    // In a group of its own: a Ctrl-C must not stop it half-way.
    let output = Command::new("ip").args(arguments).process_group(0).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

/// Whether the kernel makes such a device, given what `ip link add` is told after its name. That can only be tried, in a
/// namespace that goes with it.
pub fn makes(device: &[&str]) -> Result<bool> {
    let words = [&["link", "add", "tried"], device].concat();
    Ok(Namespace::anonymous()?.run(|| ip(&words)).is_ok())
}

/// Whether the kernel's bridges filter VLANs (`CONFIG_BRIDGE_VLAN_FILTERING`).
pub fn can_filter_vlans() -> Result<bool> {
    makes(&["type", "bridge", "vlan_filtering", "1"])
}

/// Namespaces belong to threads: what is to change one for a moment does so on a thread that ends.
pub(crate) fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))
}
