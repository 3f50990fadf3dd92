//! How long threads waited for reclaim, in buckets.

/// Upper bounds of the buckets, seconds: from what nobody notices to what a guest's watchdog does.
const BOUNDS: [f64; 10] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0];

/// A classic histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stalls {
    counts: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
}

impl Stalls {
    /// Adds a stall.
    pub fn add(&mut self, nanoseconds: u64) {
        let seconds = seconds(nanoseconds);
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(nanoseconds);
    }

    /// Adds those of another.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, seconds.
    pub fn seconds(&self) -> f64 {
        seconds(self.nanoseconds)
    }

    /// Each bucket's upper bound, seconds, and how many are in it alone.
    pub fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
        bounds.zip(self.counts).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a stall to fifteen digits")]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut stalls = Stalls::default();
        for nanoseconds in [0, 100_000, 100_001, 1_000_000_000, 60_000_000_000] {
            stalls.add(nanoseconds);
        }
        let counts: Vec<u64> = stalls.buckets().into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
        assert_eq!(stalls.count(), 5);
        assert!((stalls.seconds() - 61.000_200_001).abs() < 1e-9);
    }
}
