//! The socket that clients connect to.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind},
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, umask};
use tokio::net::{TcpListener as AsyncTcpListener, UnixListener as AsyncUnixListener, UnixStream};

use super::Address;
use crate::error::{Error, Result};

/// What of a new socket's permissions is taken away: owner and group may connect.
const OTHERS: Mode = Mode::S_IRWXO.union(Mode::S_IXUSR).union(Mode::S_IXGRP);

/// A socket that listens, which is not any runtime's yet.
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A socket that listens.
pub(super) enum Listener {
    Tcp(AsyncTcpListener),
    Unix(AsyncUnixListener),
}

/// Removed when it is dropped, if it is still the one that was made.
pub(super) struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl Listening {
    /// Listens there. A socket that nobody listens to any more is replaced.
    pub(super) async fn at(address: &Address) -> Result<Self> {
        let made = match address {
            Address::Tcp(address) => TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }),
            Address::Unix(path) => match clear(path).await {
                Ok(()) => bind(path),
                Err(error) => Err(error),
            },
        };
        made.map_err(|error| Error::NoEndpoint {
            address: address.to_string(),
            next: next_step(&error),
            cause: error.to_string(),
        })
    }

    /// Where it listens: for port 0 the kernel has chosen one.
    pub(super) fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            Self::Unix(_, file) => Address::Unix(file.path.clone()),
        })
    }

    /// Makes it the calling thread's runtime's. Of a socket of the file system, its file too.
    pub(super) fn listen(self) -> io::Result<(Listener, Option<SocketFile>)> {
        Ok(match self {
            Self::Tcp(listener) => (Listener::Tcp(AsyncTcpListener::from_std(listener)?), None),
            Self::Unix(listener, file) => {
                let listener = Listener::Unix(AsyncUnixListener::from_std(listener)?);
                (listener, Some(file))
            }
        })
    }
}

fn next_step(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::AddrInUse => "end who has it, or name another",
        ErrorKind::AddrNotAvailable => "name an address that this network namespace has ('ip address')",
        ErrorKind::NotFound => "make the folder, or name another path",
        ErrorKind::PermissionDenied => "name one that this user may have",
        _ => "name another",
    }
}

/// Removes a socket that nobody listens to.
async fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let taken = |cause| Err(io::Error::new(ErrorKind::AddrInUse, cause));
    if !found.file_type().is_socket() {
        return taken("a file is there that is no socket");
    }
    // Without blocking, which a listener that accepts nobody would have it do for ever.
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => taken("another process listens there"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => taken("another process listens there"),
        Err(error) => Err(error),
    }
}

fn bind(path: &Path) -> io::Result<Listening> {
    // Not afterwards: by then somebody may have connected.
    let before = umask(OTHERS);
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    let file = SocketFile {
        path: path.to_owned(),
        id: id(&fs::symlink_metadata(path)?),
    };
    Ok(Listening::Unix(listener, file))
}

fn id(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| id(&file) == self.id);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}
