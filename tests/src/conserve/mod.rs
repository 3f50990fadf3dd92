//! Conservation: what all threads were charged less what was given back is what the kernel says is there, to the page.
//!
//! The program `workload` of this crate plays a workload in a memcg of its own under `headroom record`, compares at
//! each standstill, and prints a [`Document`].

pub mod apart;
pub mod document;
pub mod figures;
pub mod settle;

pub use document::{Check, Document, Phase};
pub use figures::{Figures, Sums};

pub use xtask::vm::suite::WORKLOADS;
