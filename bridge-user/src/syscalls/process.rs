//! A process that was chosen by its id.

use std::{
    fs, io,
    os::{
        fd::{FromRawFd as _, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    error::{Context as _, Error, Result},
    kernel::namespace,
};

/// A process, held by a descriptor, so that another one that gets its id later is not mistaken for it.
pub struct Process {
    id: u32,
    name: String,
    descriptor: OwnedFd,
}

impl Process {
    /// Opens the process of this id in the caller's namespace.
    pub fn open(id: u32) -> Result<Self> {
        let descriptor = match pidfd_open(id) {
            Ok(descriptor) => descriptor,
            Err(error) => return Err(refused(id, &error)),
        };
        // A process that has ended and not been waited for has a name, and no namespace any more.
        let home = fs::metadata(format!("/proc/{id}/ns/pid")).map(|metadata| metadata.ino());
        let [_, ours] = namespace::of_processes()?;
        if ours != 0 && home.is_ok_and(|home| home != ours) {
            return Err(Error::OtherPidNamespace { pid: id });
        }
        let name = fs::read(format!("/proc/{id}/comm")).unwrap_or_default();
        Ok(Self {
            id,
            name: String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned(),
            descriptor,
        })
    }

    /// Its id and its name.
    pub fn name(&self) -> (u32, String) {
        (self.id, self.name.clone())
    }

    /// Answers with the id when the process has ended.
    pub async fn ended(self) -> Result<u32> {
        let name = format!("process {}", self.id);
        // SAFETY: the wait owns the descriptor and keeps it for as long as it lives.
        let descriptor = unsafe { AsyncFd::register_with_interest(self.descriptor, Interest::READABLE) };
        let descriptor = descriptor
            .map_err(|error| error.into_parts().1)
            .at(&name, "wait for its end")?;
        let _ = descriptor.readable().await.at(&name, "wait for its end")?;
        Ok(self.id)
    }
}

fn pidfd_open(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    match RawFd::try_from(descriptor) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn refused(id: u32, error: &io::Error) -> Error {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let process = status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    match process {
        Some(process) if process != id => Error::Thread { pid: id, process },
        _ if error.raw_os_error() == Some(libc::ESRCH) => Error::NoProcess { pid: id },
        _ => Error::System {
            object: format!("process {id}"),
            action: "open",
            cause: error.to_string(),
        },
    }
}
