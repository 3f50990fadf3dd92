//! Forms of a log in which a message takes several lines, a field on each.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::fields::{Fields, json_text};
use super::prefix::pattern;

/// What a line is to one of these forms.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing of this form.
    Elsewhere,
    /// Part of an entry that is not complete yet, or between entries.
    Part,
    /// The line ends an entry.
    Entry(Fields),
}

/// JSON with a field on each line: `journalctl -o json-pretty`, `dmesg -J`.
#[derive(Debug, Default)]
pub(super) struct Objects {
    open: Option<Fields>,
    /// The last line belonged to an entry, so brackets that close what is around it do, too.
    after: bool,
}

impl Objects {
    pub(super) fn line(&mut self, line: &str) -> Step {
        let trimmed = line.trim();
        if matches!(trimmed, "{" | "},{") {
            self.after = true;
            return match self.open.replace(Fields::default()) {
                Some(entry) if trimmed != "{" => Step::Entry(entry),
                _ => Step::Part,
            };
        }
        if matches!(trimmed, "}" | "},") && self.open.is_some() {
            return self.open.take().map_or(Step::Part, Step::Entry);
        }
        if self.after && matches!(trimmed, "}" | "]") {
            return Step::Part;
        }
        match self.open.as_mut().map(|entry| field(entry, trimmed)) {
            Some(true) => Step::Part,
            Some(false) => {
                // It was a brace of something else.
                *self = Self::default();
                Step::Elsewhere
            }
            None => {
                self.after = false;
                Step::Elsewhere
            }
        }
    }
}

/// Takes `"NAME" : VALUE,`; false where the line is none.
fn field(entry: &mut Fields, line: &str) -> bool {
    let Some((name, value)) = line
        .strip_prefix('"')
        .and_then(|rest| rest.split_once('"'))
        .and_then(|(name, rest)| Some((name, rest.trim_start().strip_prefix(':')?.trim())))
    else {
        return false;
    };
    let value = value.strip_suffix(',').unwrap_or(value);
    if value == "[" {
        // `"dmesg": [`: the entries follow.
        return true;
    }
    let Ok(value) = serde_json::from_str::<Value>(value) else {
        return false;
    };
    match name {
        // util-linux: sys-utils/dmesg.c (2.38)
        "msg" => entry.message = json_text(&value),
        "time" => entry.monotonic_us = value.as_f64().and_then(seconds_to_us),
        name => {
            if let Some(value) = json_text(&value) {
                entry.set(name, &value);
            }
        }
    }
    true
}

/// Whole microseconds; `None` for what no clock shows.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the range is checked before"
)]
fn seconds_to_us(seconds: f64) -> Option<u64> {
    (0.0..1e12).contains(&seconds).then(|| (seconds * 1e6).round() as u64)
}

/// `journalctl -o verbose`: a line with the time and the cursor, then a field on each line, indented.
#[derive(Debug, Default)]
pub(super) struct Verbose {
    open: Option<Fields>,
    /// The last field was the message, which may go on.
    in_message: bool,
}

/// systemd: src/shared/logs-show.c output_verbose (252)
static HEAD: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"^[A-Z][a-z]{2} \d{4}-\d\d-\d\d [\d:.]{8,18} \S{1,8} \[s=[0-9a-f]+;i=[0-9a-f]+(?:;[^\]]*)?\]$")
});
/// How far a field is indented, and how far what continues it.
const FIELD: &str = "    ";
const CONTINUED: &str = "            ";
/// Longest message that is put together from several lines.
const MAX_MESSAGE: usize = super::frame::MAX_LINE;

impl Verbose {
    pub(super) fn line(&mut self, line: &str) -> Step {
        if HEAD.is_match(line) {
            self.in_message = false;
            return self.open.replace(Fields::default()).map_or(Step::Part, Step::Entry);
        }
        let Some(entry) = &mut self.open else {
            return Step::Elsewhere;
        };
        if self.in_message
            && let Some(more) = line.strip_prefix(CONTINUED)
            && let Some(message) = &mut entry.message
        {
            if message.len() + more.len() < MAX_MESSAGE {
                message.push('\n');
                message.push_str(more);
            }
            return Step::Part;
        }
        let Some((name, value)) = line.strip_prefix(FIELD).and_then(|field| field.split_once('=')) else {
            self.in_message = false;
            return Step::Elsewhere;
        };
        self.in_message = name == "MESSAGE";
        entry.set(name, value);
        Step::Part
    }

    /// The entry that the log ended in.
    pub(super) fn finish(&mut self) -> Option<Fields> {
        self.open.take()
    }
}
