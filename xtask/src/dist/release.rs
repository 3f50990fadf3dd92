//! The release build. It says nothing of the machine that it was built on.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::paths;
use crate::process::{cargo, run};
use crate::setup::rustc::Rustc;

/// Builds `headroom` with optimisations, without paths of this machine in it.
///
/// # Errors
/// When it does not build, or holds such a path all the same.
pub fn build() -> Result<PathBuf> {
    let folders = folders()?;
    let flags: Vec<String> = folders
        .iter()
        .map(|(folder, name)| format!("\"--remap-path-prefix={}={name}\"", folder.display()))
        .collect();
    // Cargo adds these to the flags of `.cargo/config.toml`.
    let config = format!("target.{}.rustflags=[{}]", paths::TARGET, flags.join(","));
    run(cargo().args(["build", "--release", "--package", "headroom", "--config", &config]))
        .context("headroom does not build")?;
    let program = paths::target().join(paths::TARGET).join("release").join("headroom");
    let data = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    for (folder, _) in &folders {
        ensure!(
            !holds(&data, folder),
            "{} has {} of this machine in it",
            program.display(),
            folder.display()
        );
    }
    Ok(program)
}

/// Folders of this machine that sources are in, and what they are called instead.
fn folders() -> Result<Vec<(PathBuf, &'static str)>> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo
        .or_else(|| Some(home?.join(".cargo")))
        .context("set HOME or CARGO_HOME")?;
    Ok(vec![
        (cargo, "/cargo"),
        (Rustc::query()?.sysroot, "/rust"),
        (paths::workspace().to_owned(), "/headroom"),
    ])
}

fn holds(data: &[u8], folder: &Path) -> bool {
    let text = folder.as_os_str().as_encoded_bytes();
    data.windows(text.len()).any(|window| window == text)
}
