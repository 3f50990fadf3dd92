//! Incidents: what is worth keeping of a kill, in a folder of its own.
//!
//! [`Watcher`] listens to events and says when an incident is ripe; [`Clerk`] writes it, in a thread of its own, so that
//! tracing goes on meanwhile; [`Store`] sees to it that a folder is whole or not there, and that folders do not fill the
//! disk.

mod clerk;
mod contents;
mod name;
mod store;
mod watcher;

pub use clerk::Clerk;
pub use contents::Incident;
pub use store::{Draft, Store, StoreError};
pub use watcher::{Ripe, Trigger, Watcher};
