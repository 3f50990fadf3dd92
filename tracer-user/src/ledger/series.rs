//! A timeline of bounded length.

/// Points kept before every second one is dropped.
const MAX_POINTS: usize = 1024;

/// A pod at one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// CLOCK_BOOTTIME nanoseconds.
    pub t: u64,
    /// Usage of the limiting memcg.
    pub usage: u64,
    /// Resident guest RAM, where known.
    pub guest_resident: Option<u64>,
}

/// Points at even steps, ever wider ones as the recording grows.
#[derive(Clone, Debug, Default)]
pub struct Series {
    points: Vec<Point>,
    /// Samples per point, as a power of two.
    stride_log2: u32,
    seen: u64,
}

impl Series {
    /// Adds a point, if it is its turn.
    pub fn push(&mut self, point: Point) {
        let turn = self.seen.is_multiple_of(1 << self.stride_log2);
        self.seen += 1;
        if !turn {
            return;
        }
        self.points.push(point);
        if self.points.len() >= MAX_POINTS {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride_log2 += 1;
        }
    }

    /// The points, in order.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_series_stays_short_and_even() {
        let mut series = Series::default();
        for t in 0..100_000 {
            series.push(Point {
                t,
                usage: 0,
                guest_resident: None,
            });
        }
        let times: Vec<u64> = series.points().iter().map(|point| point.t).collect();
        assert!((MAX_POINTS / 2..MAX_POINTS).contains(&times.len()), "{}", times.len());
        let step = times[1] - times[0];
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == step));
    }
}
