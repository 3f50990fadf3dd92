//! The lab inside a VM with a kernel of the field, where function probes work and QEMU and KVM are real.

use std::time::Duration;

use anyhow::{Context as _, Result};
use headroom_tests::Scenario;
use headroom_tests::lab::SCENARIOS;
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
    anyhow::ensure!(problems.is_empty(), "{}: {}", run.release, problems.join("\n"));
    anyhow::ensure!(scenarios.len() == names.len(), "not every scenario was played");
    Ok(scenarios)
}

#[test]
fn stand_ins_are_traced_by_function_probes() -> Result<()> {
    let vm = Vm::new("lab-stand-ins")
        .kernel("6.12")
        .timeout(Duration::from_secs(420));
    let vm = SCENARIOS
        .iter()
        .fold(vm, |vm, name| vm.command([HEADROOM, "lab", name, "--json"]));
    let run = vm.boot()?;
    for scenario in scenarios(&run, &SCENARIOS)? {
        let backends = &scenario.report()["backends"];
        let charge = backends["charge_user"]
            .as_str()
            .or_else(|| backends["place_anon"].as_str());
        let by = charge.with_context(|| format!("no probe counts user pages: {backends}"))?;
        assert!(by.starts_with("fentry") || by.starts_with("fexit"), "{backends}");
    }
    Ok(())
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
    Ok(())
}
