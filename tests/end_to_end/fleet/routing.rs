//! FRR on one host: zebra and bgpd, which tell the other hosts' what the bridge has learned, and the bridge what they tell.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use lab::Namespace;
use nix::unistd::User;
use serde_json::Value;

use super::host::{VNI, underlay_address};
use crate::support::program::{LIMIT, happens, run, wait};

/// Where the package keeps the daemons.
const DAEMONS: &str = "/usr/lib/frr";
/// Whom the daemons become.
const USER: &str = "frr";

/// What the machine lacks to run it.
pub fn lacking() -> Option<&'static str> {
    let has = ["zebra", "bgpd"]
        .iter()
        .all(|daemon| Path::new(DAEMONS).join(daemon).exists());
    let has = has && matches!(User::from_name(USER), Ok(Some(_)));
    let has = has && Command::new("vtysh").arg("--help").output().is_ok();
    (!has).then_some("needs FRR")
}

/// The daemons of one host, in a namespace of process ids that has nothing else: none of them outlives this value, nor the
/// tests, however these end.
pub struct Routing {
    folder: PathBuf,
    /// What holds the namespace.
    child: Child,
    /// The first process there reads commands from it, and ends when it is closed, and all others with it.
    shell: Option<ChildStdin>,
}

impl Routing {
    /// Starts the daemons of one of so many hosts. The folder is theirs, and is made.
    pub fn start(namespace: &Namespace, folder: PathBuf, number: u8, hosts: u8) -> Self {
        let user = User::from_name(USER).expect("the users").expect("FRR's user");
        fs::create_dir_all(&folder).expect("make a folder");
        chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("give a folder away");
        fs::write(folder.join("zebra.conf"), "log stdout\n").expect("write zebra.conf");
        fs::write(folder.join("bgpd.conf"), configuration(number, hosts)).expect("write bgpd.conf");
        let log = fs::File::create(folder.join("log")).expect("make a log");
        let mut command = namespace.command("unshare").expect("a command");
        command
            .args(["--pid", "--mount", "--fork", "--kill-child", "sh"])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("another descriptor"))
            .stderr(log);
        let mut child = command.spawn().expect("start a shell");
        let shell = child.stdin.take();
        let mut routing = Self { folder, child, shell };
        // Where all daemons keep what they want to say of a crash, by their ids.
        routing.tell("mkdir -p /var/tmp/frr && mount -t tmpfs none /var/tmp/frr");
        routing.start_daemon("zebra");
        let server = routing.folder.join("zserv.api");
        // A bgpd that does not find it tries again 10 seconds later.
        routing.wait("zebra listens", || server.exists());
        routing.start_daemon("bgpd");
        routing
    }

    fn start_daemon(&mut self, name: &str) {
        let folder = self.folder.display();
        self.tell(&format!(
            "{DAEMONS}/{name} -f {folder}/{name}.conf -i {folder}/{name}.pid -z {folder}/zserv.api \
             --vty_socket {folder} -A 127.0.0.1 -P 0 &"
        ));
    }

    /// Has the shell run a command.
    fn tell(&mut self, command: &str) {
        let shell = self.shell.as_mut().expect("a running shell");
        writeln!(shell, "{command}").expect("tell the shell");
    }

    /// Waits for something that it does.
    #[track_caller]
    pub fn wait(&self, what: &str, happened: impl FnMut() -> bool) {
        assert!(
            happens(LIMIT, happened),
            "{what}: not in {LIMIT:?}; the daemons said:\n{}",
            self.log()
        );
    }

    /// What the daemons said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// How often an address has moved between hosts, as zebra has it: its sequence number, of a local or a remote address.
    pub fn sequence(&self, mac: &str) -> [Value; 2] {
        let mut vtysh = Command::new("vtysh");
        vtysh
            .arg("--vty_socket")
            .arg(&self.folder)
            .args(["-c", &format!("show evpn mac vni {VNI} mac {mac} json")]);
        let mut told = run(vtysh).json();
        let address = &mut told[mac];
        ["localSequence", "remoteSequence"].map(|key| address[key].take())
    }
}

impl Drop for Routing {
    fn drop(&mut self) {
        self.shell = None;
        let _ = wait(&mut self.child, LIMIT);
    }
}

fn configuration(number: u8, hosts: u8) -> String {
    let mut text = format!(
        "log stdout\n\
         router bgp 65000\n \
         bgp router-id {}\n \
         no bgp default ipv4-unicast\n \
         neighbor HOSTS peer-group\n \
         neighbor HOSTS remote-as internal\n \
         neighbor HOSTS timers 2 6\n \
         neighbor HOSTS timers connect 1\n",
        underlay_address(number)
    );
    for other in (1..=hosts).filter(|other| *other != number) {
        let _ = writeln!(text, " neighbor {} peer-group HOSTS", underlay_address(other));
    }
    text +=
        " address-family l2vpn evpn\n  neighbor HOSTS activate\n  advertise-all-vni\n exit-address-family\n";
    text
}
