//! The tracer's report against the truth.

mod blame;
mod memory;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::Value;

use super::run::Played;
use crate::role::Role;
use crate::units::{Bytes, SignedBytes};

pub use blame::killed;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is compared.
    pub name: String,
    /// What the truth is, in words.
    pub expected: String,
    /// What the report says.
    pub got: String,
    /// They agree.
    pub ok: bool,
}

impl Check {
    fn new(name: impl Into<String>, expected: impl Into<String>, got: impl Into<String>, ok: bool) -> Self {
        Self {
            name: name.into(),
            expected: expected.into(),
            got: got.into(),
            ok,
        }
    }
}

/// Compares a report (the JSON of `headroom report`) with what was played on `cpus` CPUs.
#[must_use]
pub fn compare(played: &Played, report: &Value, cpus: u64) -> Vec<Check> {
    let pods = report["pods"].as_array().map_or(&[][..], Vec::as_slice);
    let mut checks = vec![Check::new(
        "pods in the report",
        "1",
        pods.len().to_string(),
        pods.len() == 1,
    )];
    let Some(pod) = pods.first() else { return checks };
    let view = View { pod };
    // Of guest RAM in huge pages of hugetlbfs the memcg knows nothing, and the report counts only what it knows.
    let charged = if played.guest_charged { played.guest_ram } else { 0 };
    checks.push(Check::new(
        "guest RAM size",
        Bytes(charged).to_string(),
        SignedBytes(number(&pod["guest_ram"])).to_string(),
        pod["guest_ram"].as_u64() == Some(charged),
    ));
    checks.extend(blame::culprit(played, pod));
    checks.extend(blame::kill(played, pod));
    checks.extend(memory::page_kinds(played, &view));
    checks.extend(memory::kernel_kinds(played, &view));
    checks.extend(memory::regions(played, &view));
    checks.extend(memory::held(played, pod, cpus));
    checks.push(memory::unexplained(pod, cpus));
    checks
}

/// The parts of a pod's report that several checks look at.
struct View<'a> {
    pod: &'a Value,
}

impl View<'_> {
    fn roles(&self) -> impl Iterator<Item = &Value> {
        self.pod["by_role"].as_array().into_iter().flatten()
    }

    /// Overhead of a kind that the report puts down to a role.
    fn bytes(&self, role: &Role, kinds: &[&str]) -> i64 {
        let role = role.to_string();
        self.roles()
            .filter(|entry| entry["role"].as_str() == Some(&role))
            .map(|entry| of_kinds(entry, kinds))
            .sum()
    }

    fn total(&self, kinds: &[&str]) -> i64 {
        self.roles().map(|entry| of_kinds(entry, kinds)).sum()
    }

    /// Growth of guest RAM as charged, with what the tracer had to look up in smaps.
    fn guest_charged(&self) -> i64 {
        number(&self.pod["guest_growth"])
    }
}

fn of_kinds(entry: &Value, kinds: &[&str]) -> i64 {
    kinds.iter().map(|kind| number(&entry["kinds"][kind])).sum()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}
