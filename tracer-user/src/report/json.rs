//! A report as JSON.

use std::io::{self, Write};

use super::Report;
use crate::escape;

/// Writes one report as one document.
///
/// # Errors
/// When `out` fails.
pub fn render(report: &Report, out: &mut impl Write) -> io::Result<()> {
    write(&serde_json::to_string_pretty(report)?, out)
}

/// Writes reports of several recordings as one array.
///
/// # Errors
/// When `out` fails.
pub fn render_all(reports: &[Report], out: &mut impl Write) -> io::Result<()> {
    write(&serde_json::to_string_pretty(reports)?, out)
}

fn write(json: &str, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", escape::json(json))
}
