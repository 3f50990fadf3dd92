//! The help.

use ratatui::text::{Line, Span};

use super::style;
use crate::top::input::HELP;
use crate::top::text::{Theme, cut, pad};

/// Cells of a line's keys.
const KEYS: usize = 15;

/// What keys do.
pub fn lines(width: usize, theme: Theme) -> Vec<Line<'static>> {
    let [guest, overhead, headroom] = theme.bar();
    let legend = format!("bars: {guest} guest RAM  {overhead} overhead  {headroom} headroom");
    let mut lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|(keys, does)| {
            Line::from(vec![
                Span::styled(pad(keys, KEYS, false, theme), style::heading()),
                Span::raw(cut(does, width.saturating_sub(KEYS), theme)),
            ])
        })
        .collect();
    // What is fitted is made of our own characters, which a theme without Unicode does not contain.
    lines.push(Line::raw(cut(&legend, width, theme)));
    lines.push(Line::raw(cut(
        "OVERHEAD: charged less given back since tracing began; /S: in the last 10 s",
        width,
        theme,
    )));
    lines
}
