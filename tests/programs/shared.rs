//! Switches that one test has after the other: to load one takes most of a test's time, the more so where the kernel's
//! code is translated.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
    thread,
};

use crate::switch::{Frames, Switch};

/// Those that no test has at the moment.
static IDLE: Mutex<Vec<(Frames, Switch)>> = Mutex::new(Vec::new());

/// A switch, to be [cleared](Switch::clear) before use, that another test gets when this one has succeeded.
pub struct Shared {
    /// Nothing only while it is being dropped.
    switch: Option<Switch>,
    /// Nothing if no other test is to get it.
    frames: Option<Frames>,
}

impl Shared {
    /// One that is idle, or a new one.
    pub fn take(frames: Frames) -> Self {
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        let found = idle.iter().position(|(for_frames, _)| *for_frames == frames);
        let found = found.map(|index| idle.swap_remove(index).1);
        drop(idle);
        Self {
            switch: Some(found.unwrap_or_else(|| Switch::load(frames))),
            frames: Some(frames),
        }
    }

    /// A new one, for this test alone.
    pub fn unshared(frames: Frames) -> Self {
        Self {
            switch: Some(Switch::load(frames)),
            frames: None,
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let (Some(switch), Some(frames)) = (self.switch.take(), self.frames)
            && !thread::panicking()
        {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((frames, switch));
        }
    }
}

impl Deref for Shared {
    type Target = Switch;

    fn deref(&self) -> &Switch {
        self.switch.as_ref().expect("it is not being dropped")
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut Switch {
        self.switch.as_mut().expect("it is not being dropped")
    }
}
