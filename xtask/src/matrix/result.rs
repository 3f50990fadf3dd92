//! What one cell's runs came to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::paths;
use crate::process::capture;
use crate::vm::VmRun;
use crate::vm::suite::Cell;

/// What an outcome is named after where a VM did not come to its end.
pub const VM: &str = "the VM";

/// The result of all runs on a cell, kept so that a later run of other cells does not lose it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// Kernel line.
    pub kernel: String,
    /// `v1` or `v2`.
    pub cgroup: String,
    /// What counted.
    pub backend: String,
    /// The exact kernel.
    pub release: String,
    /// By group of runs (`workloads`, `lab`, `real`): each run and what it came to.
    pub groups: BTreeMap<String, Vec<Outcome>>,
}

/// What a workload or scenario came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// All that was compared agreed.
    pub ok: bool,
    /// Why this kernel cannot play it.
    pub not_here: Option<String>,
    /// How many figures were compared.
    pub checks: usize,
    /// What differed: name, expected, got.
    pub differ: Vec<[String; 3]>,
    /// Most bytes of anon, file or shmem by which records and memory.stat differed at a standstill.
    pub pages_off: Option<u64>,
    /// The same for all kernel memory.
    pub kernel_off: Option<u64>,
    /// How often the kernel left a program out that should have run, as the recording tells.
    #[serde(default)]
    pub missed_runs: u64,
    /// The commit that was run, `+` where something was changed since.
    #[serde(default)]
    pub commit: String,
}

impl CellResult {
    /// Nothing yet.
    #[must_use]
    pub fn new(cell: &Cell) -> Self {
        Self {
            kernel: cell.kernel.clone(),
            cgroup: cell.cgroup.to_string(),
            backend: cell.backend.clone(),
            ..Self::default()
        }
    }

    /// Takes in what a VM ran of a commit, or why it did not come to its end. What else was kept of the group stays.
    pub fn take(&mut self, group: &str, names: &[String], commit: &str, run: Result<VmRun>) {
        let mut outcomes: Vec<Outcome> = match run {
            Ok(run) => {
                self.release.clone_from(&run.release);
                let outcomes = names.iter().zip(&run.commands);
                outcomes
                    .map(|(name, command)| Outcome::of(name, &command.stdout, &command.stderr()))
                    .collect()
            }
            // Where its files are is no matter of a document's.
            Err(error) => vec![Outcome::failed(VM, &error.root_cause().to_string())],
        };
        for outcome in &mut outcomes {
            commit.clone_into(&mut outcome.commit);
        }
        let kept = self.groups.entry(group.to_owned()).or_default();
        kept.retain(|outcome| outcome.name != VM && !names.contains(&outcome.name));
        kept.extend(outcomes);
    }

    /// Whether a run of a group came to its end and all that was compared agreed.
    #[must_use]
    pub fn agreed(&self, group: &str, name: &str) -> bool {
        let mut outcomes = self.groups.get(group).into_iter().flatten();
        outcomes.any(|outcome| outcome.name == name && outcome.ok)
    }

    /// Keeps it, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self) -> Result<()> {
        let folder = folder();
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}-{}-{}.json", self.kernel, self.cgroup, self.backend));
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(self)? + "\n")
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// What has been kept of a cell.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn load(cell: &Cell) -> Result<Option<Self>> {
        let new = Self::new(cell);
        let path = folder().join(format!("{}-{}-{}.json", new.kernel, new.cgroup, new.backend));
        if !path.exists() {
            return Ok(None);
        }
        read(&path).map(Some)
    }
}

/// In the repository, since a run of all takes longer than most machines are at hand.
fn folder() -> PathBuf {
    paths::workspace().join("docs/kernels")
}

/// The commit that is checked out, with a `+` where the tracer differs from it.
///
/// # Errors
/// When git does not tell.
pub fn commit() -> Result<String> {
    let git = |arguments: &[&str]| capture(Command::new("git").current_dir(paths::workspace()).args(arguments));
    let commit = git(&["rev-parse", "--short=7", "HEAD"])?;
    let changes = git(&["status", "--porcelain", "tracer-common", "tracer-ebpf", "tracer-user"])?;
    let changed = if changes.trim().is_empty() { "" } else { "+" };
    Ok(format!("{}{changed}", commit.trim()))
}

fn read(path: &Path) -> Result<CellResult> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no result", path.display()))
}

impl Outcome {
    /// Reads the document that a run printed.
    #[must_use]
    pub fn of(name: &str, stdout: &[u8], said: &str) -> Self {
        let Ok(document) = serde_json::from_slice::<Value>(stdout) else {
            return Self::failed(name, said.lines().last().unwrap_or("it said nothing"));
        };
        let checks = document["checks"].as_array().map_or(&[][..], Vec::as_slice);
        let differ = checks.iter().filter(|check| check["ok"] != true);
        let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let mut outcome = Self {
            name: name.to_owned(),
            not_here: document["not_here"].as_str().map(str::to_owned),
            checks: checks.len(),
            differ: differ
                .map(|check| [word(&check["name"]), word(&check["expected"]), word(&check["got"])])
                .collect(),
            pages_off: off(&document, |phase| {
                let kinds = ["anon", "file", "shmem"].into_iter();
                kinds.map(|kind| difference(phase, kind)).max()
            }),
            kernel_off: off(&document, kernel_off),
            missed_runs: document["missed_runs"].as_u64().unwrap_or(0),
            commit: String::new(),
            ok: false,
        };
        let compared = !checks.is_empty() && outcome.differ.is_empty() && document["ok"] == true;
        outcome.ok = compared || outcome.not_here.is_some();
        outcome
    }

    /// Something that did not come to its end.
    #[must_use]
    pub fn failed(name: &str, why: &str) -> Self {
        Self {
            name: name.to_owned(),
            differ: vec![["came to its end".to_owned(), "yes".to_owned(), why.to_owned()]],
            ..Self::default()
        }
    }
}

/// The most that some figure is off at a standstill where nothing is in the swap cache.
fn off(document: &Value, of: impl Fn(&Value) -> Option<u64>) -> Option<u64> {
    let phases = document["phases"].as_array()?;
    let quiet = phases.iter().filter(|phase| {
        let swapping = phase["kernel"]["swap_cache"].as_u64().unwrap_or(0) > 0;
        phase["kernel"]["usage"].is_u64() && !swapping
    });
    quiet.filter_map(of).max()
}

fn difference(phase: &Value, kind: &str) -> u64 {
    let recorded = phase["recorded"][kind].as_i64().unwrap_or(0);
    let kernel = phase["kernel"][kind].as_i64().unwrap_or(0);
    recorded.abs_diff(kernel)
}

/// Kinds of memory that are no kernel memory.
const OTHERS: [&str; 5] = ["anon", "file", "shmem", "sock", "hugetlb"];

fn kernel_off(phase: &Value) -> Option<u64> {
    let kernel = phase["kernel"]["kernel"].as_i64()?;
    let recorded = phase["recorded"].as_object()?.iter();
    let own = recorded.filter(|(kind, _)| !OTHERS.contains(&kind.as_str()));
    let recorded: i64 = own.filter_map(|(_, bytes)| bytes.as_i64()).sum();
    Some(recorded.abs_diff(kernel))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    const DOCUMENT: &str = r#"{"checks": [{"name": "a", "expected": "1", "got": "1", "ok": true}], "ok": true,
        "missed_runs": 3,
        "phases": [
            {"recorded": {"anon": 8192, "slab": 100, "kmem": 4096}, "kernel": {"anon": 4096, "kernel": 8192, "usage": 1}},
            {"recorded": {"anon": 8192}, "kernel": {"anon": 0, "swap_cache": 8192, "usage": 1}}]}"#;

    #[test]
    fn differences_are_taken_where_nothing_swaps() {
        let outcome = Outcome::of("w", DOCUMENT.as_bytes(), "");
        assert!(outcome.ok, "{outcome:?}");
        assert_eq!((outcome.pages_off, outcome.kernel_off), (Some(4096), Some(3996)));
        assert_eq!(outcome.missed_runs, 3);
    }

    #[test]
    fn only_what_agreed_need_not_run_again() {
        let named = |name: &str, document: &str| Outcome::of(name, document.as_bytes(), "");
        let mut cell = CellResult::default();
        let runs = vec![named("a", DOCUMENT), named("b", "nothing"), named("c", DOCUMENT)];
        cell.groups.insert("lab".to_owned(), runs);
        let agreed = |cell: &CellResult| ["a", "b", "c"].map(|name| cell.agreed("lab", name));
        assert_eq!(agreed(&cell), [true, false, true]);
        assert!(!cell.agreed("real", "a"));
        cell.take(
            "lab",
            &["a".to_owned(), "b".to_owned()],
            "abc1234",
            Err(anyhow!("no verdict")),
        );
        assert_eq!(agreed(&cell), [false, false, true]);
        assert!(
            cell.groups["lab"]
                .iter()
                .any(|outcome| outcome.name == VM && !outcome.ok && outcome.commit == "abc1234")
        );
    }

    #[test]
    fn what_differs_or_says_nothing_has_failed() {
        let differs = DOCUMENT.replace(r#""got": "1", "ok": true"#, r#""got": "2", "ok": false"#);
        let outcome = Outcome::of("w", differs.as_bytes(), "");
        assert!(!outcome.ok && outcome.differ == [["a".to_owned(), "1".to_owned(), "2".to_owned()]]);
        assert!(!Outcome::of("w", br#"{"checks": [], "ok": true}"#, "").ok);
        let silent = Outcome::of("w", b"", "error: no probe\n");
        assert!(!silent.ok && silent.differ[0][2] == "error: no probe");
        assert!(Outcome::of("w", br#"{"checks": [], "ok": true, "not_here": "v1"}"#, "").ok);
    }
}
