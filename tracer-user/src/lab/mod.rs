//! Scenarios that reproduce the kill, with known ground truth.
//!
//! A [scenario] is a [plan]: a pod's processes, what each of their threads allocates in which phase, the limit, and
//! what a tracer should conclude. The [stage] makes the memcg [tree] of such a pod, starts the [actors](actor) in it
//! and leads them through the phases; what they say they allocated is the [truth]. Meanwhile [trace] runs
//! `headroom record` from outside, and [compare] holds its report against the truth.

pub mod actor;
pub mod cast;
pub mod cleanup;
pub mod compare;
mod figures;
pub mod foreseen;
pub mod output;
pub mod plan;
pub mod real;
mod run;
pub mod scenario;
pub mod spawn;
pub mod stage;
pub mod trace;
pub mod tree;
pub mod truth;
mod waiting;

pub use run::{Options, Played, Run, Say, conclude, run};
