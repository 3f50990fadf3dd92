//! A pod: its verdict, its figures, and the sections below them.

use super::budget::BudgetView;
use super::cell::name;
use super::flame::FlameView;
use super::kill::{KillView, kills};
use super::table::{self, FileRow, OtherThreads, RoleRow, ThreadRow};
use super::{chart, words};
use crate::report::foreseen::{threshold, value};
use crate::report::verdict::{duration, verdict};
use crate::report::words::{moment, moment_of};
use crate::report::{AlertReport, Forecast, PodReport};
use crate::units::{Bytes, SignedBytes};

/// What the template shows of a pod.
pub(super) struct PodView {
    pub id: String,
    pub name: String,
    pub verdict: String,
    /// `bad`, `warn`, `good` or `unknown`.
    pub tone: &'static str,
    /// What names it elsewhere.
    pub about: Vec<(&'static str, String)>,
    pub tiles: Vec<Tile>,
    /// JSON that is safe within a script element.
    pub chart: Option<String>,
    pub kills: Vec<KillView>,
    pub forecasts: Vec<ForecastRow>,
    pub alerts: Vec<AlertRow>,
    pub roles: Vec<RoleRow>,
    pub threads: Vec<ThreadRow>,
    pub other_threads: Option<OtherThreads>,
    pub files: Vec<FileRow>,
    pub budget: BudgetView,
    /// Columns say what is held.
    pub live: bool,
    pub reconciliation: Vec<String>,
    pub kinds: Vec<KindRow>,
    pub killed: bool,
    pub stalls: Option<StallsView>,
    pub flame: Option<FlameView>,
}

/// A figure that stands by itself.
pub(super) struct Tile {
    pub label: &'static str,
    pub value: String,
    pub note: String,
    pub tone: &'static str,
}

pub(super) struct ForecastRow {
    pub at: String,
    pub kill_at: String,
    pub between: String,
    pub driver: String,
    /// Shown on demand.
    pub beyond: bool,
}

pub(super) struct AlertRow {
    pub at: String,
    pub what: String,
    pub value: String,
    pub driver: String,
    pub raised: bool,
    /// Shown on demand.
    pub beyond: bool,
}

/// Forecasts and alerts shown at first.
const FORECASTS: usize = 10;

pub(super) struct KindRow {
    pub kind: &'static str,
    pub stat: String,
    pub accounted: String,
    pub difference: String,
    /// By more than the tolerance, where both were read at the same time.
    pub beyond: bool,
}

pub(super) struct StallsView {
    pub count: u64,
    pub total: String,
    pub p50: String,
    pub p99: String,
    pub max: String,
    pub threads: Vec<StalledThread>,
}

pub(super) struct StalledThread {
    pub thread: String,
    pub role: String,
    pub waited: String,
}

/// Threads listed by how long they waited.
const STALLED: usize = 8;

impl PodView {
    /// One of `pods` pods on the page.
    pub(super) fn new(id: String, pod: &PodReport, pods: usize) -> Self {
        let (threads, other_threads) = table::threads(pod);
        Self {
            id,
            name: words::name(pod),
            verdict: verdict(pod),
            tone: tone(pod),
            about: [("pod uid", &pod.pod_uid), ("cgroup", &pod.cgroup)]
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(what, value)| (what, name(value)))
                .collect(),
            tiles: tiles(pod),
            chart: chart::json(pod, pods),
            kills: kills(pod),
            forecasts: pod.forecasts.iter().enumerate().map(forecast).collect(),
            alerts: pod.alerts.iter().enumerate().map(alert).collect(),
            roles: table::roles(pod),
            threads,
            other_threads,
            files: table::files(pod),
            budget: BudgetView::new(pod),
            live: pod.live.is_some(),
            reconciliation: words::reconciliation(pod),
            kinds: kinds(pod),
            killed: !pod.oom.is_empty(),
            stalls: stalls(pod),
            flame: FlameView::new(pod),
        }
    }
}

pub(super) fn tone(pod: &PodReport) -> &'static str {
    let tolerance = i64::try_from(pod.tolerance).unwrap_or(i64::MAX);
    match (&pod.culprit, pod.oom.is_empty()) {
        _ if pod.window.is_none() => "unknown",
        (_, false) => "bad",
        (Some(_), true) => "warn",
        (None, true) if pod.unexplained > tolerance => "warn",
        (None, true) => "good",
    }
}

fn tiles(pod: &PodReport) -> Vec<Tile> {
    let tile = |label, value: String, note: String, tone| Tile {
        label,
        value,
        note,
        tone,
    };
    let mut tiles = vec![
        tile(
            "limit",
            pod.limit
                .map_or_else(|| "none".to_owned(), |limit| Bytes(limit).to_string()),
            pod.budget.map_or_else(String::new, |budget| {
                format!("guest RAM {} + budget {}", Bytes(pod.guest_ram), SignedBytes(budget))
            }),
            "",
        ),
        overhead(pod),
        tile(
            "overhead growth",
            SignedBytes(pod.overhead.growth).to_string(),
            pod.culprit.as_ref().map_or_else(String::new, |culprit| {
                #[expect(clippy::cast_possible_truncation, reason = "displayed to a digit, and saturating")]
                let rate = SignedBytes(culprit.rate_bytes_per_s as i64);
                format!("{rate}/s by who grew most")
            }),
            "",
        ),
        guest(pod),
        tile(
            "least headroom",
            pod.headroom_min
                .map_or_else(|| "unknown".to_owned(), |least| Bytes(least).to_string()),
            format!("usage peaked at {}", Bytes(pod.usage.peak)),
            if pod.oom.is_empty() { "" } else { "bad" },
        ),
    ];
    if let Some(lead) = pod.oom.first().and_then(|oom| oom.lead_time_s) {
        tiles.push(tile("predicted", duration(lead), "before the kill".to_owned(), "good"));
    }
    tiles
}

fn overhead(pod: &PodReport) -> Tile {
    let budget = pod
        .budget
        .and_then(|budget| u64::try_from(budget).ok())
        .filter(|budget| *budget > 0);
    let peak = pod.overhead.peak;
    let (note, tone) = match budget {
        None => (String::new(), ""),
        Some(budget) => {
            let percent = u128::from(peak) * 100 / u128::from(budget);
            let tone = match percent {
                0..80 => "good",
                80..=100 => "warn",
                _ => "bad",
            };
            (format!("{percent}% of its budget"), tone)
        }
    };
    Tile {
        label: "overhead at its peak",
        value: Bytes(peak).to_string(),
        note,
        tone,
    }
}

fn guest(pod: &PodReport) -> Tile {
    Tile {
        label: "guest RAM growth",
        value: SignedBytes(pod.guest_growth).to_string(),
        note: match pod.guest_resident.end {
            Some(resident) => format!("{} of {} resident", Bytes(resident), Bytes(pod.guest_ram)),
            None => format!("of {}, how much is resident is not known", Bytes(pod.guest_ram)),
        },
        tone: "",
    }
}

fn forecast((index, forecast): (usize, &Forecast)) -> ForecastRow {
    ForecastRow {
        at: moment(&forecast.at),
        kill_at: moment_of(&forecast.at, &forecast.kill_at),
        between: format!(
            "{} and {}",
            moment_of(&forecast.at, &forecast.low),
            forecast
                .high
                .as_ref()
                .map_or_else(|| "later".to_owned(), |high| moment_of(&forecast.at, high))
        ),
        driver: name(&forecast.driver),
        beyond: index >= FORECASTS,
    }
}

fn alert((index, alert): (usize, &AlertReport)) -> AlertRow {
    AlertRow {
        at: moment(&alert.at),
        what: threshold(alert),
        value: value(alert).unwrap_or_default(),
        driver: alert.driver.as_ref().map_or_else(String::new, name),
        raised: alert.raised,
        beyond: index >= FORECASTS,
    }
}

fn kinds(pod: &PodReport) -> Vec<KindRow> {
    let row = |kind: &crate::report::KindReport| {
        let difference = kind.stat_growth.saturating_sub(kind.accounted);
        KindRow {
            kind: kind.kind,
            stat: SignedBytes(kind.stat_growth).to_string(),
            accounted: SignedBytes(kind.accounted).to_string(),
            difference: SignedBytes(difference).to_string(),
            beyond: pod.oom.is_empty() && difference.unsigned_abs() > pod.tolerance,
        }
    };
    pod.kinds.iter().map(row).collect()
}

fn stalls(pod: &PodReport) -> Option<StallsView> {
    let of = &pod.stalls.duration_ns;
    if of.count == 0 {
        return None;
    }
    let mut waited: Vec<_> = pod.by_thread.iter().filter(|thread| thread.reclaim_ns > 0).collect();
    waited.sort_by_key(|thread| std::cmp::Reverse(thread.reclaim_ns));
    Some(StallsView {
        count: of.count,
        total: words::nanoseconds(pod.stalls.total_ns),
        p50: words::milliseconds(of.p50),
        p99: words::milliseconds(of.p99),
        max: words::milliseconds(of.max),
        threads: waited
            .into_iter()
            .take(STALLED)
            .map(|thread| StalledThread {
                thread: match thread.tid {
                    Some(tid) => format!("{} ({tid})", name(&thread.comm)),
                    None => name(&thread.comm),
                },
                role: name(thread.role.to_string()),
                waited: words::milliseconds(thread.reclaim_ns),
            })
            .collect(),
    })
}
