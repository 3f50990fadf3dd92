//! A report as JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::{Merged, Report};
use crate::escape;

/// Writes one report as one document.
///
/// # Errors
/// When `out` fails.
pub fn render(report: &Report, out: &mut impl Write) -> io::Result<()> {
    write_json(report, out)
}

/// Writes reports of several recordings as one document.
///
/// # Errors
/// When `out` fails.
pub fn render_merged(merged: &Merged, out: &mut impl Write) -> io::Result<()> {
    write_json(merged, out)
}

/// Writes findings as one document in which nothing acts on a terminal.
///
/// # Errors
/// When `out` fails.
pub fn write_json<T: Serialize + ?Sized>(findings: &T, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", escape::json(&serde_json::to_string_pretty(findings)?))
}
