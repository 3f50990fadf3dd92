//! Exit statuses, as interface.md lists them, and the errors that carry one.

use std::process::ExitCode;

/// Why a command ended without success. The number is the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// It failed.
    Failed = 1,
    /// It was called wrongly.
    Usage = 2,
    /// This node cannot do it.
    Unsupported = 3,
    /// No such target.
    NotFound = 4,
    /// The recording is damaged; what could be read was still reported.
    Damaged = 5,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// An error with the exit status that it should end the program with: attach it with
/// `anyhow::Error::from(...)` or `.context(...)`; [`status_of`] finds it anywhere in the chain.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// The status.
    pub status: Status,
    /// One line: what is wrong and the way out.
    pub message: String,
}

impl ExitError {
    /// An error with this status.
    #[must_use]
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}

/// The exit status of an error: that of the first [`ExitError`] in its chain, else 1.
#[must_use]
pub fn status_of(error: &anyhow::Error) -> Status {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<ExitError>())
        .map_or(Status::Failed, |error| error.status)
}
