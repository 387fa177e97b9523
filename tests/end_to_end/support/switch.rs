//! Taps in a network namespace of their own, with a state folder of their own: tests don't meet each other.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType};
use lab::{Entered, Tap, netns, tap::TapBuilder};
use serde_json::Value;

use super::{
    bpffs, frames,
    program::{Output, link, run},
    schema,
    statistics::{Bridge, Statistics},
    wire,
};

/// The command line.
pub const TAPBRIDGE: &str = env!("CARGO_BIN_EXE_tapbridge");

/// The bridge that `attach` makes.
pub const BRIDGE: &str = "tapbridge";

/// A name that no other test has: at most 15 bytes, with this process's id.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{prefix}{}-{}",
        process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A private network namespace, which the calling thread is in, and taps that `attach` makes ports of a bridge there.
///
/// When it is dropped it detaches everything, and makes sure that nothing is left and the taps are as they were.
pub struct Switch {
    state: PathBuf,
    taps: Vec<Tap>,
    /// Taps that speak IPv6 while they are not attached.
    speaking_ipv6: RefCell<Vec<String>>,
    _private: Entered,
}

impl Switch {
    /// No taps yet.
    pub fn empty() -> Self {
        Self {
            state: Path::new(bpffs::PATH).join(unique(bpffs::PREFIX)),
            taps: Vec::new(),
            speaking_ipv6: RefCell::default(),
            _private: netns::enter_private().expect("a private namespace"),
        }
    }

    /// Taps vm1, vm2 and so on, not attached.
    pub fn detached(taps: usize) -> Self {
        let mut switch = Self::empty();
        for number in 1..=taps {
            switch.add(Tap::builder(format!("vm{number}")));
        }
        switch
    }

    /// Taps vm1, vm2 and so on, attached to both hooks.
    pub fn of(taps: usize) -> Self {
        Self::with_hook(taps, "xdp")
    }

    /// Taps vm1, vm2 and so on, attached as `--hook` says.
    pub fn with_hook(taps: usize, hook: &str) -> Self {
        let switch = Self::detached(taps);
        switch.attach_all(hook);
        switch
    }

    /// Opens a tap, which is up then and belongs to the switch.
    pub fn add(&mut self, tap: TapBuilder) {
        let tap = tap.open().expect("open a tap");
        tap.up().expect("tap up");
        self.taps.push(tap);
    }

    /// Lets the host speak IPv6 on a tap, as it does on every new device outside of quiet namespaces.
    pub fn speak_ipv6(&self, tap: &str) {
        set_ipv6(tap, true);
        self.speaking_ipv6.borrow_mut().push(tap.to_owned());
    }

    /// Attaches all taps.
    #[track_caller]
    pub fn attach_all(&self, hook: &str) {
        let names: Vec<&str> = self.taps.iter().map(Tap::name).collect();
        self.ok(&format!("attach {} --hook {hook}", names.join(" ")));
    }

    /// The taps, in the order in which they were added.
    #[track_caller]
    pub fn taps<const N: usize>(&self) -> [&Tap; N] {
        let taps: Vec<&Tap> = self.taps.iter().collect();
        taps.try_into().expect("as many taps as were added")
    }

    /// The tap of this name.
    #[track_caller]
    pub fn tap(&self, name: &str) -> &Tap {
        let tap = self.taps.iter().find(|tap| tap.name() == name);
        tap.expect("a tap of this name")
    }

    /// Closes a tap for good.
    pub fn remove(&mut self, name: &str) {
        self.taps.retain(|tap| tap.name() != name);
    }

    /// Takes a tap away from the switch.
    pub fn take(&mut self, name: &str) -> Tap {
        let place = self.taps.iter().position(|tap| tap.name() == name);
        self.taps.remove(place.expect("a tap of this name"))
    }

    /// Makes every tap's station known: vm1's is station 1, and so on.
    #[track_caller]
    pub fn introduce(&self) {
        for (tap, station) in self.taps.iter().zip(1..) {
            wire::send(tap, &frames::hello(station));
        }
        wire::drain(&self.taps.iter().collect::<Vec<_>>());
    }

    /// Where what is attached is pinned.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where what is attached in the switch's namespace is pinned, if something is.
    pub fn folder(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.state).into_iter().flatten().flatten();
        let mut folders = entries.map(|entry| entry.path());
        folders.find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('@'))
        })
    }

    /// Where the link of a device's hook is pinned.
    #[track_caller]
    pub fn pin(&self, device: &str, hook: &str) -> PathBuf {
        let ifindex = link(device).expect("a device")["ifindex"].clone();
        self.folder()
            .expect("something pinned")
            .join(format!("link_{ifindex}_{hook}"))
    }

    /// `tapbridge` with these words, not yet running.
    pub fn command(&self, words: &str) -> Command {
        command_in(&self.state, words)
    }

    /// Runs `tapbridge` with these words.
    pub fn tapbridge(&self, words: &str) -> Output {
        run(self.command(words))
    }

    /// Starts `tapbridge` with these words; what it says may be read of its standard error.
    pub fn start(&self, words: &str) -> Child {
        let mut command = self.command(words);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("start tapbridge")
    }

    /// Starts `tapbridge` with these words and kills it after some time, if it has not ended by then.
    pub fn kill_after(&self, words: &str, time: Duration) {
        let mut child = self.start(words);
        thread::sleep(time);
        child.kill().expect("kill tapbridge");
        child.wait().expect("wait for tapbridge");
    }

    /// Runs `tapbridge`, which must succeed; answers with what it printed.
    #[track_caller]
    pub fn ok(&self, words: &str) -> String {
        self.tapbridge(words).success()
    }

    /// Runs `tapbridge`, which must fail; answers with what it complained of.
    #[track_caller]
    pub fn fails(&self, words: &str) -> String {
        let complaint = self.tapbridge(words).failure(1);
        assert!(complaint.starts_with("tapbridge: "), "{complaint}");
        complaint
    }

    /// Runs `tapbridge -j`, which must succeed; what it prints is as its schema says.
    #[track_caller]
    pub fn json(&self, words: &str) -> Value {
        let document = self.tapbridge(&format!("{words} -j")).json();
        schema::check(&schema::of_words(words), &document);
        document
    }

    /// The statistics of the only bridge, in which every frame is in exactly one place. Nothing is to be sent
    /// meanwhile.
    #[track_caller]
    pub fn stats(&self) -> Bridge {
        let [bridge] = self.all_stats().try_into().expect("one bridge");
        bridge
    }

    /// The statistics of all bridges, as [`Switch::stats`].
    #[track_caller]
    pub fn all_stats(&self) -> Vec<Bridge> {
        let statistics: Statistics =
            serde_json::from_value(self.json("stats")).expect("the documented statistics");
        assert_eq!(statistics.schema, 2);
        statistics.bridges.iter().for_each(Bridge::assert_conservation);
        assert_eq!(statistics.unreadable, Vec::<Value>::new());
        statistics.bridges
    }

    /// What `show` says of a port.
    #[track_caller]
    pub fn shown(&self, port: &str) -> Value {
        let ports = self.all_shown();
        let found = ports.iter().find(|shown| shown["ifname"] == port);
        found
            .unwrap_or_else(|| panic!("no port {port} in {ports:?}"))
            .clone()
    }

    /// What `show` says of all ports.
    #[track_caller]
    pub fn all_shown(&self) -> Vec<Value> {
        let overview = self.json("show");
        let bridges = overview["bridges"].as_array().expect("bridges").iter();
        let ports = bridges.flat_map(|bridge| bridge["ports"].as_array().expect("ports"));
        ports.cloned().collect()
    }

    /// Detaches everything; says what is wrong then.
    fn clean_up(&self) -> Result<(), String> {
        let mut detach = self.command("detach --all");
        // `run` would panic, perhaps a second time.
        let detached = detach.output().map_err(|error| error.to_string())?;
        if !detached.status.success() {
            return Err(format!("detach --all: {detached:?}"));
        }
        if self.state.exists() {
            return Err(format!("{} is left behind", self.state.display()));
        }
        if link(BRIDGE).is_some() {
            return Err(format!("{BRIDGE} is left behind"));
        }
        self.untouched()
    }

    /// The taps are as they were when they were made; else what is not.
    pub fn untouched(&self) -> Result<(), String> {
        let speaking = self.speaking_ipv6.borrow();
        let names = self.taps.iter().map(Tap::name);
        names
            .into_iter()
            .try_for_each(|tap| check_untouched(tap, speaking.iter().any(|name| name == tap)))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        match self.clean_up() {
            Err(problem) if thread::panicking() => eprintln!("after the failure: {problem}"),
            result => result.expect("nothing is left behind"),
        }
    }
}

/// `tapbridge` with these words on what is pinned here, not yet running.
pub fn command_in(state: &Path, words: &str) -> Command {
    let mut command = Command::new(TAPBRIDGE);
    command.arg("--state").arg(state).args(words.split_whitespace());
    command
}

/// A tap is as it was when it was made; nothing to say of one that is gone.
fn check_untouched(tap: &str, speaks_ipv6: bool) -> Result<(), String> {
    let Some(link) = link(tap) else {
        return Ok(());
    };
    let tcx = SchedClassifier::query_tcx(tap, TcAttachType::Ingress).map_err(|error| error.to_string())?;
    // A Linux bridge makes its ports promiscuous.
    let promiscuity = u64::from(!link["master"].is_null());
    let untouched = link["xdp"].is_null()
        && link["promiscuity"] == promiscuity
        && link["qdisc"] != "noqueue"
        && tcx.1.is_empty();
    (untouched && ipv6(tap) == speaks_ipv6)
        .then_some(())
        .ok_or_else(|| format!("{tap} is not as it was: {link}, tcx: {:?}", tcx.1))
}

/// Whether a device speaks IPv6.
pub fn ipv6(device: &str) -> bool {
    // A device whose MTU is too small for IPv6 has no such setting.
    fs::read_to_string(ipv6_setting(device)).is_ok_and(|value| value.trim() == "0")
}

fn set_ipv6(device: &str, on: bool) {
    fs::write(ipv6_setting(device), if on { "0" } else { "1" }).expect("write disable_ipv6");
}

fn ipv6_setting(device: &str) -> PathBuf {
    ["/proc/sys/net/ipv6/conf", device, "disable_ipv6"]
        .iter()
        .collect()
}
