//! The library's one error: which object, which step, and the kernel's answer.

use std::io;

/// What went wrong with which tap or namespace.
#[derive(Debug, thiserror::Error)]
#[error("{object}: {step}: {source}")]
pub struct Error {
    object: String,
    step: String,
    source: io::Error,
}

impl Error {
    /// Whether somebody else has the object in use (`EBUSY`).
    pub fn is_busy(&self) -> bool {
        self.source.kind() == io::ErrorKind::ResourceBusy
    }
}

/// A result with the library's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Names the object and the step that a system call's error belongs to.
pub(crate) trait Context<T> {
    fn context(self, object: &str, step: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, object: &str, step: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error {
            object: object.into(),
            step: step.into(),
            source: source.into(),
        })
    }
}
