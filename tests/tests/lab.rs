//! Every scenario of the lab on this machine's own kernel: the report equals the truth.

use anyhow::Result;
use headroom_tests::{Run, Scenario};

fn play(name: &str, options: &[&str]) -> Result<Scenario> {
    let arguments = ["lab", name, "--json"].into_iter().chain(options.iter().copied());
    let run = Run::headroom(arguments)?;
    let scenario = Scenario::read(name, &run.stdout, &run.stderr)?;
    scenario.expect_truth()?;
    Ok(scenario)
}

#[test]
fn a_helper_that_holds_memory_is_to_blame_for_the_kill() -> Result<()> {
    let scenario = play("memhold", &[])?;
    let pod = scenario.pod()?;
    assert_eq!(pod["culprit"]["process"], "memhold", "{pod}");
    assert_eq!(pod["culprit"]["kind"], "anon", "{pod}");
    Ok(())
}

#[test]
fn a_daemon_that_leaks_is_to_blame() -> Result<()> {
    play("daemon-leak", &[]).map(drop)
}

#[test]
fn a_backup_shows_as_page_cache_and_heap_of_its_threads() -> Result<()> {
    play("backup-io", &[]).map(drop)
}

#[test]
fn kernel_memory_is_attributed() -> Result<()> {
    play("kernel-memory", &[]).map(drop)
}

#[test]
fn a_vcpu_that_is_charged_for_overhead_is_told_from_guest_ram() -> Result<()> {
    play("vcpu-overhead", &[]).map(drop)
}

#[test]
fn threads_of_milliseconds_are_all_counted() -> Result<()> {
    play("worker-storm", &[]).map(drop)
}

#[test]
fn a_guest_within_its_budget_is_not_blamed() -> Result<()> {
    let scenario = play("guest-only", &[])?;
    assert!(scenario.pod()?["culprit"].is_null(), "{:?}", scenario.pod());
    Ok(())
}

#[test]
fn guest_ram_in_a_memfd_is_told_from_overhead() -> Result<()> {
    play("memhold", &["--memory", "memfd"]).map(drop)
}
