//! What a run of a workload found.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// The findings of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Document {
    /// Name of the workload.
    pub workload: String,
    /// `uname -r`.
    pub kernel: String,
    /// `v1` or `v2`.
    pub cgroup: String,
    /// What counted the charges.
    pub backend: String,
    /// Why this kernel cannot play it: a feature that it does not have.
    pub not_here: Option<String>,
    /// The standstills, in order.
    pub phases: Vec<Phase>,
    /// What was compared.
    pub checks: Vec<Check>,
    /// How often the kernel left a program out that should have run.
    #[serde(default)]
    pub missed_runs: u64,
    /// All checks held.
    pub ok: bool,
}

/// A standstill.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Charged less given back by the records, bytes by kind.
    pub recorded: BTreeMap<String, i64>,
    /// The kernel's own figures, bytes by kind.
    pub kernel: BTreeMap<String, u64>,
    /// What the workload says it holds, bytes by kind.
    pub truth: BTreeMap<String, u64>,
}

/// Something that was compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub got: String,
    /// Whether that will do.
    pub ok: bool,
}

impl Check {
    /// Compares bytes.
    #[must_use]
    pub fn bytes(name: String, expected: i64, got: i64, tolerance: i64) -> Self {
        let within = if tolerance == 0 {
            String::new()
        } else {
            format!(" within {tolerance}")
        };
        Self {
            name,
            expected: format!("{expected}{within}"),
            got: format!("{got} ({:+})", got - expected),
            ok: (got - expected).abs() <= tolerance,
        }
    }

    /// Compares with what somebody says to hold, who holds up to `spare` bytes more; both may be off by `tolerance`.
    #[must_use]
    pub fn told(name: String, told: i64, spare: i64, got: i64, tolerance: i64) -> Self {
        let least = told - tolerance;
        let most = told + spare + tolerance;
        Self {
            expected: if tolerance == 0 {
                format!("{told} and up to {spare} of its own")
            } else {
                format!("{told} and up to {spare} of its own, within {tolerance}")
            },
            got: format!("{got} ({:+})", got - told),
            ok: (least..=most).contains(&got),
            name,
        }
    }

    /// Compares to a least.
    #[must_use]
    pub fn at_least(name: String, least: u64, got: u64) -> Self {
        Self {
            name,
            expected: format!("at least {least}"),
            got: got.to_string(),
            ok: got >= least,
        }
    }
}

impl Document {
    /// The findings of a run that did not come to its end.
    #[must_use]
    pub fn failed(workload: &str, backend: &str, why: &str) -> Self {
        Self {
            workload: workload.to_owned(),
            backend: backend.to_owned(),
            phases: vec![Phase::default()],
            checks: vec![Check {
                name: "came to its end".to_owned(),
                expected: "yes".to_owned(),
                got: why.to_owned(),
                ok: false,
            }],
            ..Self::default()
        }
    }

    /// Reads what the program `workload` printed.
    ///
    /// # Errors
    /// When that is no document.
    pub fn read(stdout: &[u8], said: &str) -> Result<Self> {
        serde_json::from_slice(stdout).with_context(|| format!("no document: {said}"))
    }

    /// Fails, with what differs, unless all that was compared holds.
    ///
    /// # Errors
    /// When a check failed, or nothing was compared.
    pub fn expect_conserved(&self) -> Result<()> {
        if self.not_here.is_some() {
            return Ok(());
        }
        let name = format!(
            "{} on {} {} by {}",
            self.workload, self.kernel, self.cgroup, self.backend
        );
        if self.phases.is_empty() || self.checks.is_empty() {
            bail!("{name}: nothing was compared");
        }
        let failed: Vec<String> = self
            .checks
            .iter()
            .filter(|check| !check.ok)
            .map(|check| format!("\n  {}: expected {}, got {}", check.name, check.expected, check.got))
            .collect();
        if !failed.is_empty() || !self.ok {
            bail!("{name}, {} runs missed:{}", self.missed_runs, failed.concat());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(checks: Vec<Check>) -> Document {
        Document {
            ok: checks.iter().all(|check| check.ok),
            phases: vec![Phase::default()],
            checks,
            ..Document::default()
        }
    }

    #[test]
    fn a_page_too_many_is_told() {
        let off = document(vec![Check::bytes("held: anon".to_owned(), 8192, 12288, 0)]);
        let error = off.expect_conserved().unwrap_err().to_string();
        assert!(
            error.contains("held: anon: expected 8192, got 12288 (+4096)"),
            "{error}"
        );
        let within = document(vec![Check::bytes("held: sock".to_owned(), 8192, 4096, 4096)]);
        within.expect_conserved().unwrap();
    }

    #[test]
    fn nothing_compared_is_no_success() {
        assert!(document(Vec::new()).expect_conserved().is_err());
    }
}
