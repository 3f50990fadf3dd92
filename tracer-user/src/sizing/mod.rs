//! KubeVirt and Harvester overhead arithmetic: pure functions, no I/O.
//!
//! A [`vm::Vm`] and a [`version::KubeVirt`] release give an [`overhead::Overhead`], term by term and to the byte;
//! [`budget`] turns that into the limits that the kernel enforces. [`harvester`] holds what Harvester changes in a VM
//! before KubeVirt sees it, [`matrix`] its documentation's table, and [`fit`] goes the other way, from a limit to the
//! VMs that explain it. [`spec`] is the VM behind a limit, and [`breakdown`] holds what it took against its budget.

pub mod breakdown;
pub mod budget;
pub mod fit;
pub mod harvester;
pub mod manifest;
pub mod matrix;
pub mod overhead;
pub mod quantity;
pub mod ratio;
pub mod spec;
pub mod text;
pub mod version;
pub mod vm;

/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// One gibibyte.
pub const GIB: u64 = 1 << 30;

/// Why a VM cannot be sized.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A result does not fit.
    #[error("{0} is too large to be a memory size")]
    Overflow(&'static str),
    /// No such release.
    #[error("unknown {product} version '{asked}'; there is {known}")]
    UnknownVersion {
        /// KubeVirt or Harvester.
        product: &'static str,
        /// What was asked for.
        asked: String,
        /// What there is.
        known: String,
    },
    /// The release has no such thing.
    #[error("KubeVirt {version} has no {what}")]
    NotInVersion {
        /// The release.
        version: String,
        /// What it lacks.
        what: &'static str,
    },
    /// What the product's own validation would say.
    #[error("{0}")]
    Rejected(String),
}
