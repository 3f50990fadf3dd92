//! What tracing costs: instructions counted in emulated machines, times on this host, and docs/performance.md of them.

pub mod figure;
pub mod guest;
pub mod host;
pub mod table;

pub use figure::{Figure, Figures};
