//! Conservation on real kernels: each workload in one VM per kernel and backend.

use std::time::Duration;

use anyhow::{Result, ensure};
use headroom_tests::conserve::{Document, WORKLOADS};
use xtask::build::vm_binaries;
use xtask::vm::suite::Cell;
use xtask::vm::{Cgroup, Vm};

/// Plays workloads on a kernel; all of them are looked at before the first that differs fails the test.
fn conserved(cell: &Cell, names: &[&str]) -> Result<Vec<Document>> {
    let run = cell.workloads("conserve", &vm_binaries()?, names).boot()?;
    let mut documents = Vec::new();
    let mut problems = Vec::new();
    for (name, command) in names.iter().zip(&run.commands) {
        let read = Document::read(&command.stdout, &command.stderr());
        match read.and_then(|document| document.expect_conserved().map(|()| document)) {
            Ok(document) => documents.push(document),
            Err(error) => problems.push(format!("{name}: {error:#}")),
        }
    }
    ensure!(problems.is_empty(), "{}: {}", run.release, problems.join("\n"));
    Ok(documents)
}

#[test]
fn every_byte_is_conserved_on_6_12_by_function_probes() -> Result<()> {
    let documents = conserved(&Cell::new("6.12", Cgroup::V2, "fentry"), &WORKLOADS)?;
    let absent: Vec<&Document> = documents
        .iter()
        .filter(|document| document.not_here.is_some())
        .collect();
    ensure!(absent.is_empty(), "6.12 has all of it: {absent:?}");
    Ok(())
}

#[test]
fn all_backends_agree_on_the_same_work_kind_by_kind_on_7_3() -> Result<()> {
    let run = Vm::new("agree")
        .kernel("7.3")
        .disk(true)
        .file(vm_binaries()?.workload(), "/bin/workload")
        .env("HEADROOM_BINARIES", "/bin")
        .timeout(Duration::from_secs(600))
        .command(["/bin/workload", "agree"])
        .boot()?;
    let command = &run.commands[0];
    Document::read(&command.stdout, &command.stderr())?.expect_conserved()
}
