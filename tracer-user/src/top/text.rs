//! Names, figures and bars in a given width.

use unicode_width::UnicodeWidthChar;

use crate::units::{Bytes, SignedBytes};

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Colours.
    pub color: bool,
    /// More than ASCII.
    pub unicode: bool,
}

impl Theme {
    /// What stands for text that was left out.
    const fn ellipsis(self) -> &'static str {
        if self.unicode { "…" } else { "~" }
    }

    /// Steps of a sparkline, from least to most.
    const fn steps(self) -> [&'static str; 8] {
        if self.unicode {
            ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
        } else {
            [".", ":", "-", "=", "+", "*", "%", "#"]
        }
    }

    /// Guest RAM, overhead and headroom in a bar.
    pub(super) const fn bar(self) -> [&'static str; 3] {
        if self.unicode {
            ["█", "▓", "░"]
        } else {
            ["=", "#", "."]
        }
    }

    /// Lines of a tree: through, into, into the last one, nothing.
    pub(super) const fn branches(self) -> [&'static str; 4] {
        if self.unicode {
            ["│ ", "├─", "└─", "  "]
        } else {
            ["| ", "|-", "`-", "  "]
        }
    }
}

/// Hostile text made harmless and exactly as wide as it says: what acts on a terminal or has no width of its own
/// becomes visible, and on a terminal without Unicode so does everything else.
#[must_use]
pub fn safe(text: &str, theme: Theme) -> String {
    let mut out = String::with_capacity(text.len());
    for c in crate::escape::terminal(text).chars() {
        let shown = if theme.unicode {
            matches!(c.width(), Some(1 | 2))
        } else {
            c.is_ascii()
        };
        if shown {
            out.push(c);
        } else {
            out.push_str(&format!("\\u{{{:x}}}", u32::from(c)));
        }
    }
    out
}

/// Width on a terminal, cells, of text that is [`safe`].
#[must_use]
pub fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// Hostile text in at most `cells` cells: what does not fit is left out in the middle, since names of cgroups and
/// threads tell themselves apart at both ends.
#[must_use]
pub fn fit(text: &str, cells: usize, theme: Theme) -> String {
    let text = safe(text, theme);
    if width(&text) <= cells {
        return text;
    }
    if cells == 0 {
        return String::new();
    }
    let room = cells - 1;
    let tail_room = room / 3;
    let head = taken(text.chars(), room - tail_room);
    let tail: Vec<char> = taken(text.chars().rev(), tail_room).chars().rev().collect();
    let tail: String = tail.into_iter().collect();
    format!("{head}{}{tail}", theme.ellipsis())
}

/// Prose in at most `cells` cells: what does not fit is left out at the end.
#[must_use]
pub fn cut(text: &str, cells: usize, theme: Theme) -> String {
    let text = safe(text, theme);
    if width(&text) <= cells || cells == 0 {
        return taken(text.chars(), cells);
    }
    format!("{}{}", taken(text.chars(), cells - 1), theme.ellipsis())
}

/// As many characters as fit.
fn taken(chars: impl Iterator<Item = char>, cells: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= cells
        })
        .collect()
}

/// Text at the left or right of exactly `cells` cells.
#[must_use]
pub fn pad(text: &str, cells: usize, right: bool, theme: Theme) -> String {
    let text = fit(text, cells, theme);
    let blank = " ".repeat(cells.saturating_sub(width(&text)));
    if right {
        format!("{blank}{text}")
    } else {
        format!("{text}{blank}")
    }
}

/// A size; nothing where there is none.
#[must_use]
pub fn bytes(bytes: Option<u64>) -> String {
    bytes.map_or_else(String::new, |bytes| Bytes(bytes).to_string())
}

/// Growth with its sign; nothing for none.
#[must_use]
pub fn growth(bytes: i128) -> String {
    if bytes == 0 {
        return String::new();
    }
    let clamped = i64::try_from(bytes).unwrap_or(if bytes < 0 { i64::MIN } else { i64::MAX });
    let plus = if bytes > 0 { "+" } else { "" };
    format!("{plus}{}", SignedBytes(clamped))
}

/// Growth per second; nothing below a KiB, which is the noise of anything that lives.
#[must_use]
pub fn rate(per_second: f64) -> String {
    if per_second.abs() < 1024.0 {
        return String::new();
    }
    #[expect(clippy::cast_possible_truncation, reason = "a float saturates")]
    let bytes = per_second as i64;
    format!("{}/s", SignedBytes(bytes))
}

/// A line of blocks: the last changes, scaled to the largest growth among them. What shrinks or stays is blank.
#[must_use]
pub fn sparkline(changes: &[i64], cells: usize, theme: Theme) -> String {
    let shown = &changes[changes.len().saturating_sub(cells)..];
    let most = shown.iter().copied().max().unwrap_or(0);
    let mut line = " ".repeat(cells - shown.len());
    for change in shown {
        // Below a KiB is noise, as in a rate.
        if *change < 1024 || most <= 0 {
            line.push(' ');
            continue;
        }
        let step = (i128::from(*change) * 8 - 1) / i128::from(most);
        let step = usize::try_from(step).unwrap_or(0).min(7);
        line.push_str(theme.steps()[step]);
    }
    line
}

/// A time to come, from soon to some day.
#[must_use]
pub fn until(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Seconds as `1:05` or `2:03:09`.
#[must_use]
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNICODE: Theme = Theme {
        color: false,
        unicode: true,
    };
    const ASCII: Theme = Theme {
        color: false,
        unicode: false,
    };

    proptest! {
        #[test]
        fn hostile_text_takes_the_cells_it_is_given(text in any::<String>(), cells in 0_usize..40, unicode: bool) {
            let theme = Theme { color: false, unicode };
            let padded = pad(&text, cells, false, theme);
            prop_assert_eq!(width(&padded), cells);
            prop_assert!(padded.chars().all(|c| !c.is_control() && c.width().is_some_and(|width| width > 0)));
            prop_assert!(unicode || padded.is_ascii());
        }
    }

    #[test]
    fn names_keep_both_ends() {
        assert_eq!(fit("kubepods-burstable-pod0b9e.slice", 16, UNICODE), "kubepods-b…slice");
        assert_eq!(fit("kubepods-burstable-pod0b9e.slice", 16, ASCII), "kubepods-b~slice");
    }

    #[test]
    fn marks_without_a_width_become_visible() {
        assert_eq!(safe("e\u{301}\u{fe0f}", UNICODE), "e\\u{301}\\u{fe0f}");
        assert_eq!(safe("日本", UNICODE), "日本");
        assert_eq!(safe("日", ASCII), "\\u{65e5}");
    }

    #[test]
    fn sparklines_scale_to_their_largest_growth() {
        let mib = 1 << 20;
        assert_eq!(sparkline(&[0, mib, 4 * mib, 8 * mib, -mib], 6, UNICODE), "  ▁▄█ ");
        assert_eq!(sparkline(&[8 * mib; 9], 3, ASCII), "###");
        assert_eq!(sparkline(&[], 3, ASCII), "   ");
    }
}
