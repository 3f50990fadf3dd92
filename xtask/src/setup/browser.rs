//! A browser without a screen, which reports are looked at in.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::tools::{self, Tool};
use crate::process::find;

/// Chromium under the names of Debian's packages, of other systems, and of Google's build. The first is the smallest.
const PROGRAMS: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
];

/// Installs a browser where there is none.
///
/// # Errors
/// Names the package to install by hand.
pub fn ensure() -> Result<()> {
    tools::ensure(
        "the look at HTML reports",
        &[Tool {
            programs: &PROGRAMS,
            package: "chromium-headless-shell",
        }],
    )
}

/// The browser.
///
/// # Errors
/// When it is not installed.
pub fn program() -> Result<PathBuf> {
    PROGRAMS
        .iter()
        .find_map(|program| find(program))
        .context("there is no Chromium: run `cargo xtask setup`")
}
