//! Code paths that overhead was charged from.

use serde::Serialize;

use crate::ledger::{Ledger, PathCharge};
use crate::recording::event::Frame;
use crate::role::Role;

/// Code paths told in a report; exports hold all of them.
const MAX_PATHS: usize = 500;

/// Overhead charged, by code path. What was given back since is not taken off.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CodePaths {
    /// Bytes charged in all.
    pub charged: u64,
    /// The largest first.
    pub paths: Vec<CodePath>,
    /// Bytes charged from paths that are too many to be told.
    pub others: u64,
}

/// Overhead that a role was charged from one stack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CodePath {
    /// Its role.
    pub role: Role,
    /// Name of its process.
    pub process: String,
    /// Bytes charged.
    pub charged: u64,
    /// Functions in the process, innermost first; where one has no name, its file, offset and build id. Not escaped.
    pub user: Vec<String>,
    /// Functions in the kernel, innermost first.
    pub kernel: Vec<String>,
}

impl CodePath {
    /// The function of the process that the kernel was called from; where there is none, the kernel's own outermost.
    #[must_use]
    pub fn function(&self) -> Option<&str> {
        self.user.first().or_else(|| self.kernel.last()).map(String::as_str)
    }
}

impl CodePaths {
    /// Those of a pod; `None` where no stack was sampled.
    pub(super) fn new(ledger: &Ledger, pod: u32) -> Option<Self> {
        let charges = ledger.paths().of_pod(pod);
        let sum = |charges: &[PathCharge<'_>]| {
            charges
                .iter()
                .fold(0, |sum: u64, charge| sum.saturating_add(charge.bytes))
        };
        let (told, others) = charges.split_at(charges.len().min(MAX_PATHS));
        let labels = |frames: &[&Frame]| frames.iter().map(|frame| frame.label()).collect();
        (!charges.is_empty()).then(|| Self {
            charged: sum(&charges),
            paths: told
                .iter()
                .map(|charge| CodePath {
                    role: charge.entity.role.clone(),
                    process: charge.entity.process.clone(),
                    charged: charge.bytes,
                    user: labels(&charge.path.user),
                    kernel: labels(&charge.path.kernel),
                })
                .collect(),
            others: sum(others),
        })
    }
}
