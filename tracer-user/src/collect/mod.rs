//! The live data way: kernel records and node facts in, events out.
//!
//! [`Collector`] owns the tracer and the node, and hands every event to a sink. It does no accounting of its own
//! beyond turning cumulative totals into deltas: that is the ledger's.

mod accounts;
mod collector;
mod departures;
mod files;
mod kills;
mod latest;
mod live;
mod losses;
mod names;
mod run;
mod sink;
mod stacks;
mod targets;

pub use accounts::Accounts;
pub use collector::{CollectError, Collector};
pub use run::run;
pub use sink::{Chain, EventSink};
pub use targets::{KillFiles, Scope};
