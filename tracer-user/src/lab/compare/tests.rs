use serde_json::json;

use super::*;
use crate::lab::plan::{Culprit, Expect, MIB};
use crate::lab::truth::{Entry, Key};

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
        guest_charged: true,
        allocated: vec![
            entry("passt", passt(), "anon", "overhead", 100, true),
            entry("passt", passt(), "kmem", "overhead", 20, false),
            entry("qemu", Role::Vcpu(0), "anon", "guest", 200, true),
        ],
        ..Played::default()
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
