//! What is said of recordings that are not whole.

use std::path::PathBuf;

use super::exit::{ExitError, Status};
use crate::recording::State;

/// Says on stderr which recordings were not whole, given the state of each.
///
/// # Errors
/// When one is damaged: status 5, after what could be read was `used`.
pub fn complain(files: &[PathBuf], states: &[State], used: &str) -> anyhow::Result<()> {
    let mut damaged = Vec::new();
    for (path, state) in files.iter().zip(states) {
        match state {
            State::Complete => {}
            State::Incomplete => anstream::eprintln!("headroom: {} is incomplete: it has no footer", path.display()),
            State::Damaged => damaged.push(path.display().to_string()),
        }
    }
    if damaged.is_empty() {
        return Ok(());
    }
    let message = format!("damaged, what could be read was {used}: {}", damaged.join(", "));
    Err(ExitError::new(Status::Damaged, message).into())
}
