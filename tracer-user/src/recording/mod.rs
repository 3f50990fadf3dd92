//! Recordings: what happened, as JSON Lines in Zstandard frames.

pub mod event;
