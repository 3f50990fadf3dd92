//! Colours, where there are any. What they say is said in words or shapes too.

use ratatui::style::{Color, Modifier, Style};

use crate::top::text::Theme;

/// Guest RAM.
pub const GUEST: Color = Color::Blue;
/// Overhead.
pub const OVERHEAD: Color = Color::Yellow;
/// The kill, and what is close to it.
pub const DANGER: Color = Color::Red;

/// A colour, if the theme has any.
pub fn colored(color: Color, theme: Theme) -> Style {
    if theme.color {
        Style::new().fg(color)
    } else {
        Style::new()
    }
}

/// Headings.
pub const fn heading() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// The row under the cursor, and the name of what is shown.
pub const fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

/// How close a pod is to its limit.
pub fn of_headroom(headroom: Option<u64>, limit: Option<u64>, theme: Theme) -> Style {
    match (headroom, limit) {
        (Some(headroom), Some(limit)) if headroom < limit / 20 => colored(DANGER, theme),
        (Some(headroom), Some(limit)) if headroom < limit / 8 => colored(OVERHEAD, theme),
        _ => Style::new(),
    }
}
