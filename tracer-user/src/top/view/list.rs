//! The rows, in columns.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::style;
use crate::top::items::{Item, What};
use crate::top::rows::{Row, Shown};
use crate::top::snapshot::{PodRow, Snapshot};
use crate::top::text::{Theme, bytes, cut, fit, growth, pad, rate, sparkline, until, width};
use crate::top::ui::{Tab, Ui};

/// Cells of figures: `1023.9 MiB`, `+1023.9 MiB`, `1023.9 MiB/s`.
const SIZE: usize = 10;
const GROWTH: usize = 11;
const RATE: usize = 12;
/// From here on there is room for more columns.
const WIDE: usize = 100;
const WIDER: usize = 130;

/// Widths of the columns of a list of pods, cells.
struct PodColumns {
    name: usize,
    bar: usize,
    culprit: usize,
    spark: usize,
}

const ETA: usize = 8;
const PERCENT: usize = 4;

impl PodColumns {
    fn of(cells: usize) -> Self {
        let (bar, culprit, spark) = match cells {
            ..WIDE => (11, 10, 0),
            WIDE..WIDER => (14, 12, 10),
            _ => (24, 18, 16),
        };
        let spark_cells = if spark > 0 { spark + 1 } else { 0 };
        let fixed = bar + 1 + PERCENT + 1 + SIZE + 1 + RATE + 1 + ETA + 1 + culprit + 1 + spark_cells;
        Self {
            name: cells.saturating_sub(fixed).max(8),
            bar,
            culprit,
            spark,
        }
    }
}

/// Widths of the columns of what is in a pod, cells.
struct ItemColumns {
    name: usize,
    spark: usize,
    role: usize,
    guest: bool,
}

impl ItemColumns {
    fn of(cells: usize) -> Self {
        let (spark, role, guest) = if cells < WIDE { (6, 10, false) } else { (16, 18, true) };
        let guest_cells = if guest { GROWTH + 1 } else { 0 };
        let fixed = SIZE + 1 + GROWTH + 1 + RATE + 1 + spark + 1 + role + 1 + guest_cells;
        Self {
            name: cells.saturating_sub(fixed).max(8),
            spark,
            role,
            guest,
        }
    }
}

/// Names of the columns.
pub fn heading(snapshot: &Snapshot, ui: &Ui, cells: usize, theme: Theme) -> Line<'static> {
    let left = |text: &str, cells: usize| format!("{} ", pad(text, cells, false, theme));
    let right = |text: &str, cells: usize| format!("{} ", pad(text, cells, true, theme));
    let text = if snapshot.detail(ui.open()).is_some() {
        let columns = ItemColumns::of(cells);
        let name = match ui.tab {
            Tab::Tree => "CGROUP, PROCESS, THREAD",
            Tab::Roles => "ROLE",
            Tab::Threads => "THREAD",
        };
        let usage = if ui.tab == Tab::Tree { "USAGE" } else { "" };
        let mut text = left(name, columns.name) + &right(usage, SIZE) + &right("OVERHEAD", GROWTH) + &right("/S", RATE);
        if columns.guest {
            text += &right("GUEST RAM", GROWTH);
        }
        text + &left("", columns.spark) + &left("ROLE", columns.role)
    } else {
        let columns = PodColumns::of(cells);
        let mut text = left("POD", columns.name)
            + &left("USAGE", columns.bar)
            + &right("", PERCENT)
            + &right("HEADROOM", SIZE)
            + &right("OVERHEAD/S", RATE);
        if columns.spark > 0 {
            text += &left("", columns.spark);
        }
        text + &right("KILL IN", ETA) + &left("GREW MOST", columns.culprit)
    };
    Line::styled(cut(text.trim_end(), cells, theme), style::heading())
}

/// The rows in sight.
pub fn lines(snapshot: &Snapshot, rows: &[Row<'_>], ui: &Ui, cells: usize, theme: Theme) -> Vec<Line<'static>> {
    let shown = rows.iter().enumerate().skip(ui.offset).take(ui.page);
    shown
        .map(|(index, row)| {
            let line = match &row.shown {
                Shown::Pod(pod) => pod_line(snapshot, pod, cells, theme),
                Shown::Item { item, lead, folded } => item_line(item, lead, *folded, cells, theme),
            };
            if index == ui.index() {
                line.patch_style(style::reversed())
            } else {
                line
            }
        })
        .collect()
}

fn pod_line(snapshot: &Snapshot, pod: &PodRow, cells: usize, theme: Theme) -> Line<'static> {
    let columns = PodColumns::of(cells);
    let near = style::of_headroom(pod.headroom(), pod.limit, theme);
    let mut spans = vec![Span::raw(format!("{} ", pad(&pod.name, columns.name, false, theme)))];
    spans.extend(bar(pod, columns.bar, theme));
    let headroom = if pod.limit.is_some() {
        bytes(pod.headroom())
    } else {
        "no limit".to_owned()
    };
    spans.push(Span::raw(format!(" {} ", pad(&percent(pod), PERCENT, true, theme))));
    spans.push(Span::styled(pad(&headroom, SIZE, true, theme), near));
    spans.push(Span::raw(format!(" {} ", pad(&rate(pod.rate), RATE, true, theme))));
    if columns.spark > 0 {
        spans.push(Span::raw(format!("{} ", sparkline(&pod.changes, columns.spark, theme))));
    }
    let alarm = if pod.killed.is_some() {
        style::colored(style::DANGER, theme)
    } else {
        near
    };
    spans.push(Span::styled(pad(&eta(snapshot, pod), ETA, true, theme), alarm));
    let culprit = pod.culprit.as_deref().unwrap_or("");
    spans.push(Span::raw(format!(" {}", pad(culprit, columns.culprit, false, theme))));
    Line::from(spans)
}

fn percent(pod: &PodRow) -> String {
    match (pod.usage, pod.limit) {
        (Some(usage), Some(limit)) if limit > 0 => {
            format!("{}%", u128::from(usage) * 100 / u128::from(limit))
        }
        _ => String::new(),
    }
}

/// When the kernel will kill, or that it did.
pub fn eta(snapshot: &Snapshot, pod: &PodRow) -> String {
    if pod.killed.is_some() {
        return "killed".to_owned();
    }
    let expected = pod.expected.as_ref();
    expected.map_or_else(String::new, |expected| until(expected.at.saturating_sub(snapshot.t)))
}

/// Guest RAM, overhead and headroom, in parts of the limit.
pub fn bar(pod: &PodRow, cells: usize, theme: Theme) -> Vec<Span<'static>> {
    let (Some(usage), Some(limit)) = (pod.usage, pod.limit.filter(|limit| *limit > 0)) else {
        return vec![Span::raw(" ".repeat(cells))];
    };
    let part =
        |bytes: u64| usize::try_from(u128::from(bytes.min(limit)) * cells as u128 / u128::from(limit)).unwrap_or(0);
    let guest = part(pod.guest_resident.unwrap_or(0).min(usage));
    let used = part(usage);
    let [guest_mark, overhead_mark, headroom_mark] = theme.bar();
    vec![
        Span::styled(guest_mark.repeat(guest), style::colored(style::GUEST, theme)),
        Span::styled(
            overhead_mark.repeat(used - guest),
            style::colored(style::OVERHEAD, theme),
        ),
        Span::raw(headroom_mark.repeat(cells - used)),
    ]
}

fn item_line(item: &Item, lead: &str, folded: Option<usize>, cells: usize, theme: Theme) -> Line<'static> {
    let columns = ItemColumns::of(cells);
    let lead: String = lead.chars().take(columns.name / 2).collect();
    let suffix = folded.map_or_else(String::new, |count| format!(" [+{count}]"));
    // What has no usage lends that column to its name.
    let usage = bytes(item.usage);
    let name_cells = if usage.is_empty() {
        columns.name + SIZE + 1
    } else {
        columns.name
    };
    let room = name_cells.saturating_sub(width(&lead) + width(&suffix));
    let name = format!("{}{suffix}", fit(&item.name, room, theme));
    let blank = name_cells.saturating_sub(width(&lead) + width(&name));
    let right = |text: &str, cells: usize| format!("{} ", pad(text, cells, true, theme));
    let growing = if item.growth > 0 && item.rate >= 1024.0 {
        style::colored(style::OVERHEAD, theme)
    } else {
        Style::new()
    };
    let named = if item.what == What::Cgroup {
        style::heading()
    } else {
        Style::new()
    };
    if item.what == What::Above {
        // What else is in there belongs to others.
        return Line::from(vec![Span::raw(lead), Span::raw(name)]);
    }
    let mut figures = right(&growth(item.growth), GROWTH) + &right(&rate(item.rate), RATE);
    if columns.guest {
        figures += &right(&growth(item.guest), GROWTH);
    }
    Line::from(vec![
        Span::raw(lead),
        Span::styled(name, named),
        Span::raw(" ".repeat(blank + 1)),
        Span::raw(if usage.is_empty() { usage } else { right(&usage, SIZE) }),
        Span::styled(figures, growing),
        Span::styled(
            format!(
                "{} ",
                sparkline(&item.track.changes(columns.spark), columns.spark, theme)
            ),
            growing,
        ),
        Span::raw(pad(item.role.as_deref().unwrap_or(""), columns.role, false, theme)),
    ])
}
