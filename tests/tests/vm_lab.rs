//! The lab inside a VM with a kernel of the field, where function probes work and QEMU and KVM are real.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headroom::oomlog::explain::explain;
use headroom::oomlog::parse;
use headroom_tests::Scenario;
use headroom_tests::lab::SCENARIOS;
use xtask::build::binaries;
use xtask::dist::elf;
use xtask::vm::protocol::PLAN;
use xtask::vm::{Vm, VmRun};

const HEADROOM: &str = "/bin/headroom";

/// Every scenario of a run; all of them are looked at before the first that differs fails the test.
fn scenarios(run: &VmRun, names: &[&str]) -> Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    let mut problems = Vec::new();
    for (name, command) in names.iter().zip(&run.commands) {
        let read = Scenario::read(name, &command.stdout(), &command.stderr());
        match read.and_then(|scenario| scenario.expect_truth().map(|()| scenario)) {
            Ok(scenario) => scenarios.push(scenario),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    ensure!(problems.is_empty(), "{}: {}", run.release, problems.join("\n"));
    ensure!(scenarios.len() == names.len(), "not every scenario was played");
    Ok(scenarios)
}

/// The program is all there is beside a kernel and an init that runs what it is told: no library, shell or tool.
fn expect_nothing_else(run: &VmRun) -> Result<()> {
    let root = run.root()?;
    let others: Vec<&String> = root
        .iter()
        .filter(|name| !name.starts_with("lib/modules/") && !["init", "bin/headroom", PLAN].contains(&name.as_str()))
        .collect();
    ensure!(root.contains("bin/headroom") && others.is_empty(), "{others:?}");
    elf::check(&fs::read(binaries()?.headroom())?)
}

/// Every report of the kernel in a run's log is understood to the last line, and its parts are all that was used.
fn explained(run: &VmRun, kills: usize) -> Result<()> {
    let reports = parse(&fs::read(run.file("kernel.log"))?).reports;
    ensure!(reports.len() >= kills, "{} reports: {}", reports.len(), run.release);
    for report in &reports {
        ensure!(report.unparsed.is_empty(), "{}: {:?}", run.release, report.unparsed);
        let explained = explain(report, None);
        let hit = explained.limit.context("whose limit it was")?;
        let memory = explained.memory;
        let parts = [memory.anon, memory.page_cache, memory.kernel];
        let sum: u64 = parts.into_iter().flatten().sum();
        // What CPUs have charged in advance.
        ensure!(
            sum.abs_diff(hit.usage) < 1 << 20 && memory.kernel.is_some(),
            "{parts:?} of {}",
            hit.usage
        );
    }
    Ok(())
}

#[test]
fn stand_ins_are_traced_by_function_probes_beside_a_kernel_and_an_init_alone() -> Result<()> {
    let vm = Vm::new("lab-stand-ins")
        .kernel("6.12")
        .timeout(Duration::from_secs(420));
    let vm = SCENARIOS
        .iter()
        .fold(vm, |vm, name| vm.command([HEADROOM, "lab", name, "--json"]));
    let run = vm.boot()?;
    expect_nothing_else(&run)?;
    for scenario in scenarios(&run, &SCENARIOS)? {
        let backends = &scenario.report()["backends"];
        let charge = backends["charge_user"]
            .as_str()
            .or_else(|| backends["place_anon"].as_str());
        let by = charge.with_context(|| format!("no probe counts user pages: {backends}"))?;
        assert!(by.starts_with("fentry") || by.starts_with("fexit"), "{backends}");
        let held = scenario.compares("overhead held, by memory.stat");
        assert_eq!(held, !scenario.was_killed(), "{backends}");
    }
    explained(&run, 3)
}

#[test]
fn a_real_qemu_on_kvm_is_traced_to_its_kill() -> Result<()> {
    let words = |rest: &[&str]| -> Vec<String> {
        let head = [HEADROOM, "lab"].iter();
        head.chain(rest).map(|word| (*word).to_owned()).collect()
    };
    let run = Vm::new("lab-real")
        .kernel("6.12")
        .real(true)
        .timeout(Duration::from_secs(420))
        .command(words(&["memhold", "--real", "--json"]))
        .command(words(&["backup-io", "--real", "--cache", "writeback", "--json"]))
        .command(words(&["backup-io", "--real", "--cache", "none", "--json"]))
        .boot()?;
    let names = ["memhold", "backup-io", "backup-io"];
    let scenarios = scenarios(&run, &names)?;
    let killed = scenarios[0].pod()?;
    let roles: Vec<&str> = killed["by_role"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|role| role["role"].as_str())
        .collect();
    assert!(roles.iter().any(|role| role.starts_with("vcpu ")), "{roles:?}");
    explained(&run, 1)
}
