//! What stands in cells: names, sizes, times, bars.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::escape;
use crate::report::verdict::duration;
use crate::units::{Bytes, SignedBytes};

/// A name from a pod, a log or a file system, with everything that acts made visible.
pub(super) fn name(text: impl AsRef<str>) -> String {
    escape::terminal(text.as_ref()).into_owned()
}

/// Bytes as shown, and as sorted by.
pub(super) struct Size {
    pub bytes: i64,
    pub text: String,
}

impl Size {
    pub(super) fn signed(bytes: i64) -> Self {
        Self {
            bytes,
            text: SignedBytes(bytes).to_string(),
        }
    }

    pub(super) fn of(bytes: u64) -> Self {
        Self {
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            text: Bytes(bytes).to_string(),
        }
    }

    /// What is not known sorts below everything.
    pub(super) fn or_none(bytes: Option<u64>) -> Self {
        bytes.map_or_else(
            || Self {
                bytes: -1,
                text: "–".to_owned(),
            },
            Self::of,
        )
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn unix_ms(rfc3339: &str) -> Option<i64> {
    rfc3339.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// `2026-01-31 22:41:07 to 22:43:07 UTC, 120 s`.
pub(super) fn stretch(start: &str, end: &str) -> String {
    let (Ok(from), Ok(to)) = (start.parse::<Timestamp>(), end.parse::<Timestamp>()) else {
        return format!("{} to {}", name(start), name(end));
    };
    let same_day = from.strftime("%F").to_string() == to.strftime("%F").to_string();
    let until = to.strftime(if same_day { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" });
    format!(
        "{} to {until} UTC, {}",
        from.strftime("%Y-%m-%d %H:%M:%S"),
        duration(to.duration_since(from).as_secs_f64())
    )
}

/// A stretch of a bar, in thousandths of it.
pub(super) struct Part {
    pub x: u64,
    pub width: u64,
    pub kind: &'static str,
}

/// The kinds that grew, one after another, where all of the bar is `whole` bytes.
pub(super) fn bar(kinds: &BTreeMap<&'static str, i64>, whole: i64) -> Vec<Part> {
    let mut grown: Vec<(&'static str, u64)> = kinds
        .iter()
        .filter_map(|(kind, bytes)| Some((*kind, u64::try_from(*bytes).ok()?)))
        .collect();
    grown.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut x = 0;
    let mut parts = Vec::new();
    for (kind, bytes) in grown {
        let width = thousandths(bytes, u64::try_from(whole).unwrap_or(0)).min(1000 - x);
        if width > 0 {
            parts.push(Part { x, width, kind });
            x += width;
        }
    }
    parts
}

/// `part` of `whole` in thousandths, rounded, at most all of it.
pub(super) fn thousandths(part: u64, whole: u64) -> u64 {
    let whole = u128::from(whole.max(1));
    let rounded = (u128::from(part) * 1000 + whole / 2) / whole;
    u64::try_from(rounded).unwrap_or(1000).min(1000)
}
