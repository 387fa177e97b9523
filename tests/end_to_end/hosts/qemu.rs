//! QEMU itself: it opens and drives its taps, and has no guest. What a guest would send and receive are datagrams of a
//! socket, which a hub of QEMU's carries to the tap and back.

use std::{
    env,
    fs::{self, File},
    os::{
        fd::AsRawFd as _,
        unix::{net::UnixDatagram, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use lab::tap::MAX_FRAME;
use serde_json::json;
use tempfile::TempDir;

use super::{
    AGAIN,
    page::{self, find_tapbridge},
    vmm::{Manner, Step, open_one},
};
use crate::{
    configuration::{attached, follow},
    support::{
        frames::{Flow, hello, payload},
        linux_bridge::stop_learning,
        program::{LIMIT, happens, ip, link, signal, wait},
        switch::Switch,
        wire::assert_same,
    },
};

crate::tests![
    qemus_scripts_attach_its_taps_and_detach_them,
    qemus_taps_are_attached_as_they_become_ports,
    a_tap_that_qemu_gets_as_a_descriptor_has_both_hooks,
];

/// What the machine lacks for them.
pub fn lacking() -> Option<String> {
    program().is_none().then(|| {
        "needs qemu-system-x86_64, in PATH or in the folder of TAPBRIDGE_VM, which 'cargo xtask test' sets".into()
    })
}

const PROGRAM: &str = "qemu-system-x86_64";

/// A command that is QEMU: that of the virtual machines' packages, if they have one, else the machine's own.
fn program() -> Option<Command> {
    let unpacked = env::var_os("TAPBRIDGE_VM").map(|folder| PathBuf::from(folder).join("qemu"));
    if let Some(root) = unpacked.filter(|root| root.join("usr/bin").join(PROGRAM).exists()) {
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|folder| root.join(folder));
        // Not by LD_LIBRARY_PATH, which its scripts would have too.
        let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(env::join_paths(&libraries).ok()?)
            .arg(root.join("usr/bin").join(PROGRAM))
            .arg("-L")
            .arg(root.join("usr/share/qemu"))
            .env("QEMU_MODULE_DIR", libraries[0].join("qemu"));
        return Some(command);
    }
    let there = Command::new(PROGRAM)
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    there
        .is_ok_and(|status| status.success())
        .then(|| Command::new(PROGRAM))
}

/// A running QEMU with a tap.
struct Qemu {
    child: Child,
    socket: UnixDatagram,
    peer: PathBuf,
    _folder: TempDir,
}

impl Qemu {
    /// Starts it with this tap for its network, beside what is attached in the switch.
    fn start(switch: &Switch, tap: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let folder = TempDir::new().expect("a folder");
        let [ours, peer, said] = ["ours", "qemu", "said"].map(|name| folder.path().join(name));
        let socket = UnixDatagram::bind(&ours).expect("bind a socket");
        socket.set_read_timeout(Some(LIMIT)).expect("set an option");
        let mut command = program().expect("QEMU");
        command
            .args(["-M", "none", "-nodefaults", "-no-user-config", "-accel", "tcg"])
            .args(["-display", "none", "-monitor", "none"])
            .args(["-netdev", &format!("tap,id=tap,{tap}"), "-netdev"])
            .arg(format!(
                "dgram,id=guest,local.type=unix,local.path={},remote.type=unix,remote.path={}",
                peer.display(),
                ours.display()
            ))
            .args(["-netdev", "hubport,id=one,hubid=0,netdev=tap"])
            .args(["-netdev", "hubport,id=other,hubid=0,netdev=guest"])
            .stdin(Stdio::null())
            .stderr(File::create(&said).expect("a file"));
        find_tapbridge(&mut command, switch);
        prepare(&mut command);
        let mut qemu = Self {
            child: command.spawn().expect("start QEMU"),
            socket,
            peer,
            _folder: folder,
        };
        let ready = || {
            let ended = qemu.child.try_wait().expect("look at QEMU");
            let said = || fs::read_to_string(&said).unwrap_or_default();
            assert!(ended.is_none(), "QEMU has ended: {ended:?}: {}", said());
            qemu.peer.exists()
        };
        assert!(happens(LIMIT, ready), "QEMU makes no socket in {LIMIT:?}");
        qemu
    }

    /// What its guest sends.
    #[track_caller]
    fn send(&self, frame: &[u8]) {
        let sent = self.socket.send_to(frame, &self.peer);
        assert_eq!(sent.expect("send to QEMU"), frame.len());
    }

    /// What its guest gets next is this, but for what stations say to make themselves known.
    #[track_caller]
    fn assert_receives(&self, frame: &[u8]) {
        let hellos = [1, 2].map(|station| padded(&hello(station)));
        let mut buffer = vec![0; MAX_FRAME];
        let received = loop {
            let length = self.socket.recv(&mut buffer).expect("receive from QEMU");
            let received = &buffer[..length];
            if !hellos.iter().any(|hello| hello == received) {
                break received;
            }
        };
        assert_same("QEMU", received, &padded(frame));
    }

    /// Another guest hears a station of this one, as soon as QEMU runs and the bridge between them lets it.
    #[track_caller]
    fn greet(&self, station: u8, other: &Self) {
        let hello = padded(&hello(station));
        let mut buffer = vec![0; MAX_FRAME];
        other.socket.set_read_timeout(Some(AGAIN)).expect("set an option");
        let heard = happens(LIMIT, || {
            self.send(&hello);
            let received = other.socket.recv(&mut buffer);
            received.is_ok_and(|length| buffer[..length] == hello)
        });
        assert!(heard, "nothing of station {station} in {LIMIT:?}");
        other.socket.set_read_timeout(Some(LIMIT)).expect("set an option");
    }

    /// As a guest that shuts down ends it.
    fn stop(mut self) {
        signal(&self.child, "TERM");
        let ended = wait(&mut self.child, LIMIT).expect("QEMU ends when it is asked to");
        assert!(ended.success(), "{ended}");
    }
}

/// QEMU makes a frame from a tap as long as Ethernet's shortest is, without its checksum.
fn padded(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(frame.len().max(60), 0);
    frame
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Frames between stations 1 and 2, QEMU's guests at these taps, go past the bridge by XDP.
#[track_caller]
fn assert_carries(switch: &Switch, guests: [&Qemu; 2], taps: [&str; 2]) {
    let [one, other] = guests;
    for (station, from, to) in [(1, one, other), (2, other, one)] {
        from.greet(station, to);
    }
    taps.into_iter().for_each(stop_learning);
    for _ in 0..3 {
        for (from, to, frame) in [
            (one, other, Flow::tcp(1, 2).frame(&payload(1400))),
            (other, one, Flow::tcp(2, 1).frame(b"short")),
        ] {
            from.send(&frame);
            to.assert_receives(&frame);
        }
    }
    let stats = switch.stats();
    let [one, other] = taps;
    assert_eq!(
        (stats.frames(one, other), stats.frames(other, one)),
        ((3, 0), (3, 0)),
        "{stats:#?}"
    );
}

fn qemus_scripts_attach_its_taps_and_detach_them() {
    let switch = Switch::empty();
    ip("link add br0 up type bridge mcast_snooping 0");
    let folder = TempDir::new().expect("a folder");
    let [up, down] = ["up", "down"].map(|name| folder.path().join(name));
    page::QEMU.executable("tapbridge attach", &up);
    page::QEMU.executable("tapbridge detach", &down);
    let start = |tap: &str| {
        let scripts = format!("script={},downscript={}", up.display(), down.display());
        Qemu::start(&switch, &format!("ifname={tap},{scripts}"), |_| ())
    };
    let [one, other] = ["vm1", "vm2"].map(start);
    assert_carries(&switch, [&one, &other], ["vm1", "vm2"]);
    other.stop();
    let names: Vec<_> = switch.stats().ports.into_iter().map(|port| port.ifname).collect();
    assert_eq!(names, ["vm1"]);
    one.stop();
    assert!(!switch.state().exists(), "the last one leaves nothing");
}

fn qemus_taps_are_attached_as_they_become_ports() {
    let switch = Switch::empty();
    ip("link add br0 up type bridge mcast_snooping 0");
    let running = follow(&switch, &page::QEMU.configuration("name = \"br0\""));
    let folder = TempDir::new().expect("a folder");
    let up = folder.path().join("up");
    page::QEMU.executable("master br0 up\n", &up);
    let [one, other] = ["vm1", "vm2"].map(|tap| {
        let qemu = Qemu::start(
            &switch,
            &format!("ifname={tap},script={},downscript=no", up.display()),
            |_| (),
        );
        assert_eq!(
            attached(&running),
            [json!(tap), json!("br0"), json!(["xdp", "tcx"])]
        );
        qemu
    });
    assert_carries(&switch, [&one, &other], ["vm1", "vm2"]);
    // A guest that is killed.
    drop(other);
    one.stop();
    assert!(running.stop("TERM").success());
}

fn a_tap_that_qemu_gets_as_a_descriptor_has_both_hooks() {
    // All that has to be done to it before: QEMU does the rest.
    const LAUNCHER: Manner = Manner {
        flags: 0,
        steps: &[Step::Interface(libc::IFF_VNET_HDR), Step::Up],
    };
    let switch = Switch::empty();
    let [one, other] = ["vm1", "vm2"].map(|tap| {
        let descriptor = open_one(tap, &LAUNCHER);
        switch.ok(&format!("attach {tap}"));
        let number = descriptor.as_raw_fd();
        Qemu::start(&switch, &format!("fd={number}"), |command| {
            // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
            unsafe {
                command.pre_exec(move || {
                    let kept = libc::fcntl(number, libc::F_SETFD, 0);
                    (kept == 0)
                        .then_some(())
                        .ok_or_else(std::io::Error::last_os_error)
                });
            }
        })
    });
    assert_carries(&switch, [&one, &other], ["vm1", "vm2"]);
    one.stop();
    other.stop();
    // As soon as nobody has a descriptor of theirs.
    let gone = || ["vm1", "vm2"].into_iter().all(|tap| link(tap).is_none());
    assert!(happens(LIMIT, gone), "a tap is there {LIMIT:?} later");
}
