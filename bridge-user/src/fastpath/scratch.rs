//! A Linux bridge in a network namespace that nobody else sees: what can't be read in the kernel's description of itself
//! is tried out there, and whether the programs find what the bridge has.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use bridge_common::{
    Hook,
    fastpath::{PEEK_SLOTS, Peek},
};

use crate::{
    error::{Context as _, Error, Result},
    kernel::{ioctl, link, own_network::in_own_network},
};

const BRIDGE: &str = "br0";
const PORTS: [&str; 2] = ["tap1", "tap2"];
/// The setting that [`Peek`] looks for.
const CALLS: [&str; 3] = ["iptables", "ip6tables", "arptables"];

/// Runs in a network namespace of its own.
pub(super) fn in_scratch<T: Send>(work: impl FnOnce(&Scratch) -> Result<T> + Send) -> Result<T> {
    in_own_network(|| work(&Scratch::make().at("a bridge to try out", "make")?))
}

fn failed(cause: impl Into<String>) -> Error {
    Error::System {
        object: "fast path".into(),
        action: "try itself out",
        cause: cause.into(),
    }
}

/// Two taps that are ports of a bridge; station 1 is behind the first, stations 2 and 3 are behind the second.
pub(super) struct Scratch {
    taps: [File; 2],
    /// Index of the first tap.
    pub ifindex: u32,
}

const fn station(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

/// The shortest frame, of a protocol for experiments (IEEE 802, 0x88b5).
pub(super) fn frame(from: [u8; 6], to: [u8; 6]) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

impl Scratch {
    fn make() -> io::Result<Self> {
        // Nobody shall be asked for duplicates of an address, nor anything else be sent.
        let quiet = fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        match quiet {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = ioctl::socket()?;
        ioctl::add_bridge(&socket, BRIDGE)?;
        let mut taps = Vec::new();
        for name in PORTS {
            let tun = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open("/dev/net/tun")?;
            ioctl::make_tap(&tun, name)?;
            ioctl::add_port(&socket, BRIDGE, ioctl::index(&socket, name)?)?;
            ioctl::set_up(&socket, name)?;
            taps.push(tun);
        }
        ioctl::set_up(&socket, BRIDGE)?;
        let ifindex = ioctl::index(&socket, PORTS[0])?;
        let taps = taps
            .try_into()
            .map_err(|_| io::Error::other("two taps are two taps"))?;
        Ok(Self { taps, ifindex })
    }

    /// Makes the stations known to the bridge, and takes what it floods.
    pub fn introduce(&self) -> io::Result<()> {
        let [first, second] = &self.taps;
        for (mut tap, from, to) in [(first, 1, 2), (second, 2, 1), (second, 3, 1)] {
            tap.write_all(&frame(station(from), station(to)))?;
        }
        let mut buffer = [0; 2048];
        for mut tap in [first, second] {
            while tap.read(&mut buffer).is_ok() {}
        }
        Ok(())
    }

    /// Attaches a program to the first tap at tcx, for as long as the descriptor is open.
    pub fn attach(&self, tcx: &SchedClassifier) -> Result<OwnedFd> {
        let program = tcx.fd().at("tcx program", "open")?;
        link::create(program.as_fd(), self.ifindex, Hook::Tcx).at(PORTS[0], "attach tcx")
    }

    /// What the program at tcx makes of a frame from station 1 to another station.
    pub fn run(&self, tcx: &SchedClassifier, to: u8) -> Result<u32> {
        run(tcx, self.ifindex, &frame(station(1), station(to)))
    }
}

/// What a program makes of a frame that a device of the calling thread's network namespace receives.
pub(super) fn run(program: &SchedClassifier, ifindex: u32, frame: &[u8]) -> Result<u32> {
    // Of `struct __sk_buff`: `ifindex`, the device that the frame came in by (`convert___skb_to_skb`).
    let mut context = [0_u8; 192];
    context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
    run_with(program, frame, Some(&context))
}

/// What a program makes of what is no frame of a device.
pub(super) fn run_alone(program: &SchedClassifier, data: &[u8]) -> Result<u32> {
    run_with(program, data, None)
}

fn run_with(program: &SchedClassifier, data: &[u8], context: Option<&[u8]>) -> Result<u32> {
    let options = TestRunOptions {
        data_in: Some(data),
        ctx_in: context,
        ..TestRunOptions::new()
    };
    let result = program.test_run(options).at("tcx program", "run")?;
    Ok(result.return_value)
}

/// Where `br_netfilter` has its settings in `net->gen`: the slot in which a word follows `call_iptables`. None where the
/// settings can't be found, so that frames stay with the bridge wherever `br_netfilter` is.
pub(super) fn find_netfilter_slot(mut peek: impl FnMut() -> Result<Peek>) -> Result<Option<u64>> {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    let mut slots: Vec<usize> = (0..PEEK_SLOTS).collect();
    for (text, number) in [("1", 1), ("0", 0), ("1", 1), ("0", 0)] {
        match fs::write(path, text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.at(path, "write")?,
        }
        let words = peek()?.words;
        slots.retain(|&slot| words[slot] == number);
    }
    Ok(match slots[..] {
        [slot] => u64::try_from(slot).ok(),
        _ => None,
    })
}

/// Switches off what `br_netfilter` calls in this namespace; nothing to do where there is none.
pub(super) fn quiet_netfilter() -> Result<()> {
    for call in CALLS {
        let path = format!("/proc/sys/net/bridge/bridge-nf-call-{call}");
        match fs::write(&path, "0") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.at(path, "write")?,
        }
    }
    Ok(())
}

/// Checks that a verdict of the programs is the bridge's.
pub(super) fn expect(what: &str, verdict: u32, expected: u32) -> Result<()> {
    if verdict == expected {
        return Ok(());
    }
    Err(failed(format!(
        "{what}: the verdict is {verdict} and not {expected}; the bridge of this kernel is not as expected, and goes on \
         without a fast path"
    )))
}
