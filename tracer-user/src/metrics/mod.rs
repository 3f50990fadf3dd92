//! What a running tracer says to a Prometheus: figures of every pod, how far it may be trusted, and what it takes itself.
//!
//! [`Meter`] takes events in the tracer's thread and adds them up. [`Server`] answers in a thread of its own. Figures are
//! only worked out when somebody asks: the server asks through the [`Exchange`], the meter answers at its next tick.

mod encode;
mod exchange;
mod figures;
mod label;
mod meter;
mod serve;
mod stalls;

pub use encode::{CONTENT_TYPE, text};
pub use exchange::Exchange;
pub use figures::{Figures, PodFigures};
pub use meter::Meter;
pub use serve::Server;
