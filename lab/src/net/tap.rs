//! A tap device, held the way a VMM holds its guest's network card: crates for taps are made for VPNs, and leave its send
//! buffer, its header's length and who reads it as they are.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    error::{Context, Result},
    ioctl,
    netns::Namespace,
    offloads::Offloads,
    rtnetlink,
    vnet::VnetHeader,
};

/// The longest frame a tap hands out with segmentation offloads on: 64 KiB of IP and an Ethernet header with tag.
pub const MAX_FRAME: usize = 65_550;

const TUN_DEVICE: &str = "/dev/net/tun";

/// How long a program may take to start on a very busy machine.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);

/// The options of a tap that is about to be opened; see [`Tap::builder`].
#[derive(Debug, Clone)]
pub struct TapBuilder {
    name: String,
    offloads: Offloads,
    mtu: Option<u32>,
    persistent: bool,
    blocking: bool,
    multi_queue: bool,
}

impl TapBuilder {
    /// Sets what the holder takes; everything unless told.
    #[must_use]
    pub fn offloads(mut self, offloads: Offloads) -> Self {
        self.offloads = offloads;
        self
    }

    /// The MTU in bytes, 68..=65521; unless told the kernel's default, 1500.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Makes a tap that outlives its file descriptor, as libvirt and `ip tuntap add` do. Drop still removes it.
    #[must_use]
    pub fn persistent(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Leaves the descriptor blocking. XDP then runs in its generic form: native wants `O_NONBLOCK`.
    #[must_use]
    pub fn blocking(mut self) -> Self {
        self.blocking = true;
        self
    }

    /// Makes a tap that may have several queues; see [`Tap::another_queue`].
    #[must_use]
    pub fn multi_queue(mut self) -> Self {
        self.multi_queue = true;
        self
    }

    /// Opens `/dev/net/tun` and makes the tap in the calling thread's network namespace, or attaches to the
    /// persistent one of that name. It is down until [`Tap::up`], except an existing one that was up.
    pub fn open(self) -> Result<Tap> {
        let netns = Namespace::current()?;
        let tun = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(if self.blocking { 0 } else { libc::O_NONBLOCK })
            .open(TUN_DEVICE)
            .context(&self.name, format!("open {TUN_DEVICE}"))?;
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if self.multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let flags = i16::try_from(flags).expect("the tap flags fit in a short");
        let name = &ioctl::tun_set_iff(&tun, &self.name, flags).context(&self.name, "TUNSETIFF")?;

        self.offloads.configure(&tun, name)?;
        let of_others = ioctl::tun_is_persistent(&tun).context(name, "TUNGETIFF")? && !self.persistent;
        if self.persistent {
            ioctl::tun_set_persist(&tun, true).context(name, "TUNSETPERSIST")?;
        }

        let control = rtnetlink::open().context(name, "netlink socket")?;
        let ifindex = ioctl::interface_index(&control, name).context(name, "SIOCGIFINDEX")?;
        let options = Self {
            name: name.clone(),
            ..self
        };
        let tap = Tap {
            options,
            ifindex,
            tun,
            control,
            owned: !of_others,
            netns,
        };
        if let Some(mtu) = tap.options.mtu {
            tap.set_mtu(mtu)?;
        }
        Ok(tap)
    }
}

/// An open tap: what is sent here comes out of the interface as received, what the interface transmits is received
/// here. The interface goes with this value, also when it is a persistent one.
#[derive(Debug)]
pub struct Tap {
    options: TapBuilder,
    ifindex: u32,
    tun: File,
    /// Reaches the interface in the namespace the tap was opened in.
    control: OwnedFd,
    /// Whether the interface goes with this value.
    owned: bool,
    netns: Namespace,
}

impl Tap {
    /// Options for a tap of this name, at most 15 bytes; a `%d` in it becomes the first free number.
    pub fn builder(name: impl Into<String>) -> TapBuilder {
        TapBuilder {
            name: name.into(),
            offloads: Offloads::All,
            mtu: None,
            persistent: false,
            blocking: false,
            multi_queue: false,
        }
    }

    /// A tap of this name with every offload, up.
    pub fn open(name: impl Into<String>) -> Result<Self> {
        let tap = Self::builder(name).open()?;
        tap.up()?;
        Ok(tap)
    }

    /// One more queue of a tap that may have several. It goes with the value that is returned, the interface with
    /// this one.
    pub fn another_queue(&self) -> Result<Self> {
        let mut queue = self.netns.run(|| self.options.clone().open())?;
        queue.owned = false;
        Ok(queue)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The interface's index in its namespace.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Sets the interface up. Works from any thread, as do `down` and `set_mtu`.
    pub fn up(&self) -> Result<()> {
        ioctl::set_interface_up(&self.control, self.name(), true).context(self.name(), "set up")
    }

    /// Sets the interface down.
    pub fn down(&self) -> Result<()> {
        ioctl::set_interface_up(&self.control, self.name(), false).context(self.name(), "set down")
    }

    /// Sets the interface's MTU in bytes, 68..=65521.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        ioctl::set_interface_mtu(&self.control, self.name(), mtu)
            .context(self.name(), format!("set MTU {mtu}"))
    }

    /// Sends one frame with one `writev`, as a VMM does for its guest.
    ///
    /// `EIO` says that the interface is down, `EINVAL` that header and frame contradict each other.
    pub fn send(&self, header: &VnetHeader, frame: &[u8]) -> io::Result<()> {
        let header = header.to_bytes();
        let written = (&self.tun).write_vectored(&[IoSlice::new(&header), IoSlice::new(frame)])?;
        if written == VnetHeader::LEN + frame.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    /// Receives one frame, or `None` if none came within `timeout`.
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<(VnetHeader, Vec<u8>)>> {
        let deadline = Instant::now() + timeout;
        let mut buffer = vec![0; VnetHeader::LEN + MAX_FRAME];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up to a millisecond, else the last fraction of one would be spent spinning.
            let left = PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.tun.as_fd(), PollFlags::POLLIN)], left) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match (&self.tun).read(&mut buffer) {
                Ok(read) => {
                    let (header, frame) = buffer[..read]
                        .split_first_chunk()
                        .ok_or(io::ErrorKind::UnexpectedEof)?;
                    return Ok(Some((VnetHeader::from_bytes(*header), frame.to_vec())));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives until a frame satisfies `wanted`; frames that do not are dropped. `None` after `timeout`.
    pub fn receive_where(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&VnetHeader, &[u8]) -> bool,
    ) -> io::Result<Option<(VnetHeader, Vec<u8>)>> {
        let deadline = Instant::now() + timeout;
        while let Some((header, frame)) = self.receive(deadline.saturating_duration_since(Instant::now()))? {
            if wanted(&header, &frame) {
                return Ok(Some((header, frame)));
            }
        }
        Ok(None)
    }

    /// Throws away every frame that waits to be received; returns how many there were.
    pub fn drain(&self) -> io::Result<usize> {
        let mut frames = 0;
        while self.receive(Duration::ZERO)?.is_some() {
            frames += 1;
        }
        Ok(frames)
    }

    /// The VMM exits: the interface stays, without carrier, until the guard that is returned is dropped or
    /// [opened again](IdleTap::open).
    pub fn close(mut self) -> Result<IdleTap> {
        let control = self.control.try_clone().context(self.name(), "dup")?;
        let netns = self.netns.try_clone()?;
        ioctl::tun_set_persist(&self.tun, true).context(self.name(), "TUNSETPERSIST")?;
        self.owned = false;
        let idle = IdleTap {
            options: self.options.clone().persistent(),
            ifindex: self.ifindex,
            control: Some(control.try_clone().context(self.name(), "dup")?),
            netns,
        };
        drop(self);
        // Not at once: a process that another thread starts has the descriptor too until it executes its program.
        let name = &idle.options.name;
        let deadline = Instant::now() + CLOSE_LIMIT;
        while ioctl::interface_has_carrier(&control, name).context(name, "ETHTOOL_GLINK")? {
            if Instant::now() > deadline {
                let late = Err(io::Error::from(io::ErrorKind::TimedOut));
                return late.context(name, "wait until nobody reads it");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(idle)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tun.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.tun.as_raw_fd()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if self.owned {
            // Closing the descriptor is not enough at once: a process that another thread is starting has a copy of
            // it until its exec. It fails only where the interface is gone already.
            let _ = ioctl::tun_set_persist(&self.tun, false);
            let _ = rtnetlink::delete_interface(&self.control, self.ifindex);
        }
    }
}

/// A persistent tap whose VMM is gone: the interface exists, nobody reads it. Removed on drop.
#[derive(Debug)]
pub struct IdleTap {
    options: TapBuilder,
    ifindex: u32,
    /// Emptied when the tap is opened again.
    control: Option<OwnedFd>,
    netns: Namespace,
}

impl IdleTap {
    /// The VMM is back: attaches to the tap again, with the options it was made with.
    pub fn open(mut self) -> Result<Tap> {
        // See `Tap::drop` for what may still hold the descriptor of the VMM before.
        let deadline = Instant::now() + CLOSE_LIMIT;
        loop {
            match self.netns.run(|| self.options.clone().open()) {
                Err(error) if error.is_busy() && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
                Ok(tap) => {
                    self.control = None;
                    return Ok(tap);
                }
            }
        }
    }
}

impl Drop for IdleTap {
    fn drop(&mut self) {
        if let Some(control) = &self.control {
            // Fails only where the interface is gone already.
            let _ = rtnetlink::delete_interface(control, self.ifindex);
        }
    }
}
