//! The live view: who grows now, full screen, from a tracer or a recording.
//!
//! [`Feed`] takes events and keeps the ledger and the last half minute; [`Snapshot`] is what it says at one moment, as
//! data; [`Ui`] is what the user does with it; [`view`] draws the one as the other wants it. None of them does I/O:
//! [`screen`] owns the terminal, [`replay`] reads recordings.

mod feed;
mod history;
pub mod input;
mod items;
pub mod replay;
mod rows;
pub mod screen;
mod session;
mod snapshot;
mod text;
mod tree;
mod ui;
pub mod view;

#[cfg(test)]
mod tests;

pub use feed::Feed;
pub use history::{History, Track};
pub use items::{Item, Key, What};
pub use session::{Session, live, replay};
pub use snapshot::{Detail, Expected, Open, PodRow, Snapshot};
pub use text::Theme;
pub use ui::{Action, Screen, Tab, Ui};
