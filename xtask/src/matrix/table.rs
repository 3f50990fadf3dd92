//! docs/kernels.md: what the runs on all cells came to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use super::result::{CellResult, Outcome};
use crate::paths;

const BEGIN: &str = "<!-- matrix: written by `cargo xtask matrix` -->\n";
const END: &str = "<!-- matrix: end -->\n";

/// Differences shown of a cell; more are counted.
const SHOWN: usize = 12;

/// Writes the tables into docs/kernels.md.
///
/// # Errors
/// When the document has no place for them.
pub fn write(cells: &[CellResult]) -> Result<()> {
    let path = paths::workspace().join("docs/kernels.md");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (head, rest) = text
        .split_once(BEGIN)
        .context("docs/kernels.md has no place for the tables")?;
    let (_, tail) = rest
        .split_once(END)
        .context("the tables of docs/kernels.md have no end")?;
    fs::write(&path, format!("{head}{BEGIN}{}{END}{tail}", render(cells)))?;
    eprintln!("matrix: written to {}", path.display());
    Ok(())
}

fn render(cells: &[CellResult]) -> String {
    let mut text = String::from(
        "| kernel | cgroup | backend | workloads | anon, file, shmem off by at most | kernel memory off by at most \
         | runs missed | lab, stand-ins | lab, real QEMU on KVM | cycles | commits |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for cell in cells {
        let group = |name: &str| cell.groups.get(name).map_or(&[][..], Vec::as_slice);
        let missed: u64 = group("workloads").iter().map(|outcome| outcome.missed_runs).sum();
        let most = |of: fn(&Outcome) -> Option<u64>| group("workloads").iter().filter_map(of).max();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {missed} | {} | {} | {} | {} |",
            if cell.release.is_empty() {
                &cell.kernel
            } else {
                &cell.release
            },
            cell.cgroup,
            cell.backend,
            held(group("workloads")),
            bytes(most(|outcome| outcome.pages_off)),
            bytes(most(|outcome| outcome.kernel_off)),
            held(group("lab")),
            held(group("real")),
            held(group("cycles")),
            commits(cell),
        );
    }
    absent(&mut text, cells);
    differences(&mut text, cells);
    text
}

fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "–".to_owned(), |bytes| format!("{bytes} B"))
}

/// What was run, the same commit once.
fn commits(cell: &CellResult) -> String {
    let outcomes = cell.groups.values().flatten();
    let commits: BTreeSet<&str> = outcomes.map(|outcome| outcome.commit.as_str()).collect();
    commits.into_iter().collect::<Vec<_>>().join(", ")
}

/// How many of the runs agreed.
fn held(outcomes: &[Outcome]) -> String {
    if outcomes.is_empty() {
        return "not run".to_owned();
    }
    let played: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.not_here.is_none()).collect();
    let ok = played.iter().filter(|outcome| outcome.ok).count();
    let failed = if ok < played.len() { "**failed**: " } else { "" };
    format!("{failed}{ok} of {}", played.len())
}

/// What kernels lack.
fn absent(text: &mut String, cells: &[CellResult]) {
    let mut reasons: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for cell in cells {
        for outcome in cell.groups.values().flatten() {
            if let Some(reason) = &outcome.not_here {
                let kernels = reasons.entry((&outcome.name, reason)).or_default();
                let kernel = format!("{} {}", cell.kernel, cell.cgroup);
                if !kernels.contains(&kernel) {
                    kernels.push(kernel);
                }
            }
        }
    }
    if reasons.is_empty() {
        return;
    }
    text.push_str("\nNot played, since the kernel lacks what they are about:\n\n");
    for ((name, reason), kernels) in reasons {
        let _ = writeln!(text, "- `{name}` on {}: {reason}", kernels.join(", "));
    }
}

/// What differed, cell by cell.
fn differences(text: &mut String, cells: &[CellResult]) {
    for cell in cells {
        let outcomes = cell.groups.values().flatten().filter(|outcome| !outcome.ok);
        let lines: Vec<String> = outcomes
            .flat_map(|outcome| {
                outcome.differ.iter().map(|[name, expected, got]| {
                    let got = got.lines().next().unwrap_or("");
                    format!("- `{}`, {name}: expected {expected}, got {got}\n", outcome.name)
                })
            })
            .collect();
        if lines.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\nDiffered on {} {} by {}:\n\n{}",
            cell.release,
            cell.cgroup,
            cell.backend,
            lines[..lines.len().min(SHOWN)].concat()
        );
        if lines.len() > SHOWN {
            let _ = writeln!(text, "- and {} more", lines.len() - SHOWN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, ok: bool) -> Outcome {
        Outcome {
            name: name.to_owned(),
            ok,
            checks: 1,
            pages_off: Some(0),
            kernel_off: Some(4096),
            missed_runs: 2,
            commit: "abc1234".to_owned(),
            differ: if ok {
                Vec::new()
            } else {
                vec![["culprit".to_owned(), "memhold".to_owned(), "nobody".to_owned()]]
            },
            ..Outcome::default()
        }
    }

    #[test]
    fn a_failed_cell_is_shown_as_failed() {
        let absent = Outcome {
            not_here: Some("v1 has no memory.high".to_owned()),
            ..outcome("high", true)
        };
        let cell = CellResult {
            kernel: "6.1".to_owned(),
            release: "6.1.192".to_owned(),
            cgroup: "v1".to_owned(),
            backend: "kprobe".to_owned(),
            groups: BTreeMap::from([
                ("workloads".to_owned(), vec![outcome("anon", true), absent]),
                (
                    "lab".to_owned(),
                    vec![outcome("memhold", false), outcome("backup-io", true)],
                ),
            ]),
        };
        let text = render(&[cell]);
        for part in [
            "| 6.1.192 | v1 | kprobe | 1 of 1 | 0 B | 4096 B | 4 | **failed**: 1 of 2 | not run | not run | abc1234 |",
            "- `high` on 6.1 v1: v1 has no memory.high",
            "- `memhold`, culprit: expected memhold, got nobody",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
