//! The last half minute of a pod, sample by sample.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::ledger::{Entity, Resolved, ThreadKey};
use crate::units::clamp;

/// Samples kept: half a minute at one a second.
const STEPS: usize = 32;
/// Growth per second is taken over this time, nanoseconds: long enough for a saw-tooth not to flicker.
const RATE_WINDOW_NS: u64 = 10_000_000_000;
/// Groups of ended threads kept apart; names come from pods, so there is no other bound to their number.
const MAX_ENDED: usize = 256;

/// Something that grows, at the last samples; the newest last. What began later was zero before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Track(VecDeque<i64>);

impl Track {
    /// Adds the newest value.
    pub fn push(&mut self, value: i128) {
        if self.0.len() == STEPS {
            self.0.pop_front();
        }
        self.0.push_back(clamp(value));
    }

    /// Adds another track, sample by sample.
    pub fn add(&mut self, other: &Self) {
        while self.0.len() < other.0.len() {
            self.0.push_front(0);
        }
        for (mine, theirs) in self.0.iter_mut().rev().zip(other.0.iter().rev()) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// The value `steps` before the newest one.
    #[must_use]
    pub fn back(&self, steps: usize) -> i64 {
        let index = self.0.len().checked_sub(steps + 1);
        index.and_then(|index| self.0.get(index)).copied().unwrap_or(0)
    }

    /// By how much it changed at each of the last `count` samples, the newest last.
    #[must_use]
    pub fn changes(&self, count: usize) -> Vec<i64> {
        let known = self.0.len().saturating_sub(1).min(count);
        (0..known)
            .rev()
            .map(|steps| self.back(steps).saturating_sub(self.back(steps + 1)))
            .collect()
    }
}

/// A pod's last samples.
#[derive(Clone, Debug, Default)]
pub struct History {
    times: VecDeque<u64>,
    /// Usage less resident guest RAM.
    pub overhead: Track,
    /// Usage.
    pub usage: Track,
    threads: HashMap<ThreadKey, (Entity, Track)>,
    ended: BTreeMap<Entity, Track>,
}

impl History {
    /// Adds a sample, with what the accounts say at its time.
    pub fn step(&mut self, t: u64, usage: u64, guest: u64, resolved: &Resolved<'_>) {
        if self.times.len() == STEPS {
            self.times.pop_front();
        }
        self.times.push_back(t);
        self.usage.push(usage.into());
        self.overhead.push(i128::from(usage) - i128::from(guest));
        let mut before = std::mem::take(&mut self.threads);
        let mut ended: BTreeMap<&Entity, i128> = BTreeMap::new();
        for thread in &resolved.threads {
            let growth = thread.overhead_growth();
            if let Some(key) = thread.key {
                let mut track = before.remove(&key).map_or_else(Track::default, |(_, track)| track);
                track.push(growth);
                self.threads.insert(key, (thread.entity.clone(), track));
            } else {
                ended.insert(&thread.entity, growth);
            }
        }
        // The rest ended and was added to its group: so is its past.
        for (entity, track) in before.into_values() {
            if self.ended.len() < MAX_ENDED || self.ended.contains_key(&entity) {
                self.ended.entry(entity).or_default().add(&track);
            }
        }
        for (entity, growth) in ended {
            if let Some(track) = self.ended.get_mut(entity) {
                track.push(growth);
            } else if self.ended.len() < MAX_ENDED {
                let mut track = Track::default();
                track.push(growth);
                self.ended.insert(entity.clone(), track);
            }
        }
    }

    /// A thread's overhead growth.
    #[must_use]
    pub fn thread(&self, key: ThreadKey) -> Option<&Track> {
        self.threads.get(&key).map(|(_, track)| track)
    }

    /// Overhead growth of the ended threads of an entity that are no longer kept apart.
    #[must_use]
    pub fn ended(&self, entity: &Entity) -> Option<&Track> {
        self.ended.get(entity)
    }

    /// Bytes per second of one of this history's tracks, over the last ten seconds.
    #[must_use]
    pub fn rate(&self, track: &Track) -> f64 {
        let Some(&last) = self.times.back() else {
            return 0.0;
        };
        let far_enough = |t: &u64| last.saturating_sub(*t) >= RATE_WINDOW_NS;
        let steps = self.times.iter().rev().position(far_enough);
        let steps = steps.unwrap_or(self.times.len() - 1);
        let elapsed = self
            .times
            .iter()
            .rev()
            .nth(steps)
            .map_or(0, |t| last.saturating_sub(*t));
        if elapsed == 0 {
            return 0.0;
        }
        let grown = track.back(0).saturating_sub(track.back(steps));
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown to a few digits")]
        let rate = grown as f64 / (elapsed as f64 / 1e9);
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(values: &[i64]) -> Track {
        Track(values.iter().copied().collect())
    }

    #[test]
    fn tracks_are_added_from_their_newest_end() {
        let mut sum = track(&[5]);
        sum.add(&track(&[1, 2, 3]));
        assert_eq!(sum, track(&[1, 2, 8]));
        sum.add(&track(&[10]));
        assert_eq!(sum, track(&[1, 2, 18]));
        assert_eq!(sum.changes(8), [1, 16]);
        assert_eq!(sum.changes(1), [16]);
    }

    #[test]
    fn a_track_keeps_its_last_values_only() {
        let mut long = Track::default();
        for value in 0..100 {
            long.push(value);
        }
        assert_eq!(long.changes(1000), [1; STEPS - 1]);
        assert_eq!(long.back(0), 99);
        assert_eq!(long.back(STEPS), 0);
    }

    #[test]
    fn a_rate_is_taken_over_ten_seconds() {
        let mut history = History::default();
        for second in 0..20_u64 {
            history.times.push_back(second * 1_000_000_000);
            history
                .overhead
                .push(if second < 10 { 0 } else { i128::from(second - 9) * 100 });
        }
        assert!((history.rate(&history.overhead) - 100.0).abs() < 1e-9);
        let began_late = track(&[500]);
        assert!((history.rate(&began_late) - 50.0).abs() < 1e-9);
        assert!(History::default().rate(&began_late).abs() < 1e-9);
    }
}
