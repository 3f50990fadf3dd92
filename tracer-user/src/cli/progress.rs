//! How far long work has come, for whoever waits at a terminal.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::escape;

/// Smaller files are read before a bar could be looked at, bytes.
const LARGE: u64 = 1 << 20;

/// How often a spinner turns.
const TURN: Duration = Duration::from_millis(200);

/// A line for work of several steps whose length is not known: the step at hand, and how long all of it takes by now.
/// It shows on a terminal only, never under `--quiet`.
#[must_use]
pub fn steps() -> ProgressBar {
    if !log::log_enabled!(log::Level::Warn) {
        return ProgressBar::hidden();
    }
    // Hidden by itself where standard error is no terminal.
    let line = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        line.set_style(style);
    }
    line.enable_steady_tick(TURN);
    line
}

/// A bar for reading files from their beginnings to their ends. It shows on a terminal only, never under `--quiet`.
#[must_use]
pub fn reading(files: &[(&Path, File)]) -> ProgressBar {
    let lengths = files
        .iter()
        .map(|(_, file)| file.metadata().map_or(0, |metadata| metadata.len()));
    let length = lengths.fold(0, u64::saturating_add);
    if length < LARGE || !log::log_enabled!(log::Level::Warn) {
        return ProgressBar::hidden();
    }
    let name = match files {
        [(path, _)] => path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned(),
        files => format!("{} recordings", files.len()),
    };
    // Hidden by itself where standard error is no terminal.
    let bar = ProgressBar::new(length).with_message(escape::terminal(&name).into_owned());
    match ProgressStyle::with_template(
        "{msg}: {binary_bytes} of {binary_total_bytes} {wide_bar} {percent}%, {eta} left",
    ) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
