//! A report as JSON.

use std::io::{self, Write};

use super::Report;

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
    let mut safe = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        if acts_on_terminals(character) {
            // Outside of strings JSON has none of these, and within strings this means the same.
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    safe.push('\n');
    out.write_all(safe.as_bytes())
}

/// Characters beyond those that JSON escapes anyway which a terminal obeys: DEL, C1 controls, and direction marks.
fn acts_on_terminals(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
