//! Scenarios of `headroom lab`, and what their documents say.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// All scenarios that stand-ins play.
pub const SCENARIOS: [&str; 7] = [
    "memhold",
    "daemon-leak",
    "backup-io",
    "kernel-memory",
    "vcpu-overhead",
    "worker-storm",
    "guest-only",
];

/// What `headroom lab --json` printed.
#[derive(Debug)]
pub struct Scenario {
    name: String,
    document: Value,
}

impl Scenario {
    /// Reads the document. `said` is what went to standard error.
    ///
    /// # Errors
    /// When there is none: the scenario could not be played or traced.
    pub fn read(name: &str, stdout: &str, said: &str) -> Result<Self> {
        let document: Value =
            serde_json::from_str(stdout).with_context(|| format!("lab {name} printed no document: {said}"))?;
        Ok(Self {
            name: name.to_owned(),
            document,
        })
    }

    /// The report on the scenario's only pod.
    ///
    /// # Errors
    /// When there is another number of pods.
    pub fn pod(&self) -> Result<&Value> {
        match self.document["report"]["pods"].as_array().map(Vec::as_slice) {
            Some([pod]) => Ok(pod),
            other => bail!(
                "lab {}: one pod expected, not {}",
                self.name,
                other.map_or(0, <[_]>::len)
            ),
        }
    }

    /// The whole report.
    #[must_use]
    pub fn report(&self) -> &Value {
        &self.document["report"]
    }

    /// Whether there is a comparison of this name.
    #[must_use]
    pub fn compares(&self, name: &str) -> bool {
        let mut checks = self.document["checks"].as_array().into_iter().flatten();
        checks.any(|check| check["name"] == name)
    }

    /// Whether the kernel killed anybody.
    #[must_use]
    pub fn was_killed(&self) -> bool {
        self.document["truth"]["killed"]
            .as_array()
            .is_some_and(|killed| !killed.is_empty())
    }

    /// Fails, with a table of what differs, unless the report agrees with the truth.
    ///
    /// # Errors
    /// When a check failed, or when nothing was checked.
    pub fn expect_truth(&self) -> Result<()> {
        let checks = self.document["checks"].as_array().map_or(&[][..], Vec::as_slice);
        // Without a report only the kill is compared, which says nothing about the tracer.
        if checks.len() < 2 {
            bail!("lab {} compared nothing: {checks:?}", self.name);
        }
        let differ: Vec<&Value> = checks.iter().filter(|check| check["ok"] != true).collect();
        if !differ.is_empty() || self.document["ok"] != true {
            bail!("lab {}: {}", self.name, self.differences(&differ));
        }
        Ok(())
    }

    /// The checks that failed, and what the reader of them asks next.
    fn differences(&self, checks: &[&Value]) -> String {
        let mut text = "the report differs from the truth".to_owned();
        let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        for check in checks {
            let _ = write!(
                text,
                "\n  {}: expected {}, got {}",
                word(&check["name"]),
                word(&check["expected"]),
                word(&check["got"])
            );
        }
        let pod = &self.document["report"]["pods"][0];
        for (what, value) in [
            ("roles", &pod["by_role"]),
            ("usage", &pod["usage"]),
            ("kinds", &pod["kinds"]),
            ("loss", &self.document["report"]["loss"]),
            ("truth", &self.document["truth"]["allocated"]),
        ] {
            let _ = write!(text, "\n  {what}: {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(checks: &str, ok: bool) -> Scenario {
        Scenario::read("s", &format!(r#"{{"checks": {checks}, "ok": {ok}}}"#), "").unwrap()
    }

    #[test]
    fn a_check_that_failed_is_shown() {
        let checks = r#"[{"name": "culprit", "expected": "qemu", "got": "nobody", "ok": false}, {"ok": true}]"#;
        let error = scenario(checks, false).expect_truth().unwrap_err().to_string();
        assert!(error.contains("culprit: expected qemu, got nobody"), "{error}");
    }

    #[test]
    fn nothing_compared_is_no_success() {
        assert!(scenario("[]", true).expect_truth().is_err());
        assert!(scenario(r#"[{"ok": true}]"#, true).expect_truth().is_err());
        assert!(scenario(r#"[{"ok": true}, {"ok": true}]"#, true).expect_truth().is_ok());
    }
}
