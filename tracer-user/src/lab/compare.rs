//! The tracer's report against the truth.

use serde::Serialize;
use serde_json::Value;

use super::plan::MIB;
use super::run::Played;
use super::truth::Entry;
use crate::role::Role;
use crate::units::{Bytes, SignedBytes};

/// Kinds whose pages the actors count themselves.
const PAGE_KINDS: [&str; 4] = ["anon", "file", "shmem", "hugetlb"];
/// A charge batch of the kernel: pages that a CPU may hold in advance. kernel: mm/memcontrol.c MEMCG_CHARGE_BATCH
/// (32 up to 5.15, 64 since).
const BATCH: u64 = 64 * 4096;

/// What is charged ahead of what a real guest's payload has told when QEMU is killed: it tells each MiB once it is through,
/// and the first touch of a huge page charges all of it.
const AHEAD: u64 = MIB + 2 * MIB;

/// What a real QEMU's heap may grow by while its guest writes. Measured: up to 6.7 MiB (5.10, page cache, eight requests
/// of 1 MiB in flight).
const OWN_HEAP: u64 = 8 * MIB;

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

/// Whether two byte counts agree within 2% or 1 MiB, whichever is more.
fn close(expected: u64, got: i64) -> bool {
    i64::try_from(expected).is_ok_and(|expected| expected.abs_diff(got) <= slack(expected.unsigned_abs()))
}

fn slack(expected: u64) -> u64 {
    (expected / 50).max(MIB)
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
    checks.extend(culprit(played, pod));
    checks.extend(kill(played, pod));
    checks.extend(page_kinds(played, &view));
    checks.extend(kernel_kinds(played, &view));
    checks.extend(regions(played, &view));
    checks.extend(held(played, pod, cpus));
    checks.push(unexplained(pod, cpus));
    checks
}

/// What the pages in the ledger add up to, where they were followed: what memory.stat has more than before, less guest RAM.
fn held(played: &Played, pod: &Value, cpus: u64) -> Option<Check> {
    // A real QEMU gives back pages of its own that it had before.
    let growth = played.user_growth.filter(|_| !played.real)?;
    let kinds = pod["live"]["kinds"].as_object()?;
    let guest = if played.guest_charged {
        played.touched("guest", &PAGE_KINDS)
    } else {
        0
    };
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

fn kernel_kind_names() -> Vec<&'static str> {
    tracer_common::Kind::ALL
        .iter()
        .map(|kind| kind.as_str())
        .filter(|kind| !PAGE_KINDS.contains(kind))
        .collect()
}

fn culprit(played: &Played, pod: &Value) -> Option<Check> {
    let expected = played.expect.as_ref()?.culprit.as_ref();
    let got = &pod["culprit"];
    let words = |process: &str, role: &str| format!("{process}, {role}");
    let expected_words = expected.map_or_else(
        || "nobody".to_owned(),
        |culprit| words(&culprit.process, &culprit.role.to_string()),
    );
    let got_words = if got.is_null() {
        "nobody".to_owned()
    } else {
        words(
            got["process"].as_str().unwrap_or("?"),
            got["role"].as_str().unwrap_or("?"),
        )
    };
    // khugepaged grows a real QEMU's heap now and then by making huge pages of it: where nobody else does, it is to
    // blame indeed.
    let collapsed = expected.is_none() && got["role"] == "kernel khugepaged";
    // Nobody knows what a real QEMU takes for itself: its threads' heaps come in huge pages on some kernels.
    let own = expected.is_none()
        && played.real
        && got["process"] == "qemu"
        && got["kind"] == "anon"
        && number(&got["bytes"]).unsigned_abs() <= OWN_HEAP;
    let ok = expected_words == got_words || collapsed || own;
    Some(Check::new("culprit", expected_words, got_words, ok))
}

/// Whether the kernel did what the scenario is made for.
#[must_use]
pub fn killed(played: &Played) -> Check {
    let (expected, ok) = match played.expect.as_ref().map(|expect| expect.kill) {
        Some(Some(victim)) => (victim, played.killed.iter().any(|name| name == victim)),
        Some(None) => ("nothing", played.killed.is_empty()),
        None => ("whatever comes", true),
    };
    Check::new("killed by the kernel", expected, played.killed_words(), ok)
}

fn kill(played: &Played, pod: &Value) -> Vec<Check> {
    let kill = pod["oom"].as_array().and_then(|kills| kills.first());
    let expected = played
        .expect
        .as_ref()
        .map_or(!played.killed.is_empty(), |expect| expect.kill.is_some());
    let mut checks = vec![
        killed(played),
        Check::new(
            "kill in the report",
            if expected { "yes" } else { "no" },
            if kill.is_some() { "yes" } else { "no" },
            kill.is_some() == expected,
        ),
    ];
    if let (Some(kill), Some(expect)) = (kill, played.expect.as_ref().filter(|expect| expect.kill.is_some())) {
        let invoker = kill["invoker"]["role"].as_str().unwrap_or("unknown");
        let expected: Vec<_> = expect.invokers.iter().map(ToString::to_string).collect();
        let ok = expected.iter().any(|role| role == invoker);
        checks.push(Check::new("invoker", expected.join(" or "), invoker, ok));
    }
    checks
}

/// Per role and kind: what the actors counted page by page.
fn page_kinds(played: &Played, view: &View) -> Vec<Check> {
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
fn kernel_kinds(played: &Played, view: &View) -> Vec<Check> {
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

/// Guest RAM: all of it found, none of it taken for overhead.
fn regions(played: &Played, view: &View) -> Vec<Check> {
    let unknown = number(&view.pod["region_unknown"]).unsigned_abs();
    let guest = if played.guest_charged {
        played.touched("guest", &PAGE_KINDS)
    } else {
        0
    };
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

fn unexplained(pod: &Value, cpus: u64) -> Check {
    let got = number(&pod["unexplained"]);
    let allowed = number(&pod["tolerance"]).unsigned_abs() + BATCH * cpus;
    Check::new(
        "unexplained",
        format!("at most {}", Bytes(allowed)),
        SignedBytes(got).to_string(),
        !pod["unexplained"].is_null() && got.unsigned_abs() <= allowed,
    )
}

impl Played {
    /// What the kernel killed, in words.
    pub(super) fn killed_words(&self) -> String {
        if self.killed.is_empty() {
            "nothing".to_owned()
        } else {
            self.killed.join(", ")
        }
    }

    fn touched(&self, region: &str, kinds: &[&str]) -> u64 {
        self.allocated
            .iter()
            .filter(|entry| entry.key.region == region && kinds.contains(&entry.key.kind.as_str()))
            .map(|entry| entry.bytes)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::lab::plan::{Culprit, Expect};
    use crate::lab::truth::Key;

    fn entry(process: &str, role: Role, kind: &str, region: &str, mib: u64, exact: bool) -> Entry {
        Entry {
            key: Key {
                process: process.to_owned(),
                role,
                kind: kind.to_owned(),
                region: region.to_owned(),
            },
            bytes: mib * MIB,
            exact,
            first_t: 0,
            last_t: 0,
        }
    }

    fn played() -> Played {
        let passt = || Role::Helper("passt".to_owned());
        Played {
            guest_ram: 256 * MIB,
            limit: 400 * MIB,
            expect: Some(Expect {
                culprit: Some(Culprit {
                    process: "passt".to_owned(),
                    role: passt(),
                }),
                kill: Some("qemu"),
                invokers: vec![Role::Vcpu(0), Role::Vcpu(1)],
            }),
            killed: vec!["virtqemud".to_owned(), "qemu".to_owned()],
            kernel_growth: None,
            resident_growth: None,
            user_growth: None,
            user_growth_off_by: 0,
            guest_charged: true,
            real: false,
            allocated: vec![
                entry("passt", passt(), "anon", "overhead", 100, true),
                entry("passt", passt(), "kmem", "overhead", 20, false),
                entry("qemu", Role::Vcpu(0), "anon", "guest", 200, true),
            ],
        }
    }

    fn report() -> Value {
        json!({"pods": [{
            "guest_ram": 256 * MIB,
            "unexplained": 100_000, "tolerance": 1_000_000, "region_unknown": 0,
            "culprit": {"process": "passt", "role": "helper passt"},
            "oom": [{"invoker": {"role": "vcpu 1"}}],
            "by_role": [
                {"role": "helper passt", "kinds": {"anon": 101 * MIB, "slab": 5 * MIB, "kmem": 15 * MIB}},
                {"role": "vcpu 0", "kinds": {"anon": MIB}},
            ],
            "guest_growth": 199 * MIB,
        }]})
    }

    fn failed(report: &Value) -> Vec<String> {
        compare(&played(), report, 2)
            .into_iter()
            .filter(|check| !check.ok)
            .map(|check| check.name)
            .collect()
    }

    #[test]
    fn a_report_near_the_truth_passes() {
        assert_eq!(failed(&report()), Vec::<String>::new());
    }

    #[test]
    fn each_difference_fails_its_own_check() {
        let cases = [
            ("/pods/0/culprit/process", json!("qemu"), "culprit"),
            ("/pods/0/culprit", json!(null), "culprit"),
            ("/pods/0/oom", json!([]), "kill in the report"),
            ("/pods/0/oom/0/invoker/role", json!("main-loop"), "invoker"),
            (
                "/pods/0/by_role/0/kinds/anon",
                json!(97 * MIB),
                "passt, helper passt: anon",
            ),
            (
                "/pods/0/by_role/0/kinds/kmem",
                json!(10 * MIB),
                "passt, helper passt: kernel memory",
            ),
            (
                "/pods/0/by_role/1/kinds/anon",
                json!(9 * MIB),
                "guest RAM taken for overhead",
            ),
            ("/pods/0/guest_growth", json!(150 * MIB), "guest RAM charged"),
            ("/pods/0/unexplained", json!(-9_000_000), "unexplained"),
            ("/pods/0/guest_ram", json!(1), "guest RAM size"),
        ];
        for (pointer, value, name) in cases {
            let mut report = report();
            *report.pointer_mut(pointer).expect("a known place") = value;
            assert_eq!(failed(&report), [name]);
        }
    }

    #[test]
    fn under_a_limit_of_the_reader_s_own_only_what_happened_counts() {
        let failed = |killed: &[&str], oom: Value| {
            let mut report = report();
            report["pods"][0]["culprit"] = json!(null);
            report["pods"][0]["oom"] = oom;
            let played = Played {
                expect: None,
                killed: killed.iter().map(|name| (*name).to_owned()).collect(),
                ..played()
            };
            let checks = compare(&played, &report, 2);
            checks
                .into_iter()
                .filter(|check| !check.ok)
                .map(|check| check.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(failed(&[], json!([])), Vec::<String>::new());
        assert_eq!(
            failed(&["qemu"], json!([{"invoker": {"role": "vcpu 7"}}])),
            Vec::<String>::new()
        );
        assert_eq!(failed(&["qemu"], json!([])), ["kill in the report"]);
        assert_eq!(failed(&[], json!([{}])), ["kill in the report"]);
    }

    #[test]
    fn a_real_qemus_own_heap_is_nobodys_fault() {
        let agreed = |real, kind: &str, bytes: u64| {
            let mut report = report();
            report["pods"][0]["culprit"] =
                json!({"process": "qemu", "role": "iothread iothread1", "kind": kind, "bytes": bytes});
            let mut played = Played { real, ..played() };
            played.expect.as_mut().expect("it has one").culprit = None;
            let checks = compare(&played, &report, 2);
            checks.iter().any(|check| check.name == "culprit" && check.ok)
        };
        assert!(agreed(true, "anon", 7 * MIB));
        assert!(!agreed(true, "anon", 9 * MIB));
        assert!(!agreed(true, "file", MIB));
        assert!(!agreed(false, "anon", MIB));
    }

    #[test]
    fn guest_ram_in_huge_pages_is_not_expected_to_be_charged() {
        let failed = |growth: u64, size: u64| {
            let mut report = report();
            report["pods"][0]["guest_ram"] = json!(size);
            report["pods"][0]["guest_growth"] = json!(growth);
            let played = Played {
                guest_charged: false,
                ..played()
            };
            let checks = compare(&played, &report, 2).into_iter();
            checks
                .filter(|check| !check.ok)
                .map(|check| check.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(failed(0, 0), Vec::<String>::new());
        assert_eq!(failed(200 * MIB, 0), ["guest RAM charged"]);
        assert_eq!(failed(0, 256 * MIB), ["guest RAM size"]);
    }

    #[test]
    fn what_is_held_must_be_what_memory_stat_shows_to_the_byte() {
        let agreed = |live: Value, off_by| {
            let mut report = report();
            report["pods"][0]["live"] = live;
            let played = Played {
                user_growth: Some(300 * (MIB.cast_signed()) + 4096),
                user_growth_off_by: off_by,
                ..played()
            };
            let checks = compare(&played, &report, 2).into_iter();
            let check = checks.filter(|check| check.name == "overhead held, by memory.stat");
            check.map(|check| check.ok).next()
        };
        let held = |bytes: u64| json!({"kinds": {"anon": 99 * MIB, "file": MIB, "kmem": MIB, "shmem": bytes}});
        assert_eq!(agreed(json!(null), 0), None);
        assert_eq!(agreed(held(4096), 0), Some(true));
        assert_eq!(agreed(held(8192), 0), Some(false));
        assert_eq!(agreed(held(0), 2048), Some(true));
        assert_eq!(agreed(held(8193), 2047), Some(false));
    }

    #[test]
    fn an_empty_report_fails() {
        assert_eq!(failed(&json!({})), ["pods in the report"]);
    }

    #[test]
    fn small_figures_may_differ_by_a_mebibyte_and_large_ones_by_two_percent() {
        assert!(close(0, 1 << 20));
        assert!(!close(0, (1 << 20) + 1));
        assert!(close(200 * MIB, 204 << 20));
        assert!(!close(200 * MIB, 205 << 20));
        assert!(!close(2 * MIB, -(2 << 20)));
    }
}
