//! What readers of other projects make of an export: `tests/readers` holds a script for each.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::tempdir;
use xtask::{paths, setup};

/// Reads `file` with the script of this name, which prints what it read as JSON.
///
/// # Errors
/// When the reader refuses the file.
pub fn read(script: &str, file: &Path) -> Result<Vec<Value>> {
    let script = paths::workspace().join("tests/readers").join(script);
    let output = Command::new(setup::readers()?).arg(script).arg(file).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", file.display());
    serde_json::from_slice(&output.stdout).context("a reader prints JSON")
}

/// What Go's own pprof prints of a profile.
///
/// # Errors
/// When it refuses the profile.
pub fn pprof(options: &[&str], profile: &Path) -> Result<String> {
    // It keeps files of its own in the home folder.
    let home = tempdir()?;
    let output = Command::new(setup::pprof()?)
        .arg("-symbolize=none")
        .args(options)
        .arg(profile)
        .env("HOME", home.path())
        .env("PPROF_TMPDIR", home.path())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}
