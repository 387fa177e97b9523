//! Threads that go on until a test has what it wanted, or has failed.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets what they look at when it is dropped, also by a panic: else the test would wait for them for ever.
pub struct EndOnDrop<'flag>(pub &'flag AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
