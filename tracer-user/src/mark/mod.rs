//! Marks: `headroom mark` tells every recorder that runs on this node what happens, and it becomes part of the recording.
//!
//! A recorder listens on a socket of its own in [`FOLDER`], which only root may talk to. One line of JSON goes each way.

mod client;
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use client::{Told, tell};
pub use server::{Asked, Marks};

/// Where recorders listen.
pub const FOLDER: &str = "/run/headroom";
/// Longest line, bytes.
const MAX_LINE: usize = 16 << 10;
/// Longest text of a mark, characters.
pub const MAX_TEXT: usize = 256;
/// How the name of a socket ends; a process id stands before it.
const SOCKET: &str = ".sock";

/// What is to be marked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What happens.
    pub text: String,
    /// cgroup ids of the pod that it happens to; empty where it concerns them all.
    #[serde(default)]
    pub memcgs: Vec<u64>,
}

/// What a recorder did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is in the recording.
    Marked,
    /// The pod is none of those that it watches.
    NotWatched,
    /// It could not, and is about to end.
    Failed,
}

/// The folder with the sockets, or a stand-in for tests.
#[must_use]
pub fn folder() -> PathBuf {
    std::env::var_os("HEADROOM_RUN").map_or_else(|| PathBuf::from(FOLDER), PathBuf::from)
}
