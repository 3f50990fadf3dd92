//! What `headroom doctor` finds on the kernel of a VM, where function probes work.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;
use xtask::vm::Vm;

/// The probes that count charges and tell guest RAM from overhead.
const FUNCTION_PROBES: [&str; 13] = [
    "charge_folio",
    "charge_swapin",
    "charge_kernel_pages",
    "charge_objects",
    "charge_socket",
    "uncharge_folio",
    "uncharge_kernel_pages",
    "uncharge_objects",
    "uncharge_socket",
    "place_anon",
    "place_shmem",
    "place_file",
    "oom_kill",
];

#[test]
fn every_function_probe_gets_fentry_on_6_12() -> Result<()> {
    let run = Vm::new("doctor")
        .command(["/bin/headroom", "doctor", "--json"])
        .boot()?;
    run.expect_success()?;
    let findings: Value = serde_json::from_slice(&run.commands[0].stdout).context("doctor printed no JSON")?;
    assert_eq!(findings["ok"], true, "{findings:#}");
    assert_eq!(findings["backend"], "fentry", "{findings:#}");
    assert_eq!(findings["cgroup"], "v2", "{findings:#}");
    assert_eq!(findings["kernel"], run.release.as_str(), "{findings:#}");
    let probes = findings["probes"].as_array().context("doctor lists no probes")?;
    let by_fentry = probes.iter().filter(|probe| probe["backend"] == "fentry");
    let by_fentry: BTreeSet<&str> = by_fentry.filter_map(|probe| probe["probe"].as_str()).collect();
    let missing: Vec<&str> = FUNCTION_PROBES
        .into_iter()
        .filter(|probe| !by_fentry.contains(probe))
        .collect();
    assert!(missing.is_empty(), "not by fentry: {missing:?} in {findings:#}");
    Ok(())
}
