//! Tracers on real kernels: what they leave behind when they are detached again and again or killed, and what one says where
//! nothing can count.

use std::time::Duration;

use anyhow::{Result, ensure};
use headroom_tests::conserve::Document;
use xtask::build::vm_binaries;
use xtask::vm::{Status, Vm};

const HEADROOM: &str = "/bin/headroom";

#[test]
fn a_killed_tracer_leaves_nothing_and_a_backend_that_the_kernel_lacks_is_refused() -> Result<()> {
    // The memcg tracepoints came with 6.15.
    let run = Vm::new("tracer")
        .kernel("6.12")
        .timeout(Duration::from_secs(600))
        .file(vm_binaries()?.workload(), "/bin/workload")
        .env("HEADROOM_BINARIES", "/bin")
        .command(["/bin/workload", "cycles", "5", "fentry"])
        .command(["/bin/workload", "killed", "fentry"])
        .command(["/bin/workload", "killed", "kprobe"])
        .command(["/bin/workload", "fallback"])
        .command([HEADROOM, "doctor", "--backend", "tracepoint"])
        .command([
            HEADROOM,
            "record",
            "--backend",
            "tracepoint",
            "-o",
            "/tmp/none.jsonl.zst",
        ])
        .boot()?;
    let (documents, refused) = run.commands.split_at(4);
    for command in documents {
        Document::read(&command.stdout, &command.stderr())?.expect_conserved()?;
    }
    for command in refused {
        let said = command.stderr();
        ensure!(command.status == Status::Exited(3), "{:?}: {said}", command.status);
        ensure!(said.lines().count() == 1, "one line expected: {said}");
        for words in [
            "no backend can count charges",
            "this kernel has no mod_memcg_lruvec_state",
        ] {
            ensure!(said.contains(words), "no '{words}' in: {said}");
        }
    }
    Ok(())
}
