//! From trends to a time: when growth has used up what is available, at the earliest, probably, and at the latest.

use super::trend::Trend;

/// Longest that is looked ahead, seconds: a week.
const FARTHEST: f64 = 7.0 * 86_400.0;
/// Halvings of an interval: to a millionth of it.
const HALVINGS: usize = 40;
/// Rates change. After as long a time again as it was seen, a rate is off by this factor (its natural logarithm; one
/// standard deviation), however steady it was. Calibrated on simulated ledgers with other seeds than those of the tests.
const DRIFT: f64 = 0.12;
/// The same, as a part of how far off rates were before. Calibrated in the same way.
const CHANGED: f64 = 0.6;
/// What wanders gets twice as often as far as where it stays (the reflection principle of a Wiener process), and the limit
/// needs to be met only once: deviations for one in forty instead of one in twenty, 1.96 / 1.645.
const AT_ONCE: f64 = 1.19;

/// What is left, and what grows into it. Bytes and seconds.
#[derive(Clone, Copy, Debug)]
pub struct Outlay {
    /// What can still be charged below the limit.
    pub available: f64,
    /// Growth of overhead.
    pub overhead: Trend,
    /// How guest RAM fills.
    pub guest: Trend,
    /// What is left of it to fill, page tables included.
    pub guest_left: f64,
}

/// Seconds until the limit is met.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// Expected.
    pub expected: f64,
    /// Hardly earlier.
    pub low: f64,
    /// Hardly later; `None` where it may never come.
    pub high: Option<f64>,
}

/// When what is available is used up; `None` where it is not within a week, as things look. `quantile` gives how many
/// standard deviations "hardly" is for so many degrees of freedom.
pub fn arrival(outlay: &Outlay, quantile: impl Fn(usize) -> f64) -> Option<Arrival> {
    let expected = expected(outlay)?;
    let z_overhead = quantile(outlay.overhead.freedom);
    let z_guest = quantile(outlay.guest.freedom);
    let grown = |seconds: f64, sign: f64| {
        let overhead = quantile_of_growth(&outlay.overhead, seconds, sign * z_overhead);
        let guest = quantile_of_growth(&outlay.guest, seconds, sign * z_guest);
        overhead + guest.clamp(0.0, outlay.guest_left)
    };
    let low = first_time(0.0, expected, |seconds| grown(seconds, 1.0) >= outlay.available);
    let high = latest(expected, |seconds| grown(seconds, -1.0) >= outlay.available);
    Some(Arrival { expected, low, high })
}

fn expected(outlay: &Outlay) -> Option<f64> {
    let Outlay {
        available,
        overhead,
        guest,
        guest_left,
    } = *outlay;
    if available <= 0.0 {
        return Some(0.0);
    }
    let guest_rate = guest.rate.max(0.0);
    let both = overhead.rate + guest_rate;
    let together = available / both;
    let seconds = if both > 0.0 && guest_rate * together <= guest_left {
        together
    } else if overhead.rate > 0.0 {
        // The guest is full before.
        (available - guest_left).max(0.0) / overhead.rate
    } else {
        return None;
    };
    (seconds <= FARTHEST).then_some(seconds)
}

/// Growth within so many seconds from now, `z` deviations off: its own wandering, not knowing the rate, and the rate's
/// changing.
fn quantile_of_growth(trend: &Trend, seconds: f64, z: f64) -> f64 {
    if trend.span <= 0.0 {
        return 0.0;
    }
    let drift = DRIFT.hypot(CHANGED * trend.changed) * (seconds / trend.span).sqrt().min(2.0);
    let at_once = if z > 0.0 { AT_ONCE } else { 1.0 };
    let deviation = (at_once.powi(2) * trend.wander * seconds + (trend.rate_sd * seconds).powi(2)).sqrt();
    trend.rate * (z * drift).exp() * seconds + z * deviation
}

/// The first moment between two at which something holds that holds at the second.
fn first_time(mut from: f64, mut to: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(from, to);
        if holds(middle) {
            to = middle;
        } else {
            from = middle;
        }
    }
    to
}

/// The first moment from `expected` on at which something holds.
fn latest(expected: f64, holds: impl Fn(f64) -> bool) -> Option<f64> {
    let (mut from, mut to) = (expected, expected.max(1.0));
    while !holds(to) {
        if to > FARTHEST {
            return None;
        }
        from = to;
        to *= 1.5;
    }
    Some(first_time(from, to, holds))
}
