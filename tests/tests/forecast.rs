//! Forecasts of pods that grow at constant rate, against what the lab knows: when, and by whom.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use headroom_tests::Run;
use serde_json::Value;

/// How far a forecast may be off, as a part of the time left.
const OFF: f64 = 0.15;
/// Part of the time from the first growth to the kill that an alert must leave.
const LEAD: f64 = 0.7;

/// Each scenario that grows, slowed down to a rate that lasts for a while, and who drives it. An alert takes some eight seconds of
/// samples, on a busy machine ten, whatever the rate.
const GROWING: [(&[&str], &[&str]); 6] = [
    (&["daemon-leak", "--rate", "4MiB/s"], &["virtqemud, helper virtqemud"]),
    (&["vcpu-overhead", "--rate", "4MiB/s"], &["qemu, vcpu 0"]),
    // While the guest fills its RAM.
    (
        &["memhold", "--rate", "4MiB/s", "--limit", "420MiB"],
        &["memhold, other memhold"],
    ),
    // Each of the drivers lives for milliseconds.
    (
        &["worker-storm", "--rate", "3MiB/s", "--limit", "370MiB"],
        &["qemu, block-worker"],
    ),
    (
        &["kernel-memory", "--rate", "1152KiB/s", "--limit", "312MiB"],
        &["passt, helper passt"],
    ),
    // Both take the same.
    (
        &["backup-io", "--rate", "384KiB/s", "--limit", "298MiB"],
        &["qemu, block-worker", "qemu, iothread iothread1"],
    ),
];
const GUEST_ONLY: [&str; 3] = ["guest-only", "--rate", "24MiB/s"];

fn lab(words: &[&str]) -> Result<Value> {
    let run = Run::headroom(["lab"].iter().chain(words).chain(&["--json"]))?;
    serde_json::from_str(&run.stdout).with_context(|| run.stderr.clone())
}

fn expect_foreseen(foreseen: &Value, drivers: &[&str]) -> Result<()> {
    let half = &foreseen["half"];
    let number = |value: &Value| value.as_f64().with_context(|| format!("not forecast: {foreseen}"));
    let (real, expected) = (number(&half["real_s"])?, number(&half["expected_s"])?);
    ensure!(
        (expected - real).abs() <= OFF * real,
        "{expected} s, really {real} s: {foreseen}"
    );
    ensure!(
        drivers.iter().any(|driver| half["driver"] == *driver) && half["driver_right"] == true,
        "{foreseen}"
    );
    let lead = number(&foreseen["lead_s"])? / number(&foreseen["most_lead_s"])?;
    ensure!(lead >= LEAD, "told at {lead} of the time before the kill: {foreseen}");
    Ok(())
}

fn expect_nothing_foreseen(document: &Value) -> Result<()> {
    ensure!(document["foreseen"]["alerts"] == 0, "{}", document["foreseen"]);
    let forecasts = document["report"]["pods"][0]["forecasts"]
        .as_array()
        .context("a list")?;
    ensure!(forecasts.is_empty(), "{forecasts:?}");
    Ok(())
}

/// They spend their time waiting for the rate, each in a pod of its own, and so go side by side.
#[test]
fn growth_at_constant_rate_is_foreseen_and_a_guest_that_fills_its_ram_is_no_growth() -> Result<()> {
    let wrong: Vec<String> = thread::scope(|scope| {
        let growing = GROWING.map(|(words, drivers)| {
            scope.spawn(move || {
                lab(words)
                    .and_then(|document| expect_foreseen(&document["foreseen"], drivers))
                    .context(words.join(" "))
            })
        });
        let guest = scope.spawn(|| lab(&GUEST_ONLY).and_then(|document| expect_nothing_foreseen(&document)));
        let results = growing.into_iter().chain([guest]).map(thread::ScopedJoinHandle::join);
        results
            .filter_map(|result| match result {
                Ok(result) => result.err().map(|error| format!("{error:#}")),
                Err(_) => Some("panicked".to_owned()),
            })
            .collect()
    });
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
