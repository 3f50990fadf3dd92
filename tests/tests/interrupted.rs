//! Recordings that do not come to their end: the recorder is killed, the disk is full, the target is gone, the file
//! is cut or damaged. What was seen stays readable.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use headroom::recording::State;
use headroom_tests::recording::{charge_sums, events, footer, report};
use headroom_tests::{Memcg, Recorder, Run, SmallDisk, Worker};
use nix::sys::signal::Signal;

const STORM: &str = env!("CARGO_BIN_EXE_storm");
/// A killed recorder may take this much with it, and its last tick.
const LAST_SECOND_NS: u64 = 1_200_000_000;

#[test]
fn a_killed_recorder_leaves_everything_up_to_the_last_second() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let mut worker = Worker::start(STORM, &group, "grow 40")?;
    let mut recorder = Recorder::start(&group.target(), folder.path().join("killed.jsonl.zst"), &[])?;
    worker.go()?;
    let mut steps = vec![worker.numbers()?];
    let begun = steps[0].0;
    while steps[steps.len() - 1].0 < begun + 4_500_000_000 {
        steps.push(worker.numbers()?);
    }
    recorder.signal(Signal::SIGKILL)?;
    ensure!(recorder.wait()?.code().is_none(), "it was to be killed");
    let killed_ns = headroom::probe::boot_ns();

    let (events, state) = events(&recorder.file)?;
    ensure!(state == State::Incomplete, "the recording is {state:?}");
    let last = events.iter().map(|event| event.t).max().context("no events")?;
    ensure!(
        last + LAST_SECOND_NS >= killed_ns,
        "the last {} ms are missing",
        (killed_ns - last) / 1_000_000
    );
    let id = group.id()?;
    let recorded: u64 = charge_sums(&events)
        .iter()
        .filter(|((memcg, kind, region), _)| *memcg == id && *kind == "anon" && *region != "unplaced")
        .map(|(_, (charged, _))| charged)
        .sum();
    let safe = steps.iter().rev().find(|(t, _)| t + LAST_SECOND_NS < killed_ns);
    let (_, held) = safe.context("it was killed too early")?;
    ensure!(
        recorded >= *held,
        "{recorded} B recorded, {held} B allocated before the last second"
    );

    let report = report(&recorder.file)?;
    ensure!(report["recording"]["state"] == "incomplete", "{}", report["recording"]);
    let growth = report["pods"][0]["overhead"]["growth"].as_i64().context("no growth")?;
    ensure!(growth > 0, "{}", report["pods"][0]);
    let text = Run::headroom([Path::new("report"), &recorder.file])?;
    ensure!(
        text.status == Some(0) && text.last_line().contains("incomplete"),
        "{text:?}"
    );
    Ok(())
}

#[test]
fn a_target_that_vanishes_ends_the_recording() -> Result<()> {
    let group = Memcg::create()?;
    let folder = tempfile::tempdir()?;
    let mut worker = Worker::start(STORM, &group, "grow 40")?;
    let mut recorder = Recorder::start(&group.target(), folder.path().join("gone.jsonl.zst"), &[])?;
    worker.go()?;
    for _ in 0..20 {
        worker.numbers()?;
    }
    worker.end()?;
    group.remove()?;
    ensure!(recorder.wait()?.success(), "{:?}", recorder.said);
    let (events, state) = events(&recorder.file)?;
    ensure!(state == State::Complete, "the recording is {state:?}");
    let footer = footer(&events)?;
    ensure!(footer.ended == "target gone", "{footer:?}");
    let charged: u64 = footer
        .totals
        .iter()
        .filter(|total| total.kind.as_str() == "anon")
        .map(|total| total.charged)
        .sum();
    ensure!(charged >= 20 * (2 << 20), "{charged} B of at least 40 MiB: {footer:?}");
    Ok(())
}

#[test]
fn a_full_disk_ends_the_recording_with_its_name() -> Result<()> {
    let group = Memcg::create()?;
    let disk = SmallDisk::mount("16k")?;
    let mut worker = Worker::start(STORM, &group, "storm 2 30")?;
    let file = disk.path().join("full.jsonl.zst");
    let mut recorder = Recorder::start(&group.target(), &file, &["--granularity", "4KiB"])?;
    worker.go()?;
    let status = recorder.wait()?;
    worker.end()?;
    ensure!(status.code() == Some(1), "{status}: {:?}", recorder.said);
    let last = recorder.said.last().context("it said nothing")?;
    ensure!(
        last.contains(&file.display().to_string()) && last.contains("no space left"),
        "{last}"
    );
    let (_, state) = events(&file)?;
    ensure!(state == State::Incomplete, "the recording is {state:?}");
    report(&file).map(drop)
}

/// A recording of a few seconds, and so of several frames.
fn recorded(folder: &Path) -> Result<PathBuf> {
    let group = Memcg::create()?;
    let mut worker = Worker::start(STORM, &group, "grow 40")?;
    let mut recorder = Recorder::start(&group.target(), folder.join("whole.jsonl.zst"), &[])?;
    worker.go()?;
    sleep(Duration::from_millis(2500));
    recorder.interrupt()?;
    Ok(recorder.file.clone())
}

/// Each run ends by itself, with a report or with one line, whatever is cut or flipped.
#[test]
fn cut_and_flipped_recordings_are_reported_as_what_they_are() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let whole = recorded(folder.path())?;
    let bytes = fs::read(&whole)?;
    ensure!(report(&whole)?["recording"]["state"] == "complete");
    let file = folder.path().join("hurt.jsonl.zst");
    let name = file.display().to_string();
    let mut cut_reports = 0;
    for part in 0..16 {
        fs::write(&file, &bytes[..bytes.len() * part / 16])?;
        let run = Run::headroom(["report", "--json", &name])?;
        match run.status {
            // Nothing can be said without the header.
            Some(1) => run.expect_one_line(1, &[&name])?,
            _ => {
                run.expect_one_line(0, &[&name, "incomplete"])?;
                let report: serde_json::Value = serde_json::from_str(&run.stdout)?;
                ensure!(report["recording"]["state"] == "incomplete", "{report}");
                cut_reports += 1;
            }
        }
    }
    ensure!(cut_reports >= 8, "only {cut_reports} cut recordings were read");
    let mut damaged_reports = 0;
    for part in 1..16 {
        let mut flipped = bytes.clone();
        flipped[bytes.len() * part / 16] ^= 0x10;
        fs::write(&file, flipped)?;
        let run = Run::headroom(["report", "--json", &name])?;
        run.expect_one_line(5, &[&name, "damaged"])?;
        if !run.stdout.is_empty() {
            let report: serde_json::Value = serde_json::from_str(&run.stdout)?;
            ensure!(report["recording"]["state"] == "damaged", "{report}");
            damaged_reports += 1;
        }
    }
    ensure!(
        damaged_reports >= 8,
        "only {damaged_reports} damaged recordings were read"
    );
    Ok(())
}
