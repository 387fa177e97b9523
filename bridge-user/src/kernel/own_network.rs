//! Work in a network namespace that nobody else sees.

use std::{
    panic::{self, AssertUnwindSafe},
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, clone, unshare},
    sys::wait::{WaitPidFlag, waitpid},
};

use super::ioctl;
use crate::error::{Error, Result};

/// What a thread of Rust's gets, in bytes.
const STACK: usize = 2 << 20;

/// Works in a network namespace of its own, which goes with the work. Without `CAP_SYS_ADMIN` it belongs to a user namespace
/// of its own: there bpf(2) takes what was opened before, and loads nothing.
pub fn in_own_network<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let run = || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => work(),
        Err(Errno::EPERM) => in_user_namespace(work),
        Err(error) => Err(refused(&error)),
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|_| Err(refused(&"a thread ended early")))
}

/// One thread of several can't enter another user namespace (`check_unshare_flags`), so a process does, in the memory of
/// this one and with its files, while the calling thread waits.
fn in_user_namespace<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut stack = vec![0; STACK];
    let mut work = Some(work);
    let mut result = None;
    let child = || {
        let work = work.take();
        // A panic must not leave this stack.
        result = panic::catch_unwind(AssertUnwindSafe(|| {
            // AppArmor lets the namespace be made, and nothing be done in it.
            ioctl::socket()
                .and_then(|socket| ioctl::set_up(&socket, "lo"))
                .map_err(|error| refused(&error))?;
            work.map_or_else(|| Err(refused(&"there is no work")), |work| work())
        }))
        .ok();
        0
    };
    let flags = CloneFlags::CLONE_VM
        | CloneFlags::CLONE_VFORK
        | CloneFlags::CLONE_FILES
        | CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNET;
    // SAFETY: the calling thread does nothing until the child has ended (`CLONE_VFORK`), so what is the thread's, its
    // thread-local storage too, is the child's alone until then, and outlives it. The stack is as large as any thread's.
    let child = unsafe { clone(Box::new(child), &mut stack, flags, None) };
    let child = child.map_err(|error| refused(&error))?;
    // It has ended, so nothing is waited for; `__WALL`, since it tells nobody.
    let _ = waitpid(child, Some(WaitPidFlag::__WALL));
    result.unwrap_or_else(|| Err(refused(&"its process ended early")))
}

fn refused(cause: &dyn ToString) -> Error {
    Error::NoOwnNetwork {
        cause: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn namespace() -> std::path::PathBuf {
        fs::read_link("/proc/thread-self/ns/net").expect("the thread's network namespace")
    }

    #[test]
    fn work_without_root_is_done_in_a_network_of_its_own() {
        let before = namespace();
        let there = in_user_namespace(|| Ok(namespace()));
        match there {
            Ok(there) => assert_ne!(there, before),
            // A machine that lets nobody do it.
            Err(error) => assert!(error.to_string().contains("user namespaces"), "{error}"),
        }
        assert_eq!(namespace(), before);
    }

    #[test]
    fn work_that_panics_there_is_an_error_here() {
        let error = in_user_namespace(|| -> Result<()> { panic!("as it has to") }).unwrap_err();
        assert!(matches!(error, Error::NoOwnNetwork { .. }), "{error}");
    }
}
