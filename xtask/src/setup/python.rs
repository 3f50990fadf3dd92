//! The readers that other projects have for what headroom exports, in a Python environment of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::step;
use super::tools::{self, Tool};
use crate::paths;
use crate::process::{capture, find};

/// The readers: HdrHistogram's, Prometheus', and the published messages of Perfetto.
const PACKAGES: [&str; 4] = [
    "hdrhistogram==0.10.8",
    "perfetto==0.59.1",
    "prometheus_client==0.26.0",
    "protobuf==7.36.2",
];

const PYTHON: [Tool; 1] = [Tool {
    programs: &["python3"],
    package: "python3-venv",
}];

/// The interpreter that has them, installed first if need be.
///
/// # Errors
/// Names what to install by hand.
pub fn ensure() -> Result<PathBuf> {
    let folder = paths::cache()?.join("python");
    let python = folder.join("bin/python");
    // Written last: an environment without it is half a one.
    let mark = folder.join("packages");
    let packages = PACKAGES.join("\n");
    let done = fs::read_to_string(&mark).is_ok_and(|had| had == packages);
    if !done || !python.exists() {
        install(&folder).context("the readers of exports come from PyPI: is there a network?")?;
        fs::write(&mark, packages).with_context(|| format!("cannot write {}", mark.display()))?;
    }
    Ok(python)
}

fn install(folder: &Path) -> Result<()> {
    tools::ensure("the look at exports", &PYTHON)?;
    step(
        "python",
        format_args!("{} into {}", PACKAGES.join(" "), folder.display()),
    );
    let python = find("python3").context("python3 is missing")?;
    capture(Command::new(python).args(["-m", "venv", "--clear"]).arg(folder))
        .context("install by hand: `apt-get install python3-venv` or your system's counterpart")?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    capture(Command::new(folder.join("bin/python")).args(pip).args(PACKAGES)).map(drop)
}
