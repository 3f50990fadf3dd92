//! More charges than the ring buffer can carry: bytes may be late, never lost.

use std::env;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headroom::recording::State;
use headroom_tests::recording::{charge_sums, events, footer, footer_sums};
use headroom_tests::{Memcg, Recorder, Worker};
use xtask::vm::Vm;

const STORM: &str = env!("CARGO_BIN_EXE_storm");
/// Tells the test in the VM where the program is there: the folder of the build is hidden by the VM's own /tmp.
const ELSEWHERE: &str = "HEADROOM_TEST_STORM";
const PAGE: u64 = 4096;
/// What a CPU may hold charged in advance. kernel: mm/memcontrol.c MEMCG_CHARGE_BATCH
const BATCH: u64 = 64 * PAGE;

/// Storms with a ring of one page and compares records, maps and the kernel's own count. Returns pages per second.
fn storm() -> Result<u64> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let mut worker = Worker::start(env::var_os(ELSEWHERE).unwrap_or(STORM.into()), &group, "storm 8 4")?;
    let mut recorder = Recorder::start(
        &group.target(),
        folder.path().join("storm.jsonl.zst"),
        &["--ring", "4KiB", "--granularity", "4KiB"],
    )?;
    let before = group.anon()?;
    worker.go()?;
    let (pages, nanos) = worker.numbers()?;
    // memory.stat is brought up to date every two seconds. kernel: mm/memcontrol.c FLUSH_TIME
    sleep(Duration::from_millis(2500));
    let growth = group.anon()?.saturating_sub(before);
    recorder.interrupt()?;

    let (events, state) = events(&recorder.file)?;
    ensure!(state == State::Complete, "the recording is {state:?}");
    let footer = footer(&events)?;
    let records = charge_sums(&events);
    ensure!(
        records == footer_sums(footer),
        "records and maps differ:\n{records:?}\n{:?}",
        footer.totals
    );
    ensure!(footer.loss.lost_bytes == 0, "lost: {:?}", footer.loss);
    ensure!(footer.loss.ring_full > 0, "the ring was never full: {:?}", footer.loss);
    ensure!(footer.loss.max_delay_ns > 0, "no delay was reported: {:?}", footer.loss);

    let id = group.id()?;
    let anon = records
        .iter()
        .filter(|((memcg, kind, _), _)| *memcg == id && *kind == "anon");
    // Between charge and placement a page is unplaced, whatever its kind: not counted twice here.
    let (charged, uncharged) = anon
        .filter(|((_, _, region), _)| *region != "unplaced")
        .fold((0, 0), |sum, (_, (charged, uncharged))| {
            (sum.0 + charged, sum.1 + uncharged)
        });
    let cpus = std::thread::available_parallelism()?.get() as u64;
    let held = charged
        .checked_sub(uncharged)
        .context("more was given back than charged")?;
    ensure!(
        held.abs_diff(growth) <= BATCH * cpus,
        "{held} B by the records, {growth} B by memory.stat"
    );
    let touched = pages * PAGE;
    ensure!(
        charged.abs_diff(touched) <= BATCH * cpus + touched / 1000,
        "{charged} B charged, {touched} B touched"
    );
    let rate = u64::try_from(u128::from(pages) * 1_000_000_000 / u128::from(nanos.max(1)))?;
    println!("{rate} page charges per second, {:?}", footer.loss);
    Ok(rate)
}

#[test]
fn a_storm_loses_nothing() -> Result<()> {
    let rate = storm()?;
    ensure!(rate >= 200_000, "only {rate} page charges per second: this is no storm");
    Ok(())
}

/// An emulated machine is slower; what it counts is as exact.
#[test]
#[ignore = "runs in the VM of the test below"]
fn a_storm_in_the_vm() -> Result<()> {
    storm().map(drop)
}

#[test]
fn a_storm_counted_by_function_probes_loses_nothing() -> Result<()> {
    let test = env::current_exe()?;
    let run = Vm::new("storm")
        .kernel("6.12")
        .file(test, "/bin/test")
        .file(STORM, "/bin/storm")
        .env(ELSEWHERE, "/bin/storm")
        .env("HEADROOM_BINARIES", "/bin")
        .command(["/bin/test", "--exact", "a_storm_in_the_vm", "--ignored", "--nocapture"])
        .boot()?;
    run.expect_success()?;
    let said = run.commands[0].stdout();
    ensure!(said.contains("page charges per second"), "{said}");
    println!("{said}");
    Ok(())
}
