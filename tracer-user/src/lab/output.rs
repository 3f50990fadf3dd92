//! What the lab prints: its own truth, and how the report compares.

use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::compare::Check;
use super::foreseen::Foreseen;
use super::run::Played;
use crate::units::Bytes;

/// Everything about a run, for other programs.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    /// `headroom.lab/1`
    pub schema: &'static str,
    /// Which scenario.
    pub scenario: String,
    /// What really happened.
    pub truth: &'a Played,
    /// What the tracer reported; absent when it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<&'a Value>,
    /// How early and how exactly its end was foreseen; absent when nothing was traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreseen: Option<&'a Foreseen>,
    /// The comparison.
    pub checks: &'a [Check],
    /// Every check passed.
    pub ok: bool,
}

impl Document<'_> {
    /// Name and version of this document.
    pub const SCHEMA: &'static str = "headroom.lab/1";
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

/// Prints what the actors allocated.
///
/// # Errors
/// What writing says.
pub fn truth(out: &mut impl Write, played: &Played) -> io::Result<()> {
    writeln!(
        out,
        "limit {}, guest RAM {}, killed: {}",
        Bytes(played.limit),
        Bytes(played.guest_ram),
        played.killed_words()
    )?;
    let mut rows = table(&["process", "role", "kind", "region", "allocated"]);
    for entry in &played.allocated {
        let least = if entry.exact { "" } else { "at least " };
        rows.add_row([
            entry.key.process.clone(),
            entry.key.role.to_string(),
            entry.key.kind.clone(),
            entry.key.region.clone(),
            format!("{least}{}", Bytes(entry.bytes)),
        ]);
    }
    writeln!(out, "{}", rows.trim_fmt())
}

/// Prints the comparison.
///
/// # Errors
/// What writing says.
pub fn checks(out: &mut impl Write, checks: &[Check]) -> io::Result<()> {
    let mut rows = table(&["compared with the truth", "expected", "reported", ""]);
    for check in checks {
        rows.add_row([
            check.name.as_str(),
            check.expected.as_str(),
            check.got.as_str(),
            if check.ok { "ok" } else { "DIFFERS" },
        ]);
    }
    writeln!(out, "{}", rows.trim_fmt())
}
