//! What a forecast remembers: the last half minute sample by sample, the time before ever more coarsely, hours in all.

use std::collections::VecDeque;

/// Moments kept at each resolution; each tier's are twice as far apart as those of the tier above.
const PER_TIER: usize = 32;
/// At a sample a second: 32 s, then 64 s, ..., two hours and a quarter in all.
const TIERS: usize = 8;

/// A pod at a sample. Bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// Seconds since the first one.
    pub t: f64,
    /// Usage without guest RAM and without page cache that reclaim could take.
    pub overhead: f64,
    /// The most that overhead was since the moment before.
    pub peak: f64,
    /// Guest RAM, with the page tables that come with it.
    pub guest: f64,
    /// Growth of each driver's overhead since tracing began.
    pub drivers: Vec<f64>,
}

/// Moments in order of time, in bounded memory.
#[derive(Clone, Debug, Default)]
pub struct History {
    tiers: [VecDeque<Moment>; TIERS],
}

impl History {
    /// Adds the newest moment.
    pub fn push(&mut self, moment: Moment) {
        let mut falling = Some(moment);
        for tier in &mut self.tiers {
            let Some(moment) = falling.take() else { return };
            tier.push_back(moment);
            if tier.len() > PER_TIER {
                // Of two neighbours the later stays, and with it the highest that either saw.
                let earlier = tier.pop_front();
                let later = tier.pop_front();
                falling = later.map(|later| Moment {
                    peak: earlier.map_or(later.peak, |earlier| later.peak.max(earlier.peak)),
                    ..later
                });
            }
        }
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Moment> {
        self.tiers.iter().rev().flatten()
    }

    /// The newest.
    pub fn last(&self) -> Option<&Moment> {
        self.tiers.first().and_then(VecDeque::back)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_fit_and_no_peak_is_forgotten() {
        let mut history = History::default();
        for second in 0..7200 {
            let overhead = if second == 4000 { 99.0 } else { 1.0 };
            history.push(Moment {
                t: f64::from(second),
                overhead,
                peak: overhead,
                ..Moment::default()
            });
        }
        let times: Vec<f64> = history.iter().map(|moment| moment.t).collect();
        assert!(times.len() <= PER_TIER * TIERS + TIERS, "{}", times.len());
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(times[0] < 600.0, "{}", times[0]);
        assert_eq!(history.last().map(|moment| moment.t), Some(7199.0));
        assert_eq!(history.iter().filter(|moment| moment.peak > 50.0).count(), 1);
    }
}
