//! headroom: which thread is eating a VM pod's memory headroom, before the kernel kills the VM.
//!
//! The data's way is one direction: [`probe`] (kernel records) and [`node`] (what runs here) meet in [`collect`],
//! which turns them into the [events](recording::event) that the [`ledger`] adds up and the [`recording`] keeps. A
//! recording read back gives the same events to the same ledger. [`report`] renders what the ledger found, [`export`] hands
//! it to other tools.

pub mod advice;
pub mod cli;
pub mod collect;
pub mod escape;
pub mod export;
pub mod incident;
pub mod lab;
pub mod ledger;
pub mod lookout;
pub mod mark;
pub mod metrics;
pub mod node;
pub mod oomlog;
pub mod probe;
pub mod recording;
pub mod report;
pub mod role;
pub mod schedule;
pub mod sizing;
pub mod status;
pub mod symbols;
pub mod top;
pub mod units;
