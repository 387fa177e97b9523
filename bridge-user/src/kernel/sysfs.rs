//! sysfs as the calling thread's network namespace has it, whatever is mounted at /sys.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

// Of include/uapi/linux/mount.h.
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;

/// A sysfs of the network namespace that the thread was in.
///
/// `nsenter --net` leaves the machine's sysfs at /sys, which shows the devices of another namespace; so this is a mount
/// of its own, which is nowhere and ends with this value. Without `CAP_SYS_ADMIN` it is /sys.
#[derive(Debug)]
pub struct Sysfs(File);

impl Sysfs {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        match mount() {
            Ok(root) => Ok(Self(root.into())),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Self(File::open("/sys")?)),
            Err(error) => Err(error),
        }
    }

    /// A file in it, by its path from the root. Valid for as long as this value lives.
    pub fn path(&self, path: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{path}", self.0.as_raw_fd()).into()
    }

    /// Queues by which a device transmits now, `real_num_tx_queues`. 0 if the device is gone.
    pub fn transmit_queues(&self, device: &str) -> usize {
        self.queues(device, "tx-").len()
    }

    /// The first of a device's receive queues whose frames the kernel steers to other CPUs (`get_rps_cpu`).
    pub fn steered_queue(&self, device: &str) -> Option<String> {
        self.queues(device, "rx-").into_iter().find(|queue| {
            ["rps_cpus", "rps_flow_cnt"].into_iter().any(|setting| {
                let path = self.path(&format!("class/net/{device}/queues/{queue}/{setting}"));
                // Either is a number, of CPUs as a mask in hexadecimal with commas.
                fs::read_to_string(path)
                    .is_ok_and(|value| value.trim().contains(|digit| !matches!(digit, '0' | ',')))
            })
        })
    }

    /// Names of a device's queues of one direction, sorted.
    fn queues(&self, device: &str, prefix: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(&format!("class/net/{device}/queues")));
        let names = entries.into_iter().flatten().flatten();
        let mut names: Vec<_> = names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort();
        names
    }
}

fn mount() -> io::Result<OwnedFd> {
    let opened = |result: libc::c_long| -> io::Result<OwnedFd> {
        let fd = i32::try_from(result).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    // SAFETY: the name lives across the call.
    let context = opened(unsafe { libc::syscall(libc::SYS_fsopen, c"sysfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: this command takes neither key nor value.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            nothing,
            nothing,
            0,
        )
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call takes three numbers.
    opened(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}
