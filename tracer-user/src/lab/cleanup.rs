//! Ending in order: signals become a flag that the lab looks at, so that everything it made is dropped, hence removed.

use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The signal that arrived, or 0.
static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: i32) {
    CAUGHT.store(signal, Ordering::Relaxed);
}

/// From here on SIGINT, SIGTERM and SIGHUP are noted instead of ending the process.
///
/// # Errors
/// What sigaction says.
pub fn catch_signals() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Somebody stopped the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by {}", .0.as_str())]
pub struct Stopped(pub Signal);

/// Fails once a signal was noted.
///
/// # Errors
/// The signal.
pub fn check() -> Result<(), Stopped> {
    match Signal::try_from(CAUGHT.load(Ordering::Relaxed)) {
        Ok(signal) => Err(Stopped(signal)),
        Err(_) => Ok(()),
    }
}
