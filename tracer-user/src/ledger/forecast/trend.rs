//! How fast something grows: a robust slope over the longest stretch that one slope describes.
//!
//! The slope is the median of the slopes of all pairs of points (Theil 1950, Sen 1968): a step, or a quarter of the
//! points being anything at all, does not move it. How far it can be trusted comes from how much parts of the stretch
//! differ from each other, not from the residuals: memory use wanders, it does not scatter around a line.
//!
//! The stretch begins with the newest points and is lengthened backwards as long as what is added grew as the rest
//! would have it. So the onset of growth after hours of quiet shows within seconds, and steady growth is measured ever
//! more exactly.

/// Points of the shortest stretch: two that agree may be one step that fell between two samples.
pub const LEAST_POINTS: usize = 4;
/// Each stretch has this many times the points of the one before.
const WIDEN: f64 = 1.3;
/// Deviations by which an older stretch may be off are multiplied by this: a dozen stretches are tried, and one that is
/// off by chance must not end the search.
const CHANGE: f64 = 3.0;
/// Growth by less than this part of the rate is none.
const BARELY: f64 = 0.1;
/// Points that enter the pairwise slopes.
const MOST_PAIRED: usize = 40;
/// Parts that a stretch is divided into to see how much they differ.
const PARTS: usize = 8;

/// A slope and how far to trust it. Bytes and seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trend {
    /// Bytes per second.
    pub rate: f64,
    /// Standard deviation of the rate.
    pub rate_sd: f64,
    /// Variance that a second adds to growth: the rate's own wandering.
    pub wander: f64,
    /// How long the stretch is, seconds.
    pub span: f64,
    /// Degrees of freedom of the deviations.
    pub freedom: usize,
    /// By which factor rates were off from this one as long as it has been growing, on average over that time: its natural
    /// logarithm, unsigned. Rates that changed will change again.
    pub changed: f64,
}

/// The trend of the longest stretch up to the newest point that one slope describes. `noise` is how exact points are,
/// `quantile` how many standard deviations still agree for so many degrees of freedom; stretches shorter than
/// `least_span` are not looked at. `None` when there are too few points.
pub fn trend(points: &[(f64, f64)], noise: f64, least_span: f64, quantile: impl Fn(usize) -> f64) -> Option<Trend> {
    let newest = points.last()?.0;
    let long_enough = |count: usize| newest - points[points.len() - count].0 >= least_span;
    let mut count = LEAST_POINTS;
    while count < points.len() && !long_enough(count) {
        count = widened(count);
    }
    count = count.min(points.len());
    if count < LEAST_POINTS {
        return None;
    }
    let (mut chosen, count) = widest(points, count, noise, &quantile)?;
    chosen.changed = changes(&chosen, &points[..=points.len() - count], noise, &quantile);
    Some(chosen)
}

/// How far the rates of the stretches before differ from a trend's, back to where it was not growing yet: the root of the
/// mean square of the logarithm of their ratio, by time, the trend's own stretch included.
fn changes(trend: &Trend, mut before: &[(f64, f64)], noise: f64, quantile: impl Fn(usize) -> f64) -> f64 {
    let (mut seconds, mut squares) = (trend.span, 0.0);
    while let Some((older, count)) = widest(before, LEAST_POINTS, noise, &quantile)
        && older.rate > quantile(older.freedom) * older.rate_sd
        && trend.rate > 0.0
        && older.rate > BARELY * trend.rate
        && older.rate * BARELY < trend.rate
    {
        seconds += older.span;
        squares += older.span * (older.rate / trend.rate).ln().powi(2);
        before = &before[..=before.len() - count];
    }
    if seconds > 0.0 { (squares / seconds).sqrt() } else { 0.0 }
}

/// The longest stretch of at least `count` points that one slope describes, and how many points it has.
fn widest(
    points: &[(f64, f64)],
    mut count: usize,
    noise: f64,
    quantile: impl Fn(usize) -> f64,
) -> Option<(Trend, usize)> {
    if points.len() < count {
        return None;
    }
    let mut chosen = fit(&points[points.len() - count..], noise)?;
    while count < points.len() {
        let wider = widened(count).min(points.len());
        let (older, start) = (points[points.len() - wider], points[points.len() - count]);
        let seconds = start.0 - older.0;
        let off = (start.1 - older.1 - chosen.rate * seconds).abs();
        let deviation = (chosen.wander * seconds + (chosen.rate_sd * seconds).powi(2) + 2.0 * noise.powi(2)).sqrt();
        if off > CHANGE * quantile(chosen.freedom) * deviation {
            break;
        }
        chosen = fit(&points[points.len() - wider..], noise)?;
        count = wider;
    }
    Some((chosen, count))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a few hundred points"
)]
fn widened(count: usize) -> usize {
    (count as f64 * WIDEN).ceil() as usize
}

/// The trend of all these points.
fn fit(points: &[(f64, f64)], noise: f64) -> Option<Trend> {
    let ((first, start), (last, end)) = (*points.first()?, *points.last()?);
    let span = last - first;
    if span <= 0.0 {
        return None;
    }
    let rate = median_slope(points)?;
    let mean = (end - start) / span;
    let parts = parts(points);
    let freedom = parts.len().saturating_sub(1).max(1);
    let squares: f64 = parts
        .iter()
        .map(|(seconds, growth)| (growth - mean * seconds).powi(2) / seconds)
        .sum();
    let part = span / count(parts.len().max(1));
    let wander = (squares / count(freedom) - 2.0 * noise.powi(2) / part).max(0.0);
    Some(Trend {
        rate,
        rate_sd: (wander / span + 2.0 * (noise / span).powi(2)).sqrt(),
        wander,
        span,
        freedom,
        changed: 0.0,
    })
}

/// Duration and growth of consecutive parts.
fn parts(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let steps = points.len() - 1;
    let wanted = PARTS.min(steps);
    let mut parts = Vec::with_capacity(wanted);
    let mut from = 0;
    for part in 1..=wanted {
        let to = part * steps / wanted;
        let (a, b) = (points[from], points[to]);
        if b.0 > a.0 {
            parts.push((b.0 - a.0, b.1 - a.1));
        }
        from = to;
    }
    parts
}

/// The median of the slopes of all pairs of (at most [`MOST_PAIRED`]) points.
fn median_slope(points: &[(f64, f64)]) -> Option<f64> {
    let paired = points.len().min(MOST_PAIRED);
    let picked: Vec<(f64, f64)> = (0..paired)
        .map(|index| points[index * (points.len() - 1) / (paired - 1).max(1)])
        .collect();
    let mut slopes: Vec<f64> = Vec::with_capacity(paired * (paired - 1) / 2);
    for (index, a) in picked.iter().enumerate() {
        slopes.extend(
            picked[index + 1..]
                .iter()
                .filter(|b| b.0 > a.0)
                .map(|b| (b.1 - a.1) / (b.0 - a.0)),
        );
    }
    median(&mut slopes)
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let (_, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*upper)
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
fn count(number: usize) -> f64 {
    number as f64
}
