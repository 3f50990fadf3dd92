//! Recordings of hours of a busy pod: how large they are, and what reading them takes.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use headroom_tests::headroom;
use headroom_tests::simulate::{self, Truth};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

const MIB: u64 = 1 << 20;
/// What six hours may take on disk.
const ON_DISK: u64 = 50 * MIB;
/// What a report of them may hold in memory.
const FOR_REPORT: u64 = 200 * MIB;
/// What an export may hold, however long the recording.
const FOR_EXPORT: u64 = 64 * MIB;

fn recorded(folder: &TempDir, hours: u64) -> Result<(PathBuf, Truth)> {
    let path = folder.path().join(format!("{hours}.jsonl.zst"));
    let truth = simulate::write(&path, hours)?;
    Ok((path, truth))
}

/// Runs `headroom` to its end; its output, and the most that it held in memory, bytes.
fn measured(arguments: &[&str]) -> Result<(Vec<u8>, u64)> {
    let mut child = headroom()?
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut output = Vec::new();
    child
        .stdout
        .take()
        .context("standard output is a pipe")?
        .read_to_end(&mut output)?;
    let pid = i32::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: a structure of integers, for which zeros are values.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals; the child is ours, and nobody else waits for it.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    ensure!(waited == pid && status == 0, "{arguments:?} ended with {status:#x}");
    Ok((output, u64::try_from(usage.ru_maxrss)? * 1024))
}

/// Exports with a point a minute, which leaves what is held as it is.
fn export(path: &Path, format: &str) -> Result<()> {
    let out = path.with_extension(format).display().to_string();
    let path = path.display().to_string();
    let (_, held) = measured(&["export", &path, "--format", format, "--interval", "1m", "-o", &out])?;
    ensure!(held < FOR_EXPORT, "{format} held {} MiB", held / MIB);
    ensure!(fs::metadata(&out)?.len() > 10_000, "hardly anything in {out}");
    Ok(())
}

#[test]
fn six_hours_stay_small_on_disk_and_in_memory() -> Result<()> {
    let folder = tempdir()?;
    let (path, truth) = recorded(&folder, 6)?;
    let size = fs::metadata(&path)?.len();
    ensure!(
        truth.events > 5_000_000 && size < ON_DISK,
        "{} events in {} MiB",
        truth.events,
        size / MIB
    );

    let file = path.display().to_string();
    let (json, held) = thread::scope(|scope| {
        let largest = scope.spawn(|| export(&path, "openmetrics"));
        let report = measured(&["report", &file, "--json"])?;
        match largest.join() {
            Ok(exported) => exported.map(|()| report),
            Err(_) => anyhow::bail!("the export panicked"),
        }
    })?;
    ensure!(held < FOR_REPORT, "a report held {} MiB", held / MIB);
    let report: Value = serde_json::from_slice(&json)?;
    let pod = &report["pods"][0];
    let culprit = &pod["culprit"];
    ensure!(culprit["process"] == "virtqemud", "{culprit}");
    let grown = culprit["bytes"].as_u64().context("growth")?;
    ensure!(grown.abs_diff(truth.leaked) < MIB, "{grown} is not {}", truth.leaked);
    ensure!(
        pod["guest_growth"].as_u64() == Some(truth.guest),
        "{}",
        pod["guest_growth"]
    );
    ensure!(report["loss"]["disagreements"] == 0, "{}", report["loss"]);
    Ok(())
}

#[test]
fn an_hour_is_exported_in_every_form_in_little_memory() -> Result<()> {
    let folder = tempdir()?;
    let (path, truth) = recorded(&folder, 1)?;
    for format in ["csv", "hlog", "jsonl", "perfetto"] {
        export(&path, format)?;
    }
    // Charges of a thread between two samples are one line.
    let lines = fs::read_to_string(path.with_extension("jsonl"))?.lines().count();
    let unpacked = Command::new("zstd").arg("-dcq").arg(&path).output()?.stdout;
    let expected = unpacked.split(|byte| *byte == b'\n').count() - 1;
    ensure!(lines == expected, "{lines} lines of {expected}");
    ensure!(
        lines > 100_000 && (lines as u64) < truth.events,
        "{lines} of {}",
        truth.events
    );
    Ok(())
}

#[test]
fn who_goes_away_while_an_export_is_read_is_no_error() -> Result<()> {
    let folder = tempdir()?;
    let (path, _) = recorded(&folder, 1)?;
    let mut child = headroom()?
        .args(["export", &path.display().to_string(), "--format", "jsonl", "-o", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("standard output is a pipe")?).read_line(&mut line)?;
    ensure!(line.contains("\"type\":\"header\""), "{line}");
    let ended = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success() && said.is_empty(), "{}: {said}", ended.status);
    Ok(())
}
