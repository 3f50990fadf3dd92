//! What `headroom doctor` finds on the kernels of VMs, where function probes work: every kernel line, by fentry and by
//! kprobe, against the table of what each should get. It loads and attaches every program, so it also holds the eBPF
//! side's prototypes, fields and enumerators against each kernel.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use xtask::vm::Vm;

/// What probes of functions are attached to where nothing else is said; `None` where the kernel has no use for one.
const NEWEST: &[(&str, Option<&str>)] = &[
    ("charge_folio", Some("__mem_cgroup_charge")),
    ("memcg_made", Some("mem_cgroup_css_online")),
    ("memcg_left", Some("mem_cgroup_css_offline")),
    ("charge_swapin", Some("mem_cgroup_swapin_charge_folio")),
    ("charge_hugetlb", Some("mem_cgroup_charge_hugetlb")),
    ("charge_replacement", Some("mem_cgroup_replace_folio")),
    ("charge_kernel_pages", Some("__memcg_kmem_charge_page")),
    ("charge_objects", Some("__account_obj_stock")),
    ("charge_other_objects", Some("obj_cgroup_charge")),
    ("charge_socket", Some("mem_cgroup_sk_charge")),
    ("uncharge_folio", Some("uncharge_folio")),
    ("uncharge_swapped_out", None),
    ("uncharge_kernel_pages", Some("__memcg_kmem_uncharge_page")),
    ("uncharge_objects", None),
    ("uncharge_other_objects", Some("obj_cgroup_uncharge")),
    ("uncharge_socket", Some("mem_cgroup_sk_uncharge")),
    ("place_anon", Some("folio_add_new_anon_rmap")),
    ("place_swapped_in", None),
    ("place_shmem", Some("shmem_add_to_page_cache")),
    ("unplace_shmem", Some("filemap_remove_folio")),
    ("place_hugetlb", Some("hugetlb_add_to_page_cache")),
    ("place_hugetlb_anon", Some("hugetlb_add_new_anon_rmap")),
    ("place_file", Some("__filemap_add_folio")),
    ("kind_of_pages", Some("lruvec_stat_mod_folio")),
    ("kind_of_stack", None),
    ("kind_of_memcg_stat", Some("mod_memcg_state")),
    ("move_charge", Some("mem_cgroup_migrate")),
    ("oom_kill", Some("oom_kill_process")),
];

/// Where 6.12 differs.
const ON_6_12: &[(&str, Option<&str>)] = &[
    ("charge_hugetlb", Some("mem_cgroup_commit_charge")),
    ("charge_objects", Some("obj_cgroup_charge")),
    ("charge_other_objects", None),
    ("charge_socket", Some("mem_cgroup_charge_skmem")),
    ("uncharge_objects", Some("refill_obj_stock")),
    ("uncharge_other_objects", None),
    ("uncharge_socket", Some("mem_cgroup_uncharge_skmem")),
    ("kind_of_pages", Some("__lruvec_stat_mod_folio")),
    ("kind_of_memcg_stat", Some("__mod_memcg_state")),
];

/// Where 6.1 differs from 6.12.
const ON_6_1: &[(&str, Option<&str>)] = &[
    ("charge_hugetlb", None),
    ("charge_replacement", Some("mem_cgroup_migrate")),
    ("place_hugetlb", None),
    ("place_hugetlb_anon", None),
    ("place_anon", Some("page_add_new_anon_rmap")),
    ("place_swapped_in", Some("page_add_anon_rmap")),
    ("kind_of_pages", Some("__mod_lruvec_page_state")),
    ("move_charge", None),
];

/// Where 5.10 differs from 6.1. It has nothing to tell page tables by.
const ON_5_10: &[(&str, Option<&str>)] = &[
    ("charge_folio", Some("mem_cgroup_charge")),
    ("charge_swapin", None),
    ("uncharge_folio", Some("uncharge_page")),
    ("uncharge_objects", Some("obj_cgroup_uncharge")),
    ("place_swapped_in", Some("do_page_add_anon_rmap")),
    ("unplace_shmem", Some("delete_from_page_cache")),
    ("place_file", Some("__add_to_page_cache_locked")),
    ("kind_of_stack", Some("account_kernel_stack")),
];

type Hooks = BTreeMap<String, Option<String>>;

fn expected(differences: &[&[(&str, Option<&str>)]]) -> Hooks {
    let all = [NEWEST].into_iter().chain(differences.iter().copied()).flatten();
    all.map(|&(probe, hook)| (probe.to_owned(), hook.map(str::to_owned)))
        .collect()
}

/// What a kernel differs in.
struct Kernel<'a> {
    line: &'a str,
    hooks: &'a [&'a [(&'a str, Option<&'a str>)]],
    /// Probes that it has nothing for, and says so.
    missing: &'a [&'a str],
    /// Fields and enumerators that it lacks: all others of the table are there.
    absent: &'a [&'a str],
}

/// Boots the kernel line and compares both backends of function probes with what is expected.
fn doctor_on(kernel: &Kernel) -> Result<()> {
    let Kernel { line, missing, .. } = *kernel;
    const BACKENDS: [&str; 2] = ["fentry", "kprobe"];
    let mut vm = Vm::new(&format!("doctor-{line}")).kernel(line);
    for backend in BACKENDS {
        vm = vm.command(["/bin/headroom", "doctor", "--json", "--backend", backend]);
    }
    let run = vm.boot()?;
    run.expect_success()?;
    let mut expected = expected(kernel.hooks);
    expected.retain(|probe, _| !missing.contains(&probe.as_str()));
    for (backend, command) in BACKENDS.iter().zip(&run.commands) {
        let findings: Value = serde_json::from_slice(&command.stdout).context("doctor printed no JSON")?;
        assert_eq!(findings["ok"], true, "{findings:#}");
        assert_eq!(findings["backend"], *backend, "{findings:#}");
        assert_eq!(findings["cgroup"], "v2", "{findings:#}");
        assert_eq!(findings["kernel"], run.release.as_str(), "{findings:#}");
        assert_eq!(findings["absent"], json!(kernel.absent), "{}", run.release);
        let mut found = Hooks::new();
        let mut without = Vec::new();
        for probe in findings["probes"].as_array().context("doctor lists no probes")? {
            let name = probe["probe"].as_str().context("a probe has a name")?;
            if probe["reason"].is_string() {
                without.push(name);
            } else if probe["backend"] != "tracepoint" {
                assert!(probe["backend"].is_null() || probe["backend"] == *backend, "{probe:#}");
                found.insert(name.to_owned(), probe["hook"].as_str().map(str::to_owned));
            }
        }
        assert_eq!(found, expected, "{backend} on {}", run.release);
        assert_eq!(without, missing, "{backend} on {}", run.release);
    }
    Ok(())
}

#[test]
fn every_probe_gets_its_hook_on_7_3() -> Result<()> {
    doctor_on(&Kernel {
        line: "7.3",
        hooks: &[],
        missing: &[],
        absent: &["MEMCG_VMALLOC"],
    })
}

#[test]
fn every_probe_gets_its_hook_on_7_2() -> Result<()> {
    doctor_on(&Kernel {
        line: "7.2",
        hooks: &[],
        missing: &[],
        absent: &["MEMCG_VMALLOC"],
    })
}

#[test]
fn every_probe_gets_its_hook_on_6_12() -> Result<()> {
    doctor_on(&Kernel {
        line: "6.12",
        hooks: &[ON_6_12],
        missing: &[],
        absent: &["NR_HUGETLB", "NR_VMALLOC"],
    })
}

#[test]
fn every_probe_gets_its_hook_on_6_1() -> Result<()> {
    doctor_on(&Kernel {
        line: "6.1",
        hooks: &[ON_6_12, ON_6_1],
        missing: &[],
        absent: &["PGTY_hugetlb", "NR_HUGETLB", "NR_VMALLOC"],
    })
}

#[test]
fn every_probe_gets_its_hook_on_5_10() -> Result<()> {
    doctor_on(&Kernel {
        line: "5.10",
        hooks: &[ON_6_12, ON_6_1, ON_5_10],
        missing: &["kind_of_pages"],
        absent: &[
            "PGTY_hugetlb",
            "NR_SECONDARY_PAGETABLE",
            "NR_HUGETLB",
            "MEMCG_KMEM",
            "MEMCG_VMALLOC",
            "NR_VMALLOC",
        ],
    })
}
