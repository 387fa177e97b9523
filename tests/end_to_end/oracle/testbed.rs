//! A network namespace with a fast path, used by one script after the other: making one takes longer than a script.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use lab::{Namespace, netns};
use tapbridge::{fastpath::FastPath, state::State};

use crate::support::{bpffs, switch::unique};

/// Those that nobody uses now.
static IDLE: Mutex<Vec<Testbed>> = Mutex::new(Vec::new());

pub struct Testbed {
    pub namespace: Namespace,
    pub fast: RefCell<FastPath>,
    state: PathBuf,
}

impl Testbed {
    /// One that nobody else uses.
    pub fn take() -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(Self::new)
    }

    fn new() -> Self {
        let namespace = Namespace::anonymous().expect("a network namespace");
        let state = Path::new(bpffs::PATH).join(unique(bpffs::PREFIX));
        let entered = namespace.enter().expect("enter it");
        netns::disable_ipv6().expect("IPv6 off");
        let locked = State::new(&state).lock().expect("the state");
        let fast = FastPath::open_or_create(&locked).expect("the fast path");
        drop(entered);
        Self {
            namespace,
            fast: RefCell::new(fast),
            state,
        }
    }

    /// The next script may have it: this one has left nothing.
    pub fn give_back(self) {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        let _ = self.fast.borrow().remove();
        let _ = fs::remove_dir_all(&self.state);
    }
}

/// At the end of all tests.
pub fn remove_all() {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner).clear();
}
