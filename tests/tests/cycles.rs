//! Attaching and detaching again and again under load, on this machine's own kernel.

use std::process::Command;

use anyhow::Result;
use headroom_tests::conserve::Document;

#[test]
fn a_hundred_attachments_leave_nothing_and_lose_nothing() -> Result<()> {
    // By tracepoints, which every machine has that is recent enough; `vm_tracer` and the matrix have function probes.
    let mut command = Command::new(env!("CARGO_BIN_EXE_workload"));
    let output = command.args(["cycles", "100", "tracepoint"]).output()?;
    Document::read(&output.stdout, &String::from_utf8_lossy(&output.stderr))?.expect_conserved()
}
