//! The head of a pod that is looked into, and what its selected row is made of.

use ratatui::text::{Line, Span};

use super::{list, style};
use crate::top::items::{Item, What};
use crate::top::rows::{Row, Shown};
use crate::top::snapshot::{Detail, PodRow, Snapshot, short};
use crate::top::text::{Theme, bytes, cut, fit, growth, rate, until};
use crate::top::ui::{Tab, Ui};
use crate::units::SignedBytes;

/// What a pod has, who grows in it, and how it is looked at.
pub fn summary(snapshot: &Snapshot, detail: &Detail, ui: &Ui, cells: usize, theme: Theme) -> Vec<Line<'static>> {
    let pod = &detail.pod;
    let known = |figure: Option<u64>| {
        if figure.is_some() {
            bytes(figure)
        } else {
            "unknown".to_owned()
        }
    };
    let limit = if pod.limit.is_some() {
        bytes(pod.limit)
    } else {
        "no limit".to_owned()
    };
    let head = format!(
        "{}  {} of {limit}, headroom {}  {}",
        fit(&pod.name, 32, theme),
        known(pod.usage),
        if pod.limit.is_some() {
            bytes(pod.headroom())
        } else {
            "unlimited".to_owned()
        },
        outlook(snapshot, pod),
    );
    let parts = format!(
        " guest RAM {} of {}, overhead {} of {}",
        known(pod.guest_resident),
        bytes(Some(pod.guest_ram)),
        known(pod.overhead()),
        known(pod.budget()),
    );
    let bar = cells.saturating_sub(parts.chars().count()).clamp(8, 40);
    let mut bar = list::bar(pod, bar, theme);
    bar.push(Span::raw(cut(&parts, cells.saturating_sub(8), theme)));
    vec![
        Line::styled(
            cut(&head, cells, theme),
            style::of_headroom(pod.headroom(), pod.limit, theme),
        ),
        Line::from(bar),
        Line::raw(cut(&grown(snapshot, detail), cells, theme)),
        tabs(ui),
    ]
}

fn grown(snapshot: &Snapshot, detail: &Detail) -> String {
    let since = detail.since.map_or_else(String::new, |t| {
        format!(
            " since {}",
            super::head::utc(snapshot.boot_unix_ns, t).trim_end_matches(" UTC")
        )
    });
    let culprit = detail.culprit.as_ref().map_or_else(
        || "nothing to blame".to_owned(),
        |culprit| format!("{} {}", short(&culprit.entity), growth(culprit.bytes)),
    );
    let or_none = |text: String| if text.is_empty() { "0 B".to_owned() } else { text };
    let unexplained = if detail.unexplained.unsigned_abs() > u128::from(detail.tolerance) {
        format!(", unexplained {}", growth(detail.unexplained))
    } else {
        String::new()
    };
    format!(
        "overhead {}, guest RAM {}{since}{unexplained}; {culprit}",
        or_none(growth(detail.overhead_growth)),
        or_none(growth(detail.guest_growth)),
    )
}

/// When the limit is expected to be met, and by whom, or that it was.
fn outlook(snapshot: &Snapshot, pod: &PodRow) -> String {
    let soon = list::eta(snapshot, pod);
    let Some(expected) = pod.expected.as_ref().filter(|_| pod.killed.is_none()) else {
        return soon;
    };
    let from = |t: Option<u64>| t.map_or_else(|| "never".to_owned(), |t| until(t.saturating_sub(snapshot.t)));
    let driver = expected
        .driver
        .as_ref()
        .map_or_else(String::new, |driver| format!(" by {driver}"));
    format!(
        "kill in {soon} ({} to {}){driver}",
        from(expected.low),
        from(expected.high)
    )
}

fn tabs(ui: &Ui) -> Line<'static> {
    let names = [
        (Tab::Tree, " tree "),
        (Tab::Roles, " roles "),
        (Tab::Threads, " threads "),
    ];
    let spans = names.into_iter().map(|(tab, name)| {
        if tab == ui.tab {
            Span::styled(name, style::reversed())
        } else {
            Span::raw(name)
        }
    });
    Line::from_iter(spans)
}

/// What the row under the cursor is made of.
pub fn selected(rows: &[Row<'_>], ui: &Ui, cells: usize, theme: Theme) -> Line<'static> {
    let text = match rows.get(ui.index()).map(|row| &row.shown) {
        Some(Shown::Item { item, .. }) => made_of(item, theme),
        Some(Shown::Pod(pod)) => {
            let culprit = pod.culprit.as_deref().unwrap_or("nothing to blame");
            let growing = rate(pod.rate);
            let growing = if growing.is_empty() { "0 B/s" } else { &growing };
            format!(
                "{}: overhead {} {growing}, {culprit}",
                fit(&pod.name, 32, theme),
                bytes(pod.overhead())
            )
        }
        None if ui.filter.is_empty() => "no VM pod is here yet".to_owned(),
        None => "nothing matches the filter".to_owned(),
    };
    Line::styled(cut(&text, cells, theme), style::heading())
}

fn made_of(item: &Item, theme: Theme) -> String {
    if item.what == What::Above {
        return format!("{}: holds other pods too", item.name);
    }
    let mut kinds: Vec<_> = item.kinds.iter().filter(|(_, bytes)| **bytes != 0).collect();
    kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.unsigned_abs()));
    let signed = |bytes: i128| SignedBytes(i64::try_from(bytes).unwrap_or(i64::MAX));
    let mut parts: Vec<String> = kinds
        .into_iter()
        .map(|(kind, bytes)| format!("{kind} {}", signed(*bytes)))
        .collect();
    if item.guest != 0 {
        parts.push(format!("guest RAM {}", signed(item.guest)));
    }
    if item.reclaim_ns > 0 {
        parts.push(format!("reclaiming {} ms", item.reclaim_ns / 1_000_000));
    }
    if item.threads > 1 {
        parts.push(format!("{} threads", item.threads));
    }
    if parts.is_empty() {
        parts.push("charged nothing".to_owned());
    }
    format!("{}: {}", fit(&item.name, 32, theme), parts.join(", "))
}
