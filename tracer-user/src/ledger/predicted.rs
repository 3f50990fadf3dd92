//! What was predicted of a pod, and when it was warned of.

use crate::recording::event::{Alert, Forecast};

/// Entries kept before every second one in the middle is dropped.
const MAX_KEPT: usize = 512;

/// Forecasts and alerts of a pod, in order of time, in bounded memory.
#[derive(Clone, Debug, Default)]
pub struct Predicted {
    forecasts: Vec<(u64, Forecast)>,
    alerts: Vec<(u64, Alert)>,
    standing_since: Option<u64>,
}

impl Predicted {
    pub(super) fn forecast(&mut self, t: u64, forecast: &Forecast) {
        self.standing_since = match forecast.kill_at {
            Some(_) => self.standing_since.or(Some(t)),
            None => None,
        };
        keep(&mut self.forecasts, (t, forecast.clone()));
    }

    pub(super) fn alert(&mut self, t: u64, alert: &Alert) {
        keep(&mut self.alerts, (t, alert.clone()));
    }

    /// Forecasts with their times. One without a kill says that the one before it holds no longer.
    #[must_use]
    pub fn forecasts(&self) -> &[(u64, Forecast)] {
        &self.forecasts
    }

    /// Alerts with their times.
    #[must_use]
    pub fn alerts(&self) -> &[(u64, Alert)] {
        &self.alerts
    }

    /// Since when a kill has been forecast without interruption.
    #[must_use]
    pub const fn standing_since(&self) -> Option<u64> {
        self.standing_since
    }
}

fn keep<T>(entries: &mut Vec<T>, entry: T) {
    if entries.len() >= MAX_KEPT {
        let mut index = 0;
        entries.retain(|_| {
            index += 1;
            index % 2 == 1
        });
    }
    entries.push(entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast(kill_at: Option<u64>) -> Forecast {
        Forecast {
            kill_at,
            ..Forecast::default()
        }
    }

    #[test]
    fn a_withdrawn_forecast_stands_no_longer() {
        let mut predicted = Predicted::default();
        for (t, kill_at) in [(1, Some(9)), (2, None), (3, Some(8)), (4, Some(7))] {
            predicted.forecast(t, &forecast(kill_at));
        }
        assert_eq!(predicted.standing_since(), Some(3));
    }

    #[test]
    fn memory_is_bounded_and_first_and_last_are_kept() {
        let mut predicted = Predicted::default();
        for t in 0..10_000 {
            predicted.forecast(t, &forecast(Some(t)));
        }
        let times: Vec<u64> = predicted.forecasts().iter().map(|(t, _)| *t).collect();
        assert!(times.len() <= MAX_KEPT);
        assert_eq!((times[0], times.last()), (0, Some(&9_999)));
        assert_eq!(predicted.standing_since(), Some(0));
    }
}
