//! Forecasts of pods that grow at constant rate, against what the lab knows: when, and by whom.

use anyhow::{Context as _, Result, ensure};
use headroom_tests::Run;
use serde_json::Value;

/// How far a forecast may be off, as a part of the time left.
const OFF: f64 = 0.15;
/// Part of the time from the first growth to the kill that an alert must leave.
const LEAD: f64 = 0.7;

fn expect_foreseen(words: &[&str], driver: &str) -> Result<()> {
    let run = Run::headroom(["lab"].iter().chain(words).chain(&["--json"]))?;
    let document: Value = serde_json::from_str(&run.stdout).with_context(|| run.stderr.clone())?;
    let foreseen = &document["foreseen"];
    let half = &foreseen["half"];
    let number = |value: &Value| value.as_f64().with_context(|| format!("not forecast: {foreseen}"));
    let (real, expected) = (number(&half["real_s"])?, number(&half["expected_s"])?);
    ensure!(
        (expected - real).abs() <= OFF * real,
        "{expected} s, really {real} s: {foreseen}"
    );
    ensure!(half["driver"] == driver && half["driver_right"] == true, "{foreseen}");
    let lead = number(&foreseen["lead_s"])? / number(&foreseen["most_lead_s"])?;
    ensure!(lead >= LEAD, "told at {lead} of the time before the kill: {foreseen}");
    Ok(())
}

#[test]
fn a_leaking_daemon_is_foreseen() -> Result<()> {
    expect_foreseen(&["daemon-leak", "--rate", "5MiB/s"], "virtqemud, helper virtqemud")
}

#[test]
fn a_vcpu_that_is_charged_for_overhead_is_foreseen() -> Result<()> {
    expect_foreseen(&["vcpu-overhead", "--rate", "5MiB/s"], "qemu, vcpu 0")
}

#[test]
fn a_helper_that_grows_while_the_guest_fills_its_ram_is_foreseen() -> Result<()> {
    let words = ["memhold", "--rate", "5MiB/s", "--limit", "420MiB"];
    expect_foreseen(&words, "memhold, other memhold")
}

#[test]
fn a_guest_that_fills_its_ram_is_foreseen_to_meet_nothing() -> Result<()> {
    let run = Run::headroom(["lab", "guest-only", "--rate", "24MiB/s", "--json"])?;
    let document: Value = serde_json::from_str(&run.stdout).with_context(|| run.stderr.clone())?;
    ensure!(document["foreseen"]["alerts"] == 0, "{}", document["foreseen"]);
    let forecasts = document["report"]["pods"][0]["forecasts"]
        .as_array()
        .context("a list")?;
    ensure!(forecasts.is_empty(), "{forecasts:?}");
    Ok(())
}
