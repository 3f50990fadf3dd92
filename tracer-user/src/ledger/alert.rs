//! When somebody should be told: thresholds on what the forecaster sees, with hysteresis.

use std::collections::HashMap;
use std::time::Duration;

use super::forecast::View;
use crate::recording::event::{Alert, AlertKind};

/// Samples in a row that must pass a threshold of a trend before an alert is raised. Headroom is no trend: it is there or
/// not.
const RAISE_AFTER: u32 = 2;
/// Samples in a row that must be clear of it before the alert ends.
const END_AFTER: u32 = 5;
/// Clear is a time to the kill of at least this much of the threshold, ...
const CLEAR_ETA: f64 = 1.5;
/// ... headroom of at least this much, ...
const CLEAR_HEADROOM: f64 = 1.25;
/// ... and a rate of at most this much.
const CLEAR_RATE: f64 = 0.7;

/// When to alert. Nothing is watched that has no threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// The limit is expected to be met within this time.
    pub eta: Option<Duration>,
    /// Less than this is available below the limit, bytes; page cache that reclaim could take counts as free.
    pub headroom: Option<u64>,
    /// Overhead grows by this much per second or more, bytes.
    pub rate: Option<u64>,
}

impl Thresholds {
    /// Whether anything is watched.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.eta.is_some() || self.headroom.is_some() || self.rate.is_some()
    }
}

/// One pod's alert of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    raised: bool,
    /// Samples in a row that speak for the other state.
    against: u32,
}

/// Raises and ends alerts.
#[derive(Debug, Default)]
pub struct Alerts {
    thresholds: Thresholds,
    states: HashMap<(u32, AlertKind), State>,
}

/// What is measured against a threshold.
struct Measure {
    kind: AlertKind,
    threshold: u64,
    value: Option<u64>,
    passed: bool,
    clear: bool,
}

impl Alerts {
    /// With these thresholds.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            states: HashMap::new(),
        }
    }

    /// Takes how a pod looks at a sample; gives what is raised and what ends.
    pub fn observe(&mut self, pod: u32, view: &View) -> Vec<Alert> {
        let thresholds = self.thresholds;
        [
            thresholds.eta.map(|threshold| eta(threshold, view)),
            thresholds.headroom.map(|threshold| headroom(threshold, view)),
            thresholds.rate.map(|threshold| rate(threshold, view)),
        ]
        .into_iter()
        .flatten()
        .filter_map(|measure| self.judge(pod, view, &measure))
        .collect()
    }

    /// A pod was killed in or is gone: its alerts are over, and nobody need be told.
    pub fn forget(&mut self, pod: u32) {
        self.states.retain(|(of, _), _| *of != pod);
    }

    fn judge(&mut self, pod: u32, view: &View, measure: &Measure) -> Option<Alert> {
        let state = self.states.entry((pod, measure.kind)).or_default();
        let (against, enough) = match (state.raised, measure.kind) {
            (true, _) => (measure.clear, END_AFTER),
            (false, AlertKind::Headroom) => (measure.passed, 1),
            (false, _) => (measure.passed, RAISE_AFTER),
        };
        state.against = if against { state.against + 1 } else { 0 };
        if state.against < enough {
            return None;
        }
        *state = State {
            raised: !state.raised,
            against: 0,
        };
        Some(Alert {
            pod,
            alert: measure.kind,
            raised: state.raised,
            threshold: measure.threshold,
            value: measure.value,
            driver: view.driver.clone(),
            kill_at: view.kill.map(|kill| kill.at),
            basis: view.basis,
        })
    }
}

fn eta(threshold: Duration, view: &View) -> Measure {
    let threshold = u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX);
    let value = view.kill.map(|kill| kill.at.saturating_sub(view.t));
    Measure {
        kind: AlertKind::Eta,
        threshold,
        value,
        passed: value.is_some_and(|left| left <= threshold),
        clear: value.is_none_or(|left| left >= part(threshold, CLEAR_ETA)),
    }
}

fn headroom(threshold: u64, view: &View) -> Measure {
    let value = u64::try_from(view.basis.available).unwrap_or(0);
    Measure {
        kind: AlertKind::Headroom,
        threshold,
        value: Some(value),
        passed: value < threshold,
        clear: value >= part(threshold, CLEAR_HEADROOM),
    }
}

fn rate(threshold: u64, view: &View) -> Measure {
    let value = u64::try_from(view.basis.overhead_rate).unwrap_or(0);
    let value = if view.growing { value } else { 0 };
    Measure {
        kind: AlertKind::Rate,
        threshold,
        value: Some(value),
        passed: threshold > 0 && value >= threshold,
        clear: value <= part(threshold, CLEAR_RATE),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a threshold to fifteen digits; casts from float saturate"
)]
fn part(threshold: u64, factor: f64) -> u64 {
    (threshold as f64 * factor) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::forecast::Kill;
    use crate::recording::event::Basis;

    const SECOND: u64 = 1_000_000_000;

    fn view(seconds_left: Option<u64>, available: i64, rate: i64) -> View {
        View {
            t: 100 * SECOND,
            basis: Basis {
                available,
                overhead_rate: rate,
                ..Basis::default()
            },
            growing: rate > 0,
            kill: seconds_left.map(|left| Kill {
                at: (100 + left) * SECOND,
                low: (100 + left) * SECOND,
                high: None,
            }),
            driver: None,
        }
    }

    /// What a series of views raises (`true`) and ends.
    fn told(thresholds: Thresholds, views: &[View]) -> Vec<(usize, AlertKind, bool)> {
        let mut alerts = Alerts::new(thresholds);
        let mut told = Vec::new();
        for (index, view) in views.iter().enumerate() {
            told.extend(
                alerts
                    .observe(1, view)
                    .iter()
                    .map(|alert| (index, alert.alert, alert.raised)),
            );
        }
        told
    }

    #[test]
    fn a_kill_within_the_time_is_told_once_until_it_is_clear() {
        let thresholds = Thresholds {
            eta: Some(Duration::from_secs(60)),
            ..Thresholds::default()
        };
        let left = [
            Some(50), // once may be chance
            None,
            Some(59),
            Some(58), // raised
            Some(70), // not clear yet
            Some(61),
            None,
            None,
            None,
            None,
            None, // ended
            Some(30),
        ];
        let views: Vec<View> = left.into_iter().map(|left| view(left, 1 << 30, 1)).collect();
        assert_eq!(
            told(thresholds, &views),
            [(3, AlertKind::Eta, true), (10, AlertKind::Eta, false)]
        );
    }

    #[test]
    fn headroom_is_told_at_once_and_flutter_is_not() {
        let thresholds = Thresholds {
            headroom: Some(100),
            ..Thresholds::default()
        };
        let views: Vec<View> = [200, 99, 101, 99, 124, 90, 130, 130, 130, 130, 130, 99]
            .into_iter()
            .map(|available| view(None, available, 0))
            .collect();
        let expected = [
            (1, AlertKind::Headroom, true),
            (10, AlertKind::Headroom, false),
            (11, AlertKind::Headroom, true),
        ];
        assert_eq!(told(thresholds, &views), expected);
    }

    #[test]
    fn a_rate_counts_only_where_growth_is_sure() {
        let thresholds = Thresholds {
            rate: Some(1000),
            ..Thresholds::default()
        };
        let mut views = vec![view(None, 1 << 30, 2000); 4];
        views[0].growing = false;
        views[1].growing = false;
        assert_eq!(told(thresholds, &views), [(3, AlertKind::Rate, true)]);
    }

    #[test]
    fn without_thresholds_nothing_is_told() {
        assert_eq!(
            told(
                Thresholds::default(),
                &[view(Some(1), 0, 1 << 40), view(Some(0), -5, 1)]
            ),
            []
        );
    }
}
