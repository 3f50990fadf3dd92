//! How a pod looks at a sample: what is available, what grows, and when that meets the limit.

use super::history::{History, Moment};
use super::project::{Arrival, Outlay, arrival};
use super::trend::{LEAST_POINTS, Trend, trend};

/// Growth is extrapolated at most this many times as far as it has been seen: what a few seconds show says nothing
/// about the next hour. A forecast that already stands may look twice as far, so that it does not flicker.
const REACH: f64 = 5.0;
/// Whether the growth at hand is new or one of many teeth is looked up this many times as far back as it reaches ahead.
const LOOK_BACK: f64 = 2.0;
/// A trend of peaks takes at least this many teeth.
const TEETH: f64 = 2.0;
/// Part of what is available by which overhead must fall for that to count as a tooth.
const TOOTH: f64 = 1.0 / 32.0;

/// Growth is sure when its rate is this many quantiles above zero: one in eight is wrong, and the bounds say so.
const SURE: f64 = 0.75;

/// What is known besides the history. Bytes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Limit less usage, reclaimable page cache counted as free.
    pub available: f64,
    /// Guest RAM that is not resident yet, with the page tables that will come with it.
    pub guest_left: f64,
    /// How exact the figures are.
    pub noise: f64,
    /// A forecast stands already.
    pub standing: bool,
}

/// Trends at a sample, and where they lead.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outlook {
    /// Growth of overhead.
    pub overhead: Trend,
    /// How guest RAM fills.
    pub guest: Trend,
    /// Overhead surely grows.
    pub growing: bool,
    /// When the limit is met, where that can be said.
    pub arrival: Option<Arrival>,
    /// The guest that fills its RAM is what meets the limit; overhead stands still, beyond its budget.
    pub by_guest: bool,
}

/// Looks ahead from the newest moment; `quantile` as for [`arrival`].
pub fn look(history: &History, room: &Room, quantile: impl Fn(usize) -> f64) -> Outlook {
    let Some(now) = history.last() else {
        return Outlook::default();
    };
    let guest_points: Vec<(f64, f64)> = history.iter().map(|moment| (moment.t, moment.guest)).collect();
    // A guest that has all its RAM, as most have, needs no regression.
    let fills = guest_points.iter().any(|point| point.1 < now.guest);
    let guest = fills
        .then(|| trend(&guest_points, room.noise, 0.0, &quantile))
        .flatten()
        .filter(|trend| surely(trend, &quantile))
        .unwrap_or_default();
    let (overhead, regained) = overhead_trend(history, now, room, guest, &quantile);
    let growing = surely(&overhead, &quantile);
    let overhead = if growing {
        overhead
    } else {
        Trend { rate: 0.0, ..overhead }
    };
    let outlay = Outlay {
        available: (room.available - regained).max(0.0),
        overhead,
        guest,
        guest_left: room.guest_left,
    };
    let by_guest = guest.rate > overhead.rate.max(0.0) && room.guest_left >= outlay.available;
    let seen = if by_guest { guest.span } else { overhead.span };
    let reach = if room.standing { 2.0 * REACH } else { REACH };
    let arrival =
        arrival(&outlay, &quantile).filter(|arrival| (growing || by_guest) && arrival.expected <= reach * seen);
    Outlook {
        overhead,
        guest,
        growing,
        arrival,
        by_guest: by_guest && !growing,
    }
}

/// Its rate is positive beyond doubt.
fn surely(trend: &Trend, quantile: impl Fn(usize) -> f64) -> bool {
    trend.rate > SURE * quantile(trend.freedom) * trend.rate_sd
}

/// The trend of overhead, or, where it rises and falls, that of its peaks; and how much lies between the newest moment
/// and the peaks.
fn overhead_trend(
    history: &History,
    now: &Moment,
    room: &Room,
    guest: Trend,
    quantile: impl Fn(usize) -> f64,
) -> (Trend, f64) {
    let raw: Vec<(f64, f64)> = history.iter().map(|moment| (moment.t, moment.overhead)).collect();
    let at_hand = trend(&raw, room.noise, 0.0, &quantile).unwrap_or_default();
    let rate = at_hand.rate + guest.rate;
    let ahead = if rate > 0.0 {
        room.available / rate
    } else {
        f64::INFINITY
    };
    let since = now.t - LOOK_BACK * ahead.max(at_hand.span);
    let peaks = Peaks::of(history, since, (TOOTH * room.available).max(4.0 * room.noise));
    if peaks.below == 0.0 || peaks.points.len() < LEAST_POINTS {
        return (at_hand, 0.0);
    }
    let trend = trend(&peaks.points, room.noise, TEETH * peaks.below, &quantile).unwrap_or_default();
    let highest = peaks.points.last().map_or(now.overhead, |point| point.1);
    (trend, (highest - now.overhead).max(0.0))
}

/// The highest that overhead had been until each moment.
struct Peaks {
    points: Vec<(f64, f64)>,
    /// Longest that it stayed below, seconds.
    below: f64,
}

impl Peaks {
    fn of(history: &History, since: f64, tooth: f64) -> Self {
        let mut points: Vec<(f64, f64)> = Vec::new();
        let (mut highest, mut at, mut below) = (f64::NEG_INFINITY, f64::NEG_INFINITY, 0.0_f64);
        let mut fell = false;
        for moment in history.iter().filter(|moment| moment.t >= since) {
            if moment.peak >= highest {
                if fell {
                    below = below.max(moment.t - at);
                }
                (highest, at, fell) = (moment.peak, moment.t, false);
            }
            fell |= moment.overhead < highest - tooth;
            if fell {
                below = below.max(moment.t - at);
            }
            points.push((moment.t, highest));
        }
        Self { points, below }
    }
}
