//! The first lines and the last one: where, when, how, and what keys do.

use ratatui::text::{Line, Span};

use super::style;
use crate::node::OwnUsage;
use crate::top::snapshot::Snapshot;
use crate::top::text::{Theme, clock, cut, fit, width};
use crate::top::ui::{Sort, Ui};
use crate::units::Bytes;

/// How what is shown comes about.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// What is shown stands still.
    pub paused: bool,
    /// What this program itself takes, where it traces.
    pub own: Option<OwnUsage>,
    /// A recording, where one is played.
    pub playing: Option<Playing>,
}

/// A recording that is played.
#[derive(Clone, Debug, Default)]
pub struct Playing {
    /// Start and end, CLOCK_BOOTTIME nanoseconds.
    pub span: (u64, u64),
    /// Times of kills.
    pub kills: Vec<u64>,
    /// Seconds of the recording per second.
    pub speed: u32,
    /// On the way to another time: how much of it is done, percent.
    pub seeking: Option<u8>,
    /// It has no end, or it is damaged.
    pub state: Option<&'static str>,
}

/// The first line, and the timeline of a recording.
pub fn lines(snapshot: &Snapshot, status: &Status, cells: usize, theme: Theme) -> Vec<Line<'static>> {
    let time = utc(snapshot.boot_unix_ns, snapshot.t);
    let left = cut(
        &format!("headroom top  {}  {time}", fit(&snapshot.host, 30, theme)),
        cells,
        theme,
    );
    let right = right(snapshot, status);
    let gap = cells.saturating_sub(width(&left) + width(&right));
    let mut spans = vec![Span::styled(left, style::heading())];
    if gap > 0 {
        let right = if status.paused {
            Span::styled(right, style::reversed())
        } else {
            Span::raw(right)
        };
        spans.extend([Span::raw(" ".repeat(gap)), right]);
    }
    let mut lines = vec![Line::from(spans)];
    if let Some(playing) = &status.playing {
        lines.push(Line::raw(timeline(playing, snapshot.t, cells, theme)));
    }
    lines
}

fn right(snapshot: &Snapshot, status: &Status) -> String {
    let mut words = Vec::new();
    if snapshot.loss.lost_bytes > 0 {
        words.push(format!("LOST {}", Bytes(snapshot.loss.lost_bytes)));
    }
    if status.paused {
        words.push("PAUSED".to_owned());
    }
    if let Some(playing) = &status.playing {
        words.extend(playing.state.map(str::to_owned));
        words.push(format!("x{}", playing.speed));
    }
    if let Some(own) = &status.own {
        let cpu = own.cpu_percent.unwrap_or(0.0);
        words.push(format!("own cpu {cpu:.1}% rss {}", Bytes(own.resident)));
    }
    words.join("  ")
}

/// `0:14 [=====|-------x--] 0:19`
fn timeline(playing: &Playing, t: u64, cells: usize, theme: Theme) -> String {
    let (start, end) = playing.span;
    let seconds = |t: u64| clock(t.saturating_sub(start) / 1_000_000_000);
    let left = match playing.seeking {
        Some(percent) => format!("reading {percent}% ["),
        None => format!("{} [", seconds(t)),
    };
    let right = format!("] {}", seconds(end));
    let room = cells.saturating_sub(left.len() + right.len());
    if room < 3 {
        return cut(&left, cells, theme);
    }
    let cell = |t: u64| {
        let part = u128::from(t.clamp(start, end.max(start)) - start) * (room as u128 - 1);
        usize::try_from(part / u128::from(end.saturating_sub(start).max(1))).unwrap_or(0)
    };
    let at = cell(t);
    let mut bar: Vec<char> = (0..room).map(|index| if index < at { '=' } else { '-' }).collect();
    for kill in &playing.kills {
        if let Some(mark) = bar.get_mut(cell(*kill)) {
            *mark = 'x';
        }
    }
    if let Some(mark) = bar.get_mut(at) {
        *mark = '|';
    }
    format!("{left}{}{right}", bar.into_iter().collect::<String>())
}

/// The last line where the pod that is looked into is not there.
pub fn no_pod(cells: usize, theme: Theme) -> Line<'static> {
    Line::styled(
        cut("that pod is not there now: esc to all pods, q quit", cells, theme),
        style::reversed(),
    )
}

/// The last line.
pub fn foot(ui: &Ui, status: &Status, cells: usize, theme: Theme) -> Line<'static> {
    if ui.editing {
        return Line::raw(cut(&format!("filter: {}_", ui.filter), cells, theme));
    }
    if ui.help {
        return Line::raw(cut("esc or ? closes the help", cells, theme));
    }
    let sort = match (ui.sort, ui.open()) {
        (Sort::Main, None) => "headroom",
        (Sort::Main, Some(_)) => "growth",
        (Sort::Rate, _) => "growth/s",
        (Sort::Guest, _) => "guest RAM",
        (Sort::Name, _) => "name",
    };
    let reversed = if ui.reversed { " reversed" } else { "" };
    let open = if ui.open().is_some() {
        "esc back  tab view"
    } else {
        "enter open"
    };
    let seek = if status.playing.is_some() {
        "space play  left/right seek"
    } else {
        "space pause"
    };
    let filter = if ui.filter.is_empty() {
        "/ filter".to_owned()
    } else {
        format!("/ filter:{}", ui.filter)
    };
    let text = format!("q quit  ? help  {open}  s sort:{sort}{reversed}  {filter}  {seek}");
    Line::raw(cut(&text, cells, theme))
}

/// Time of day of an event.
pub fn utc(boot_unix_ns: u64, t: u64) -> String {
    let since_epoch = i128::from(boot_unix_ns) + i128::from(t);
    jiff::Timestamp::from_nanosecond(since_epoch)
        .map_or_else(|_| "?".to_owned(), |time| time.strftime("%H:%M:%S UTC").to_string())
}
