//! Bytes: of each role and kind, of guest RAM, of what is held.

use serde_json::Value;

use super::{Check, View, number};
use crate::lab::plan::MIB;
use crate::lab::run::Played;
use crate::lab::truth::Entry;
use crate::units::{Bytes, SignedBytes};

/// Kinds whose pages the actors count themselves.
const PAGE_KINDS: [&str; 4] = ["anon", "file", "shmem", "hugetlb"];
/// A charge batch of the kernel: pages that a CPU may hold in advance. kernel: mm/memcontrol.c MEMCG_CHARGE_BATCH
/// (32 up to 5.15, 64 since).
const BATCH: u64 = 64 * 4096;

/// What is charged ahead of what a real guest's payload has told when QEMU is killed: it tells each MiB once it is through,
/// and the first touch of a huge page charges all of it.
const AHEAD: u64 = MIB + 2 * MIB;

/// Whether two byte counts agree within 2% or 1 MiB, whichever is more.
fn close(expected: u64, got: i64) -> bool {
    i64::try_from(expected).is_ok_and(|expected| expected.abs_diff(got) <= slack(expected.unsigned_abs()))
}

fn slack(expected: u64) -> u64 {
    (expected / 50).max(MIB)
}

/// Per role and kind: what the actors counted page by page.
pub(super) fn page_kinds(played: &Played, view: &View) -> Vec<Check> {
    let exact = played
        .allocated
        .iter()
        .filter(|entry| entry.key.region == "overhead" && PAGE_KINDS.contains(&entry.key.kind.as_str()));
    exact
        .map(|Entry { key, bytes, .. }| {
            let got = view.bytes(&key.role, &[&key.kind]);
            Check::new(
                format!("{}, {}: {}", key.process, key.role, key.kind),
                Bytes(*bytes).to_string(),
                SignedBytes(got).to_string(),
                close(*bytes, got),
            )
        })
        .collect()
}

/// Kernel memory: at least what the actors put there, at most what the kernel counted for the whole container.
pub(super) fn kernel_kinds(played: &Played, view: &View) -> Vec<Check> {
    let kinds = kernel_kind_names();
    let mut checks = Vec::new();
    let mut roles: Vec<&Entry> = Vec::new();
    for entry in &played.allocated {
        let known = roles.iter().any(|other| other.key.role == entry.key.role);
        if kinds.contains(&entry.key.kind.as_str()) && !known {
            roles.push(entry);
        }
    }
    for first in roles {
        let least: u64 = played
            .allocated
            .iter()
            .filter(|entry| entry.key.role == first.key.role && kinds.contains(&entry.key.kind.as_str()))
            .map(|entry| entry.bytes)
            .sum();
        let got = view.bytes(&first.key.role, &kinds);
        let floor = i64::try_from(least - slack(least).min(least)).unwrap_or(i64::MAX);
        checks.push(Check::new(
            format!("{}, {}: kernel memory", first.key.process, first.key.role),
            format!("at least {}", Bytes(least)),
            SignedBytes(got).to_string(),
            got >= floor,
        ));
    }
    if let Some(growth) = played.kernel_growth {
        let got = view.total(&kinds);
        checks.push(Check::new(
            "kernel memory of all roles",
            format!("{} by the memcg", Bytes(growth)),
            SignedBytes(got).to_string(),
            close(growth, got),
        ));
    }
    checks
}

/// What touching guest RAM charged.
fn guest(played: &Played) -> u64 {
    if played.guest_charged {
        played.touched("guest", &PAGE_KINDS)
    } else {
        0
    }
}

/// Guest RAM: all of it found, none of it taken for overhead.
pub(super) fn regions(played: &Played, view: &View) -> Vec<Check> {
    let unknown = number(&view.pod["region_unknown"]).unsigned_abs();
    let guest = guest(played);
    let charged = view.guest_charged();
    let difference = i64::try_from(guest).unwrap_or(i64::MAX).abs_diff(charged);
    let mistaken = view.total(&["anon", "shmem"])
        - i64::try_from(played.touched("overhead", &["anon", "shmem"])).unwrap_or(i64::MAX);
    let percent = played.guest_ram / 100;
    let mut checks = Vec::new();
    if let Some(resident) = played.resident_growth.filter(|_| played.guest_charged) {
        checks.push(Check::new(
            "guest RAM charged, by smaps",
            format!("{} within 1%", Bytes(resident)),
            SignedBytes(charged).to_string(),
            i64::try_from(resident).unwrap_or(i64::MAX).abs_diff(charged) <= percent + unknown,
        ));
    } else {
        let slack = percent.max(if played.real { AHEAD } else { MIB });
        checks.push(Check::new(
            "guest RAM charged",
            format!("{} within {}", Bytes(guest), Bytes(slack)),
            format!("{} ({} unknown)", SignedBytes(charged), Bytes(unknown)),
            difference <= slack + unknown,
        ));
    }
    // Nobody knows what a real QEMU takes for itself; that its guest RAM is complete says as much.
    if !played.real {
        checks.push(Check::new(
            "guest RAM taken for overhead",
            format!("at most {}", Bytes(percent.max(MIB))),
            SignedBytes(mistaken).to_string(),
            mistaken.unsigned_abs() <= percent.max(MIB),
        ));
    }
    checks
}

pub(super) fn unexplained(pod: &Value, cpus: u64) -> Check {
    let got = number(&pod["unexplained"]);
    let allowed = number(&pod["tolerance"]).unsigned_abs() + BATCH * cpus;
    Check::new(
        "unexplained",
        format!("at most {}", Bytes(allowed)),
        SignedBytes(got).to_string(),
        !pod["unexplained"].is_null() && got.unsigned_abs() <= allowed,
    )
}

/// What the pages in the ledger add up to, where they were followed: what memory.stat has more than before, less guest RAM.
pub(super) fn held(played: &Played, pod: &Value, cpus: u64) -> Option<Check> {
    // A real QEMU gives back pages of its own that it had before.
    let growth = played.user_growth.filter(|_| !played.real)?;
    let kinds = pod["live"]["kinds"].as_object()?;
    let guest = guest(played);
    let expected = growth - i64::try_from(guest).unwrap_or(i64::MAX);
    let got: i64 = ["anon", "file", "shmem"]
        .iter()
        .filter_map(|kind| kinds.get(*kind))
        .map(number)
        .sum();
    Some(Check::new(
        "overhead held, by memory.stat",
        SignedBytes(expected).to_string(),
        format!("{} ({} B off)", SignedBytes(got), got - expected),
        got.abs_diff(expected) <= cpus * played.user_growth_off_by,
    ))
}

fn kernel_kind_names() -> Vec<&'static str> {
    tracer_common::Kind::ALL
        .iter()
        .map(|kind| kind.as_str())
        .filter(|kind| !PAGE_KINDS.contains(kind))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_figures_may_differ_by_a_mebibyte_and_large_ones_by_two_percent() {
        assert!(close(0, 1 << 20));
        assert!(!close(0, (1 << 20) + 1));
        assert!(close(200 * MIB, 204 << 20));
        assert!(!close(200 * MIB, 205 << 20));
        assert!(!close(2 * MIB, -(2 << 20)));
    }
}
