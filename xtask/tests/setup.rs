//! Set-up: it costs nothing where nothing is missing, and a build without it says what to run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use xtask::paths;
use xtask::process::find;

/// CPU time of programs that ended.
fn spent() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |time: TimeVal| Duration::new(time.tv_sec().unsigned_abs(), 0) + micros(time.tv_usec());
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(micros.unsigned_abs())
}

#[test]
fn where_nothing_is_missing_it_takes_a_second_at_most() -> Result<()> {
    // The first has to fetch what the other tests of a machine have not asked for yet.
    for first in [true, false] {
        let before = spent()?;
        let run = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("setup").output()?;
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        ensure!(run.status.success() && said.contains("setup: all is there"), "{said}");
        // Not by the clock: other tests run beside this one.
        let took = spent()?.saturating_sub(before);
        ensure!(
            first || (took < Duration::from_secs(1) && said.lines().count() == 1),
            "{took:?}: {said}"
        );
    }
    Ok(())
}

/// The newest build of headroom's build script.
fn build_script() -> Result<PathBuf> {
    let mut scripts = Vec::new();
    for entry in fs::read_dir(paths::target().join("debug/build"))? {
        let entry = entry?;
        let script = entry.path().join("build-script-build");
        if entry.file_name().to_string_lossy().starts_with("headroom-") && script.is_file() {
            scripts.push((script.metadata()?.modified()?, script));
        }
    }
    Ok(scripts.into_iter().max().context("headroom was not built here")?.1)
}

#[test]
fn a_build_without_the_tools_for_ebpf_says_in_one_line_what_to_run() -> Result<()> {
    let nowhere = tempfile::tempdir()?;
    let run = Command::new(build_script()?)
        .current_dir(paths::workspace().join("tracer-user"))
        .env_clear()
        .env("RUSTC", find("rustc").context("no rustc")?)
        .env("HOME", std::env::var_os("HOME").unwrap_or_default())
        .env("PATH", "")
        .env("HEADROOM_CACHE", nowhere.path())
        .env("OUT_DIR", nowhere.path())
        .output()?;
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    let errors: Vec<&str> = said
        .lines()
        .filter_map(|line| line.strip_prefix("cargo::error="))
        .collect();
    ensure!(
        matches!(errors.as_slice(), [error] if error.ends_with("run `cargo xtask setup`")),
        "{run:?}"
    );
    ensure!(run.stderr.is_empty(), "{run:?}");
    Ok(())
}
