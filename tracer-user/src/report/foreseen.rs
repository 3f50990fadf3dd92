//! What was predicted, as data and in sentences.

use super::build::utc;
use super::verdict::{duration, time_of_day};
use super::{AlertReport, Forecast, PodReport};
use crate::escape;
use crate::ledger::{Ledger, PodLedger};
use crate::recording::event::{Alert, AlertKind, Driver};
use crate::units::Bytes;

/// Forecasts told in words; the rest is in the other forms.
const TOLD: usize = 4;

/// Forecasts, each with the time from which it held no longer, if it did not lead to the next one.
pub(super) fn forecasts(ledger: &Ledger, pod: &PodLedger) -> Vec<Forecast> {
    let all = pod.predicted.forecasts();
    let withdrawn = |index: usize| {
        let (t, next) = all.get(index + 1)?;
        next.kill_at.is_none().then(|| utc(ledger, *t))
    };
    all.iter()
        .enumerate()
        .filter_map(|(index, (t, forecast))| {
            let kill_at = forecast.kill_at?;
            Some(Forecast {
                at: utc(ledger, *t),
                kill_at: utc(ledger, kill_at),
                low: utc(ledger, forecast.low.unwrap_or(kill_at)),
                high: forecast.high.map(|high| utc(ledger, high)),
                driver: forecast
                    .driver
                    .as_ref()
                    .map_or_else(|| "nobody in particular".to_owned(), driver),
                left_s: seconds(*t, kill_at),
                withdrawn: withdrawn(index),
            })
        })
        .collect()
}

/// Alerts, raised and ended.
pub(super) fn alerts(ledger: &Ledger, pod: &PodLedger) -> Vec<AlertReport> {
    let report = |(t, alert): &(u64, Alert)| AlertReport {
        at: utc(ledger, *t),
        alert: alert.alert.as_str(),
        raised: alert.raised,
        threshold: alert.threshold,
        value: alert.value,
        kill_at: alert.kill_at.map(|kill_at| utc(ledger, kill_at)),
        driver: alert.driver.as_ref().map(driver),
    };
    pod.predicted.alerts().iter().map(report).collect()
}

/// How long before a kill at `t` it began to be forecast without interruption, seconds.
pub(super) fn lead_time(pod: &PodLedger, t: u64) -> Option<f64> {
    // Only the first kill ends the window, and nothing is kept of what came behind it.
    let since = pod.predicted.standing_since().filter(|_| pod.kill_t() == Some(t))?;
    Some(seconds(since, t))
}

/// A driver in a word or two, hostile names as they are.
fn driver(driver: &Driver) -> String {
    format!("{}, {}", driver.process, driver.role)
}

#[expect(clippy::cast_precision_loss, reason = "displayed to a digit")]
fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}

/// Lines about what was predicted; none where nothing was.
pub(super) fn sentences(pod: &PodReport) -> Vec<String> {
    let mut sentences = Vec::new();
    if let Some(lead) = pod.oom.first().and_then(|oom| oom.lead_time_s) {
        sentences.push(format!("Forecast: the kill was foreseen {} ahead", duration(lead)));
    } else if !pod.oom.is_empty() {
        sentences.push("Forecast: the kill was not foreseen".to_owned());
    } else if !pod.forecasts.is_empty() {
        sentences.push("Forecast: a kill was foreseen".to_owned());
    }
    let count = pod.forecasts.len();
    let told = count.min(TOLD);
    // The first, the last, and some in between.
    let picked = (0..told).filter_map(|nth| {
        pod.forecasts
            .get(nth * count.saturating_sub(1) / told.saturating_sub(1).max(1))
    });
    sentences.extend(picked.map(forecast));
    sentences.extend(pod.alerts.iter().filter(|alert| alert.raised).take(TOLD).map(alert));
    sentences
}

fn forecast(forecast: &Forecast) -> String {
    let withdrawn = forecast.withdrawn.as_ref().map_or_else(String::new, |withdrawn| {
        format!("; held no longer at {}", time_of_day(withdrawn))
    });
    let high = forecast.high.as_ref().map_or("later", |high| time_of_day(high));
    format!(
        "  at {}: limit met in {}, at {} (between {} and {high}), driven by {}{withdrawn}",
        time_of_day(&forecast.at),
        duration(forecast.left_s),
        time_of_day(&forecast.kill_at),
        time_of_day(&forecast.low),
        escape::terminal(&forecast.driver),
    )
}

/// What was passed.
pub(super) fn threshold(alert: &AlertReport) -> String {
    match alert.alert {
        "eta" => format!("less than {} to the limit", duration(seconds(0, alert.threshold))),
        "rate" => format!("growth of {}/s or more", Bytes(alert.threshold)),
        _ => format!("less than {} of headroom", Bytes(alert.threshold)),
    }
}

/// What was measured, where anything was.
pub(super) fn value(alert: &AlertReport) -> Option<String> {
    let value = alert.value?;
    Some(match alert.alert {
        "eta" => duration(seconds(0, value)),
        "rate" => format!("{}/s", Bytes(value)),
        _ => Bytes(value).to_string(),
    })
}

fn alert(alert: &AlertReport) -> String {
    let threshold = threshold(alert);
    let driver = alert.driver.as_ref().map_or_else(String::new, |driver| {
        format!(", driven by {}", escape::terminal(driver))
    });
    format!("  alert at {}: {threshold}{driver}", time_of_day(&alert.at))
}

/// What an alert says when it is raised or ends. Safe to print to a terminal.
#[must_use]
pub fn announcement(pod: &str, alert: &Alert) -> String {
    let pod = escape::terminal(pod);
    let (what, value) = match alert.alert {
        AlertKind::Eta => (
            format!(
                "the limit is expected to be met within {}",
                duration(seconds(0, alert.threshold))
            ),
            alert.value.map(|left| format!("in {}", duration(seconds(0, left)))),
        ),
        AlertKind::Headroom => (
            format!("headroom is below {}", Bytes(alert.threshold)),
            alert.value.map(|bytes| Bytes(bytes).to_string()),
        ),
        AlertKind::Rate => (
            format!("overhead grows by {}/s or more", Bytes(alert.threshold)),
            alert.value.map(|rate| format!("{}/s", Bytes(rate))),
        ),
    };
    let value = value.map_or_else(String::new, |value| format!(" ({value})"));
    if !alert.raised {
        return format!("{pod}: over: {what}{value}");
    }
    let driver = alert.driver.as_ref().map_or_else(String::new, |by| {
        format!(", driven by {}", escape::terminal(&driver(by)))
    });
    format!("{pod}: {what}{value}{driver}")
}
