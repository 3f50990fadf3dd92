//! `headroom advise` held against the kernel: what it says would have held does, and a tenth less does not.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use headroom_tests::{Run, headroom};
use serde_json::Value;
use xtask::paths;

const FIXTURES: &str = "tests/fixtures/recordings";

/// The advice on a recording's only VM.
fn advise(file: &Path, options: &[&str]) -> Result<Value> {
    let file = file.to_str().context("the path is no text")?;
    let run = Run::headroom(["advise", file, "--json"].iter().chain(options))?;
    ensure!(run.status == Some(0), "{run:?}");
    let document: Value = serde_json::from_str(&run.stdout).context("advice is no JSON")?;
    ensure!(document["schema"] == "headroom.advise/1", "{document}");
    match document["vms"].as_array().map(Vec::as_slice) {
        Some([vm]) => Ok(vm.clone()),
        _ => anyhow::bail!("one VM expected: {document}"),
    }
}

/// Records a scenario of the lab on this machine's own kernel, and advises on it.
fn recorded(scenario: &str, options: &[&str]) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let keep = folder.path().to_str().context("the path is no text")?;
    let run = Run::headroom(["lab", scenario, "--json", "--keep", keep].iter().chain(options))?;
    // Whether the report agrees with the truth is for the tests of the lab.
    advise(&folder.path().join("recording.jsonl.zst"), &[]).with_context(|| format!("{run:?}"))
}

/// Who the kernel kills when the same load runs under another limit.
fn killed(scenario: &str, limit: u64, options: &[&str]) -> Result<Vec<String>> {
    let limit = limit.to_string();
    let lab = ["lab", scenario, "--limit", &limit, "--no-trace", "--json"];
    let run = Run::headroom(lab.iter().chain(options))?;
    let document: Value = serde_json::from_str(&run.stdout).with_context(|| format!("{run:?}"))?;
    serde_json::from_value(document["truth"]["killed"].clone()).context("no list of the killed")
}

fn bytes(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("a size expected, not {value}"))
}

/// The advised limit holds the load; a tenth less than the least does not.
fn holds(scenario: &str, advice: &Value, options: &[&str]) -> Result<()> {
    let advised = bytes(&advice["need"]["advised_limit"])?;
    let least = bytes(&advice["need"]["minimum_limit"])?;
    let survivors = killed(scenario, advised, options)?;
    ensure!(
        survivors.is_empty(),
        "{scenario} under {advised}: {survivors:?} killed; {advice}"
    );
    let victims = killed(scenario, least - least / 10, options)?;
    ensure!(
        !victims.is_empty(),
        "{scenario} survives a tenth less than {least}; {advice}"
    );
    Ok(())
}

#[test]
fn limits_that_are_advised_hold_and_a_tenth_less_kills() -> Result<()> {
    // Kernel memory comes at once: with more to fill, the guest makes the load long enough to be advised on.
    let larger = ["--guest-memory", "512MiB"];
    for (scenario, options) in [
        ("backup-io", &[][..]),
        ("guest-only", &[]),
        ("kernel-memory", &larger),
        ("worker-storm", &[]),
    ] {
        let limit: &[&str] = if options.is_empty() {
            &[]
        } else {
            &["--limit", "752MiB"]
        };
        let advice = recorded(scenario, &[options, limit].concat())?;
        ensure!(advice["need"].is_object(), "{scenario}: {}", advice["verdict"]);
        holds(scenario, &advice, options)?;
        let class = &advice["workload"]["class"];
        let storage = matches!(scenario, "backup-io" | "worker-storm");
        let expected = if storage { "high I/O and storage" } else { "general" };
        ensure!(class == expected, "{scenario}: {class}");
    }
    Ok(())
}

/// The limit that KubeVirt gives the lab's VM of 448 MiB with 2 vCPUs.
fn limit_by_kubevirt() -> Result<u64> {
    let vm = [
        "--guest",
        "448Mi",
        "--request",
        "298Mi",
        "--limit",
        "448Mi",
        "--cpus",
        "2",
        "--no-graphics",
    ];
    let run = Run::headroom(["size", "--json"].iter().chain(&vm))?;
    let document: Value = serde_json::from_str(&run.stdout)?;
    bytes(&document["vms"][0]["budget"]["container_limit"])
}

#[test]
fn a_ratio_and_reserved_memory_that_are_advised_hold() -> Result<()> {
    let now = limit_by_kubevirt()?;
    let advice = recorded("memhold", &["--limit", &now.to_string()])?;
    ensure!(advice["recordings"][0]["killed"] == true, "{advice}");
    ensure!(advice["outcome"] == "bounded", "{advice}");
    ensure!(advice["shape"]["basis"] == "matched", "{}", advice["shape"]);
    ensure!(advice["by_role"][0]["process"] == "memhold", "{}", advice["by_role"]);
    holds("memhold", &advice, &[])?;
    let reserves = &advice["reserves"];
    let survivors = killed("memhold", bytes(&reserves["ratio"]["limit"])?, &[])?;
    ensure!(survivors.is_empty(), "{survivors:?} killed with the ratio: {reserves}");
    let reserved = &reserves["reserved_memory"];
    let guest = bytes(&reserved["guest"])?.to_string();
    let survivors = killed("memhold", bytes(&reserved["limit"])?, &["--guest-memory", &guest])?;
    ensure!(
        survivors.is_empty(),
        "{survivors:?} killed with Reserved Memory: {reserves}"
    );
    Ok(())
}

#[test]
fn a_leak_is_held_by_no_reserve_and_named() -> Result<()> {
    for (scenario, process, role) in [
        ("daemon-leak", "virtqemud", "helper virtqemud"),
        ("vcpu-overhead", "qemu", "vcpu 0"),
    ] {
        let advice = recorded(scenario, &[])?;
        ensure!(advice["outcome"] == "no_reserve_will_do", "{scenario}: {advice}");
        let look_at = &advice["look_at"];
        ensure!(
            look_at["process"] == process && look_at["role"] == role,
            "{scenario}: {look_at}"
        );
        ensure!(
            advice["reserves"].is_null() && advice["snippets"] == serde_json::json!([]),
            "{advice}"
        );
        ensure!(advice["need"]["advised_limit"].is_null(), "{}", advice["need"]);
    }
    Ok(())
}

/// What it prints about recordings that never change.
fn printed(files: &[&str], options: &[&str]) -> Result<String> {
    let run = Run::of(
        headroom()?
            .current_dir(paths::workspace().join(FIXTURES))
            .arg("advise")
            .args(files)
            .args(options),
    )?;
    ensure!(run.status == Some(0), "{run:?}");
    Ok(run.stdout)
}

#[test]
fn advice_on_recordings_as_it_is_printed() -> Result<()> {
    insta::assert_snapshot!("kill", printed(&["memhold.jsonl.zst"], &["--harvester", "1.5"])?);
    insta::assert_snapshot!("storage", printed(&["backup-io.jsonl.zst"], &["--margin", "30"])?);
    insta::assert_snapshot!(
        "two_recordings",
        printed(&["backup-io.jsonl.zst", "memhold.jsonl.zst"], &["--json"])?
    );
    Ok(())
}

#[test]
fn what_cannot_be_advised_on_is_said_in_a_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a recording")?;
    let text = text.to_str().context("the path is no text")?;
    Run::headroom(["advise", text])?.expect_one_line(1, &["cannot read", "not a headroom recording"])?;
    Run::headroom(["advise", "/nowhere.zst"])?.expect_one_line(1, &["/nowhere.zst"])?;
    let fixture = paths::workspace().join(FIXTURES).join("memhold.jsonl.zst");
    let fixture = fixture.to_str().context("the path is no text")?;
    Run::headroom(["advise", fixture, "--harvester", "9.9"])?.expect_one_line(2, &["unknown Harvester version"])?;
    Run::headroom(["advise", fixture, "--harvester", "1.5", "--ratio", "11"])?
        .expect_one_line(2, &["can't be greater than 10"])?;
    Run::headroom(["advise", fixture, "--reserved=-1Gi"])?.expect_one_line(2, &["negative"])?;
    Ok(())
}
