//! What readers of other projects make of an export: `tests/readers` holds a script for each.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
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
