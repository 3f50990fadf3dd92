//! Pods that come and go while a node is recorded.

use anyhow::{Context as _, Result, ensure};
use headroom_tests::recording::report;
use headroom_tests::{Recorder, Run};

/// Everything is recorded, and only then a VM pod starts, is found by its layout and command lines, and is killed.
#[test]
fn a_pod_that_starts_later_is_traced_to_its_kill() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("node.jsonl.zst");
    let mut recorder = Recorder::everything(&file, &["--until-oom", "--duration", "60s"])?;
    let lab = Run::headroom(["lab", "memhold", "--no-trace"])?;
    ensure!(lab.status == Some(0), "{}", lab.stderr);
    ensure!(
        recorder.wait()?.success(),
        "the recording ends by itself after the kill"
    );
    let report = report(&file)?;
    let pods = report["pods"].as_array().context("no pods")?;
    let pod = pods
        .iter()
        .find(|pod| pod["vm"] == "vm1")
        .context("the pod was not found")?;
    ensure!(
        pod["namespace"] == "lab" && pod["pod_uid"].as_str().is_some_and(|uid| !uid.is_empty()),
        "{pod}"
    );
    ensure!(pod["culprit"]["process"] == "memhold", "{}", pod["culprit"]);
    ensure!(pod["oom"][0]["victim"]["comm"] == "qemu-system-x86", "{}", pod["oom"]);
    Ok(())
}
