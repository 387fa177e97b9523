//! The kernel's tracepoints of XDP redirects, as the calling thread meets them.
//!
//! A tap's native redirect happens inside the sender's `writev`, so the events of a thread are those of the frames
//! that it sent, whatever other tests do with the same ifindexes in other namespaces.

use std::{
    fs::{self, File},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{program::LIMIT, switch::unique};

const EVENTS: [&str; 2] = ["xdp_devmap_xmit", "xdp_redirect_err"];

/// A tracing instance of its own, removed on drop.
pub struct Trace {
    instance: PathBuf,
    /// A tracefs that is mounted nowhere any more, and ends with this descriptor.
    _tracefs: File,
}

/// A native redirect that the kernel carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmission {
    pub from: u32,
    pub to: u32,
    pub sent: u32,
    pub drops: u32,
}

impl Trace {
    /// Follows the calling thread from now on.
    pub fn start() -> Self {
        let tracefs = tracefs();
        let root = Path::new("/proc/self/fd").join(tracefs.as_raw_fd().to_string());
        let instance = root.join("instances").join(unique("tapbridge-"));
        fs::create_dir(&instance).expect("make a tracing instance");
        let trace = Self {
            instance,
            _tracefs: tracefs,
        };
        let thread = fs::read_link("/proc/thread-self").expect("read the thread's id");
        let thread = thread
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a number");
        trace.write("buffer_size_kb", "256");
        for event in EVENTS {
            trace.write(
                &format!("events/xdp/{event}/filter"),
                &format!("common_pid == {thread}"),
            );
            trace.write(&format!("events/xdp/{event}/enable"), "1");
        }
        trace
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.instance.join(file);
        fs::write(&path, text).unwrap_or_else(|error| panic!("write {text} to {}: {error}", path.display()));
    }

    /// The native redirects so far.
    #[track_caller]
    pub fn transmissions(&self) -> Vec<Transmission> {
        self.events(EVENTS[0])
            .iter()
            .map(|event| Transmission::parse(event))
            .collect()
    }

    /// The redirects that the kernel refused so far, as it words them.
    pub fn errors(&self) -> Vec<String> {
        self.events(EVENTS[1])
    }

    fn events(&self, name: &str) -> Vec<String> {
        let trace = fs::read_to_string(self.instance.join("trace")).expect("read the trace");
        let events = trace
            .lines()
            .filter_map(|line| line.split_once(&format!(" {name}: ")));
        events.map(|(_, event)| event.to_owned()).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        for event in EVENTS {
            self.write(&format!("events/xdp/{event}/enable"), "0");
        }
        // Busy while a process that another thread is starting has a copy of a file that was read here.
        let deadline = Instant::now() + LIMIT;
        while let Err(error) = fs::remove_dir(&self.instance) {
            assert!(
                Instant::now() < deadline || thread::panicking(),
                "remove the tracing instance: {error}"
            );
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Transmission {
    /// From `ndo_xdp_xmit from_ifindex=2 to_ifindex=3 action=REDIRECT sent=1 drops=0 err=0`.
    #[track_caller]
    fn parse(event: &str) -> Self {
        let value = |key: &str| {
            let mut values = event
                .split(' ')
                .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            let value = values.next().and_then(|value| value.parse().ok());
            value.unwrap_or_else(|| panic!("no number {key} in '{event}'"))
        };
        Self {
            from: value("from_ifindex"),
            to: value("to_ifindex"),
            sent: value("sent"),
            drops: value("drops"),
        }
    }
}

/// A tracefs, open and out of everybody's sight.
pub fn tracefs() -> File {
    let folder = tempfile::tempdir().expect("make a folder");
    mount(
        Some("tracefs"),
        folder.path(),
        Some("tracefs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .expect("mount tracefs");
    let tracefs = File::open(folder.path());
    umount2(folder.path(), MntFlags::MNT_DETACH).expect("unmount tracefs");
    tracefs.expect("open tracefs")
}
