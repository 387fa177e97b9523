//! What can go wrong, each with its object, cause and next step.

use std::{io, path::PathBuf};

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error that a user can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process lacks capabilities.
    #[error("not permitted: tapbridge needs {missing}; run it as root, for example with sudo")]
    NotPermitted {
        /// Names of the missing capabilities.
        missing: String,
    },
    /// The process has its capabilities in a user namespace of its own.
    #[error(
        "not permitted: this is a user namespace, as rootless containers have one, and bpf(2) asks for {missing} in the \
         initial one; run tapbridge as root outside of it"
    )]
    UserNamespace {
        /// Names of the capabilities.
        missing: String,
    },
    /// There can't be a network namespace that nobody else sees.
    #[error(
        "a network namespace to try the programs out in: make: {cause}; that takes CAP_SYS_ADMIN, or that everybody may \
         make user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, \
         kernel.apparmor_restrict_unprivileged_userns)"
    )]
    NoOwnNetwork {
        /// What the kernel said.
        cause: String,
    },
    /// The kernel does not tell the process where its functions are.
    #[error("/proc/kallsyms: the kernel hides its addresses; {next}")]
    HiddenSymbols {
        /// What to do.
        next: &'static str,
    },
    /// The kernel is too old.
    #[error("this kernel is Linux {release}, which has no tcx; tapbridge needs Linux 6.6 or later")]
    KernelTooOld {
        /// Its release string.
        release: String,
    },
    /// The kernel doesn't describe its structures.
    #[error("{path}: {reason}; tapbridge needs a kernel built with CONFIG_DEBUG_INFO_BTF=y")]
    NoBtf {
        /// Where the description was looked for.
        path: PathBuf,
        /// What was missing.
        reason: String,
    },
    /// There is no bpffs and none can be mounted.
    #[error("{path}: no bpffs is mounted here and mounting one failed; try 'mount -t bpf bpf {path}'")]
    NoBpffs {
        /// Where it should be.
        path: PathBuf,
        /// Why mounting failed.
        source: io::Error,
    },
    /// A bpffs mounted here would go with the process.
    #[error(
        "{path}: no bpffs is visible in this mount namespace, and one mounted now would vanish with it, and the \
         bridge too; 'ip netns exec' hides /sys: use 'tapbridge -n NAME' instead, or mount a bpffs here yourself if \
         the namespace stays"
    )]
    PrivateMountNamespace {
        /// Where it should be.
        path: PathBuf,
    },
    /// Bridges may be where this process does not see them.
    #[error(
        "{path}: no bpffs is visible in this mount namespace, so the machine's bridges can't be seen from here; \
         'ip netns exec' hides /sys: use 'tapbridge -n NAME' instead"
    )]
    OutOfSight {
        /// Where it should be.
        path: PathBuf,
    },
    /// No such network namespace.
    #[error("{name}: no network namespace has this name in {folder}; 'ip netns list' lists those there are")]
    NoNetworkNamespace {
        /// The name.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The file stands for no network namespace.
    #[error("{path}: is no network namespace; 'ip netns list' lists those that have names")]
    NotANetworkNamespace {
        /// The file.
        path: PathBuf,
    },
    /// Another command holds the lock.
    #[error(
        "{path}: {holder} has the lock and has done nothing for {seconds} s; try again when it has ended"
    )]
    Locked {
        /// What is locked.
        path: PathBuf,
        /// By whom.
        holder: String,
        /// For how long it has been seen to have it and to use no CPU.
        seconds: u64,
    },
    /// There is no configuration.
    #[error("{path}: there is no such file; write it, or name another")]
    NoConfig {
        /// Where it should be.
        path: PathBuf,
    },
    /// The configuration can't be used.
    #[error("{place}: {message}")]
    Config {
        /// File, line and column.
        place: String,
        /// What is wrong there, and what was expected.
        message: String,
    },
    /// The name can't be a bridge's.
    #[error(
        "'{name}' can't be a bridge's name: use 1 to 15 letters, digits and signs without '/', ':' and '%'"
    )]
    BadBridgeName {
        /// The name.
        name: String,
    },
    /// No attached port is one of this bridge's.
    #[error("{name}: no bridge of this name has attached ports; 'tapbridge show' lists those that have")]
    NoBridge {
        /// The name.
        name: String,
    },
    /// Something of what is pinned is not what it should be.
    #[error("{path}: can't be used: {cause}; clear it away with 'tapbridge detach --all' and attach anew")]
    Damaged {
        /// Where it is pinned.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A bridge of an older version.
    #[error(
        "{path}: a bridge of an older version of tapbridge, which was a switch by itself; 'tapbridge detach --all' clears \
         it away"
    )]
    OldBridge {
        /// Where it is pinned.
        path: PathBuf,
    },
    /// Somebody else's file.
    #[error("{path}: is nothing of tapbridge's; remove it with 'rm -r {path}'")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// What is pinned was pinned by another version.
    #[error(
        "{path}: was made by a tapbridge with layout version {found}, and this one has version {expected}; use that \
         tapbridge, or clear it away with 'tapbridge detach --all' and attach anew"
    )]
    OtherVersion {
        /// Where it is pinned.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// What is pinned tells of nothing.
    #[error(
        "{path}: the programs there are of an earlier version, which told of nothing; 'tapbridge upgrade' replaces them"
    )]
    NoEvents {
        /// Where it is pinned.
        path: PathBuf,
    },
    /// The file holds no statistics.
    #[error("{path}: can't be used: {cause}; it must be one document that 'tapbridge stats -j' has printed")]
    NotStatistics {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The file holds differences from something else.
    #[error(
        "{path}: counts since {time}, which is no baseline any more; use a document of 'tapbridge stats -j --since attach'"
    )]
    OtherBaseline {
        /// The file.
        path: PathBuf,
        /// From when it counts.
        time: String,
    },
    /// The baseline is of another version.
    #[error(
        "the baseline of statistics can't be used: {cause}; 'tapbridge stats --no-reset' forgets it, 'tapbridge stats --since \
         attach' passes it by"
    )]
    BadBaseline {
        /// What is wrong with it.
        cause: String,
    },
    /// No such device.
    #[error("{name}: no such network device in this network namespace; 'ip link' lists those there are")]
    NoDevice {
        /// The device.
        name: String,
    },
    /// A bridge is wanted.
    #[error("{name}: not a Linux bridge; {next}")]
    NotABridge {
        /// The device.
        name: String,
        /// What to do.
        next: String,
    },
    /// The device can't be a port.
    #[error("{name}: can't be a port: {reason}; {next}")]
    NotAPort {
        /// The device.
        name: String,
        /// Why.
        reason: String,
        /// What to do.
        next: String,
    },
    /// The device is not attached.
    #[error("{name}: not attached; 'tapbridge show' lists the ports there are")]
    NotAttached {
        /// The device.
        name: String,
    },
    /// No port of this Linux bridge is attached.
    #[error("{bridge}: none of its ports is attached; 'tapbridge show' lists the ports there are")]
    NoPortOf {
        /// The bridge.
        bridge: String,
    },
    /// Another XDP program is attached.
    #[error(
        "{name}: attach xdp: another XDP program is attached (id {id}, \"{program}\"); detach it with 'ip link set dev {name} xdp off', or attach with --hook tcx"
    )]
    OtherXdp {
        /// The device.
        name: String,
        /// The program's id.
        id: u32,
        /// The program's name.
        program: String,
    },
    /// The device was there to begin with.
    #[error("{name}: went away while it was being attached; attach the others without it")]
    WentAway {
        /// The device.
        name: String,
    },
    /// Another `run` is at work.
    #[error(
        "{path}: another 'tapbridge run' looks after the ports of this network namespace: {process}; one is enough, and \
         'tapbridge status' says what it does"
    )]
    Running {
        /// The state folder.
        path: PathBuf,
        /// Who it is.
        process: String,
    },
    /// No `run` is at work.
    #[error(
        "tapbridge run: is not running in this network namespace; what is attached goes on without it, and 'tapbridge \
         show' shows that"
    )]
    NotRunning,
    /// `run` was to read a configuration again.
    #[error(
        "tapbridge run: was started without a configuration, and follows none until it is started again, as by 'systemctl \
         restart tapbridge'"
    )]
    NotFollowing,
    /// Somebody else has the name that `run` goes by.
    #[error(
        "tapbridge run: {process}, of user {user}, has taken the name that it goes by, and is not trusted; end that process"
    )]
    Impostor {
        /// Who it is.
        process: String,
        /// Number of its user.
        user: u32,
    },
    /// `run` says nothing.
    #[error(
        "tapbridge run: {process} does not answer within {seconds} s; see whether it is stopped, or end it and start another"
    )]
    NoAnswer {
        /// Who it is.
        process: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Metrics can't be given there.
    #[error("{address}: listen for scrapes: {cause}; {next}")]
    NoEndpoint {
        /// Where clients were to connect to.
        address: String,
        /// What the kernel said, or what is there.
        cause: String,
        /// What to do.
        next: &'static str,
    },
    /// No frames were seen for long enough.
    #[error("frames: watched for less than a second, of which nothing can be said; let it go on for longer")]
    WatchedTooShort,
    /// There is no port whose frames could be watched.
    #[error("{what}: there are no ports of Linux bridges to watch; 'bridge link' lists those there are")]
    NothingToWatch {
        /// Where there are none.
        what: String,
    },
    /// No such process.
    #[error("process {pid}: there is none in this namespace of process ids; 'ps -e' lists those there are")]
    NoProcess {
        /// Its id.
        pid: u32,
    },
    /// The id is that of a thread.
    #[error("process {pid}: is a thread of process {process}; count that one: all its threads count")]
    Thread {
        /// The thread's id.
        pid: u32,
        /// Its process's id.
        process: u32,
    },
    /// The process belongs to another namespace of process ids.
    #[error(
        "process {pid}: lives in another namespace of process ids, in a container inside this one; count it from \
         the host, or from in there"
    )]
    OtherPidNamespace {
        /// Its id.
        pid: u32,
    },
    /// There is no tracepoint that system calls pass.
    #[error(
        "tracepoint sys_enter: attach: {cause}; counting system calls needs a kernel built with CONFIG_BPF_EVENTS=y \
         for an architecture that has this tracepoint"
    )]
    NoSysEnter {
        /// What the kernel said.
        cause: String,
    },
    /// Anything else that the kernel refused.
    #[error("{object}: {action}: {cause}")]
    System {
        /// What it was done to.
        object: String,
        /// What was done.
        action: &'static str,
        /// What the kernel said.
        cause: String,
    },
}

/// Adds what was done to what to an error from below.
pub trait Context<T> {
    /// Turns the error into [`Error::System`].
    fn at(self, object: impl std::fmt::Display, action: &'static str) -> Result<T>;
}

impl<T, E: std::error::Error> Context<T> for std::result::Result<T, E> {
    fn at(self, object: impl std::fmt::Display, action: &'static str) -> Result<T> {
        self.map_err(|error| Error::System {
            object: object.to_string(),
            action,
            cause: causes(&error),
        })
    }
}

/// An error and what caused it, in one line. A verifier's log is cut to its end, where the cause is.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
