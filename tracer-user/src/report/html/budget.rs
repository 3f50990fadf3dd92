//! What the limit leaves for overhead, and what became of it.

use super::cell::{self, thousandths};
use crate::report::PodReport;
use crate::sizing;
use crate::sizing::spec::Budgeted;
use crate::units::{Bytes, SignedBytes};

/// The limit as a bar, and the figures from the window's start to its end.
pub(super) struct BudgetView {
    pub sentence: String,
    pub parts: Vec<Part>,
    pub rows: Vec<Row>,
    pub budgeted: Option<BudgetedView>,
}

/// KubeVirt's budget, broken down.
pub(super) struct BudgetedView {
    pub title: String,
    pub sentence: String,
    pub parts: Vec<TermRow>,
    pub terms: Vec<TermRow>,
}

/// A part or a term of it.
pub(super) struct TermRow {
    pub name: String,
    pub part: &'static str,
    pub budgeted: String,
    pub taken: String,
    /// By how much more, if it is.
    pub exceeded: String,
}

/// A stretch of the bar, in thousandths of the limit.
pub(super) struct Part {
    pub x: u64,
    pub width: u64,
    pub class: &'static str,
    pub label: &'static str,
    pub value: String,
}

pub(super) struct Row {
    pub name: &'static str,
    pub start: String,
    pub end: String,
    pub peak: String,
}

impl BudgetView {
    pub(super) fn new(pod: &PodReport) -> Self {
        Self {
            sentence: sentence(pod),
            parts: pod.limit.map_or_else(Vec::new, |limit| parts(pod, limit)),
            rows: rows(pod),
            budgeted: pod.budgeted.as_ref().map(broken_down),
        }
    }
}

fn broken_down(budgeted: &Budgeted) -> BudgetedView {
    let row = |name: &str, part: &'static str, bytes: u64, taken: Option<u64>| TermRow {
        name: cell::name(name),
        part,
        budgeted: Bytes(bytes).to_string(),
        taken: taken.map_or_else(|| "–".to_owned(), |taken| Bytes(taken).to_string()),
        exceeded: taken
            .and_then(|taken| taken.checked_sub(bytes))
            .filter(|over| *over > 0)
            .map_or_else(String::new, |over| Bytes(over).to_string()),
    };
    let breakdown = &budgeted.breakdown;
    let parts = breakdown.parts.iter();
    let terms = breakdown.lines.iter();
    let rest = sizing::text::rest_name(breakdown).map(|name| TermRow {
        name: name.to_owned(),
        part: "",
        budgeted: String::new(),
        taken: SignedBytes(breakdown.not_told_apart).to_string(),
        exceeded: String::new(),
    });
    BudgetedView {
        title: sizing::text::title(&budgeted.shape),
        sentence: sizing::text::sentence(breakdown),
        parts: parts
            .map(|part| {
                row(
                    sizing::text::part_name(breakdown, part.part),
                    part.part.as_str(),
                    part.budgeted,
                    part.taken,
                )
            })
            .collect(),
        terms: terms
            .map(|line| row(&line.name, line.part.as_str(), line.budgeted, line.taken))
            .chain(rest)
            .chain([row("overhead", "", breakdown.budgeted, breakdown.taken)])
            .collect(),
    }
}

fn sentence(pod: &PodReport) -> String {
    let (Some(limit), Some(budget)) = (pod.limit, pod.budget) else {
        return "There is no limit, and so no budget.".to_owned();
    };
    let mut sentence = format!(
        "The limit of {} leaves {} for overhead beyond {} of guest RAM; overhead peaked at {}",
        Bytes(limit),
        SignedBytes(budget),
        Bytes(pod.guest_ram),
        Bytes(pod.overhead.peak),
    );
    let over = i128::from(pod.overhead.peak) - i128::from(budget);
    let magnitude = Bytes(u64::try_from(over.unsigned_abs()).unwrap_or(u64::MAX));
    sentence.push_str(&if over > 0 {
        format!(", {magnitude} more than that.")
    } else {
        format!(", {magnitude} less than that.")
    });
    let (guest, left) = (guest_at_end(pod), limit.saturating_sub(pod.usage.end));
    let untouched = pod.guest_ram.saturating_sub(guest.unwrap_or(pod.guest_ram));
    if untouched > left {
        sentence.push_str(&format!(
            " At the end the guest had {} of its RAM still to touch, and {} of headroom was left.",
            Bytes(untouched),
            Bytes(left)
        ));
    }
    sentence
}

/// Guest RAM at the window's end, as the timeline has it: at a kill it is newer than the last sample.
fn guest_at_end(pod: &PodReport) -> Option<u64> {
    let last = pod.timeline.points.last();
    last.and_then(|point| point.guest_resident).or(pod.guest_resident.end)
}

fn parts(pod: &PodReport, limit: u64) -> Vec<Part> {
    let end = pod.usage.end;
    let guest = guest_at_end(pod).unwrap_or(0).min(end);
    let overhead = end - guest;
    let grown = u64::try_from(pod.overhead.growth).unwrap_or(0).min(overhead);
    let stretches = [
        ("guest", "guest RAM", guest),
        ("start", "overhead at the start", overhead - grown),
        ("grown", "overhead growth", grown),
        ("left", "headroom", limit.saturating_sub(end)),
    ];
    let mut x = 0;
    let mut parts = Vec::new();
    for (class, label, bytes) in stretches {
        let width = thousandths(bytes, limit.max(end)).min(1000 - x);
        parts.push(Part {
            x,
            width,
            class,
            label,
            value: Bytes(bytes).to_string(),
        });
        x += width;
    }
    parts
}

fn rows(pod: &PodReport) -> Vec<Row> {
    let or_unknown = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string());
    vec![
        Row {
            name: "usage",
            start: Bytes(pod.usage.start).to_string(),
            end: Bytes(pod.usage.end).to_string(),
            peak: Bytes(pod.usage.peak).to_string(),
        },
        Row {
            name: "guest RAM",
            start: or_unknown(pod.guest_resident.start),
            end: or_unknown(pod.guest_resident.end),
            peak: String::new(),
        },
        Row {
            name: "overhead",
            start: SignedBytes(pod.overhead.start).to_string(),
            end: SignedBytes(pod.overhead.end).to_string(),
            peak: Bytes(pod.overhead.peak).to_string(),
        },
    ]
}
