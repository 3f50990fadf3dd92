//! Recordings: what happened, as JSON Lines in Zstandard frames.
//!
//! Every frame stands alone: it holds whole lines, is at most a second long, and carries a checksum. So a tracer that
//! is killed loses at most the last second, `zstd -dc FILE | jq` works, and a damaged frame costs only itself.

pub mod event;
pub mod flight;
mod frames;
mod gather;
#[cfg(test)]
pub(crate) mod made_up;
mod reader;
mod schema;
mod writer;

pub use frames::Damage;
pub use reader::{ReadError, Reader, Skipped, State, Summary};
pub use schema::{schema, written_schema};
pub use writer::{Overwrite, Sink, WriteError, Writer};

/// Longest line, bytes. A footer of hundreds of memcgs stays well below; a longer line is skipped and counted.
const MAX_LINE: usize = 8 << 20;

/// Largest frame, bytes, packed or unpacked: bounds what a hostile recording can make a reader hold.
const MAX_FRAME: usize = 64 << 20;
