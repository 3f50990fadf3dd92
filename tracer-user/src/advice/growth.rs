//! Whether growth came to an end while it was watched.

use tracer_common::Kind;

use crate::ledger::Series;

/// The end of growth: what comes after this part of the peak (percent) is the tail.
const LEVEL: i128 = 98;
/// Where growth begins, percent of the peak.
const START: i128 = 2;
/// A tail of at least this part of the time that growth took (percent) is a plateau.
const TAIL: u128 = 15;

/// How something grew over the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// The most that it grew by, bytes.
    pub peak: u64,
    /// Growth came to an end, and the end was watched for long enough to say so.
    pub plateau: bool,
    /// How long growth took, nanoseconds.
    pub grew_ns: u64,
}

/// Growth at moments in order: nanoseconds, bytes.
pub type Curve = Vec<(u64, i128)>;

/// Growth of everybody's overhead but for page cache, or of one entity's.
#[must_use]
pub fn curve(series: &Series, entity: Option<u16>) -> Curve {
    series
        .points()
        .iter()
        .map(|point| {
            let cells = point.growth.iter();
            let sum = cells
                .filter(|(index, kind, _)| *kind != Kind::File && entity.is_none_or(|entity| entity == *index))
                .map(|(_, _, bytes)| i128::from(*bytes))
                .sum();
            (point.t, sum)
        })
        .collect()
}

/// Finds the peak, and whether what came before the window's end was a plateau.
#[must_use]
pub fn growth(curve: &[(u64, i128)]) -> Growth {
    let peak = curve.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(0);
    let (Some((end, _)), true) = (curve.last(), peak > 0) else {
        return Growth::default();
    };
    let above = curve.iter().position(|(_, bytes)| *bytes * 100 > peak * START);
    let began = above.and_then(|index| curve.get(index.saturating_sub(1)));
    let level = level_time(curve, peak);
    let grew_ns = level.saturating_sub(began.map_or(level, |(t, _)| *t));
    let tail = end.saturating_sub(level);
    Growth {
        peak: u64::try_from(peak).unwrap_or(u64::MAX),
        plateau: tail > 0 && u128::from(tail) * 100 >= u128::from(grew_ns) * TAIL,
        grew_ns,
    }
}

/// When the level was reached. Samples are a second apart, and growth may have ended soon after the one before: as
/// soon as the fastest growth seen until then allows.
fn level_time(curve: &[(u64, i128)], peak: i128) -> u64 {
    let target = peak * LEVEL / 100;
    let mut fastest = 0.0_f64;
    let mut before: Option<(u64, i128)> = None;
    for &(t, bytes) in curve {
        if let Some((t0, bytes0)) = before {
            let span = t.saturating_sub(t0);
            if span > 0 {
                fastest = fastest.max(ratio(bytes - bytes0, span));
            }
            if bytes >= target {
                let needed = if fastest > 0.0 {
                    ratio(target - bytes0, 1) / fastest
                } else {
                    0.0
                };
                return t0.saturating_add(nanoseconds(needed)).min(t);
            }
        } else if bytes >= target {
            return t;
        }
        before = Some((t, bytes));
    }
    curve.last().map_or(0, |(t, _)| *t)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate within a second")]
fn ratio(bytes: i128, span: u64) -> f64 {
    bytes as f64 / span as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float becomes the nearest number that there is"
)]
fn nanoseconds(value: f64) -> u64 {
    value.max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const MIB: i128 = 1 << 20;

    /// One point per second.
    fn of(mib: &[i128]) -> Growth {
        let curve: Curve = (0..).map(|n| n * SECOND).zip(mib.iter().map(|mib| mib * MIB)).collect();
        growth(&curve)
    }

    #[test]
    fn steady_growth_to_the_end_is_no_plateau() {
        assert!(!of(&[0, 0, 24, 48, 72, 96, 120, 144]).plateau);
        // A kill cuts the last second short.
        let mut curve: Curve = (0..8).map(|n| (n * SECOND, i128::from(n) * 24 * MIB)).collect();
        curve.push((7 * SECOND + SECOND / 3, 7 * 24 * MIB + 8 * MIB));
        assert!(!growth(&curve).plateau);
    }

    #[test]
    fn growth_that_ended_is_a_plateau() {
        let grown = of(&[0, 56, 112, 168, 224, 260, 260]);
        assert_eq!((grown.peak, grown.plateau), (260 << 20, true));
        // What is given back again did not go on growing.
        assert!(of(&[0, 50, 100, 100, 40, 40]).plateau);
        // It ended within the second before the last sample.
        assert!(of(&[0, 0, 200, 240]).plateau);
    }

    #[test]
    fn nothing_is_no_growth() {
        assert_eq!(of(&[0, 0, 0]), Growth::default());
        assert_eq!(of(&[]), Growth::default());
        assert_eq!(of(&[0, -5]), Growth::default());
    }

    proptest::proptest! {
        #[test]
        fn no_curve_is_too_odd(points in proptest::collection::vec((0..u64::MAX, i64::MIN..i64::MAX), 0..40)) {
            let mut curve: Curve = points.into_iter().map(|(t, bytes)| (t, i128::from(bytes))).collect();
            curve.sort_unstable();
            let grown = growth(&curve);
            let most = curve.iter().map(|(_, bytes)| (*bytes).max(0)).max().unwrap_or(0);
            proptest::prop_assert_eq!(i128::from(grown.peak), most);
        }
    }
}
