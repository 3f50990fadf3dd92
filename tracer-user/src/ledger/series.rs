//! A timeline of bounded length.

use tracer_common::Kind;

use super::culprit::Entity;
use super::resolve::Resolved;
use crate::recording::event::Sample;
use crate::units::clamp;

/// Points kept before every second one is dropped.
const MAX_POINTS: usize = 1024;

/// Entities told apart; names come from pods, so there is no other bound to their number.
const MAX_ENTITIES: usize = 256;

/// A pod at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Point {
    /// CLOCK_BOOTTIME nanoseconds.
    pub t: u64,
    /// Usage of the limiting memcg, bytes.
    pub usage: u64,
    /// Its limit, bytes; absent when there is none.
    pub limit: Option<u64>,
    /// Resident guest RAM, bytes, where known.
    pub guest_resident: Option<u64>,
    /// Page cache that reclaim could take, bytes.
    pub reclaimable_file: u64,
    /// Net growth of overhead since the window's start, bytes: index into [`Series::entities`], kind, growth. Cells
    /// without growth are left out.
    pub growth: Vec<(u16, Kind, i64)>,
}

/// Points at even steps, ever wider ones as the recording grows.
#[derive(Clone, Debug, Default)]
pub struct Series {
    points: Vec<Point>,
    entities: Vec<Entity>,
    /// Samples per point, as a power of two.
    stride_log2: u32,
    seen: u64,
}

impl Series {
    /// Counts a sample; says whether it is its turn to become a point.
    pub(super) fn turn(&mut self) -> bool {
        let turn = self.seen.is_multiple_of(1 << self.stride_log2);
        self.seen += 1;
        turn
    }

    /// Adds a point.
    pub(super) fn push(&mut self, t: u64, usage: u64, sample: &Sample, resolved: &Resolved<'_>) {
        let growth = self.growth(resolved);
        self.points.push(Point {
            t,
            usage,
            limit: sample.limit,
            guest_resident: sample.guest_resident,
            reclaimable_file: sample.reclaimable_file,
            growth,
        });
        if self.points.len() >= MAX_POINTS {
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride_log2 += 1;
        }
    }

    fn growth(&mut self, resolved: &Resolved<'_>) -> Vec<(u16, Kind, i64)> {
        let mut cells = std::collections::BTreeMap::new();
        for thread in &resolved.threads {
            let entity = self.index(&thread.entity);
            for (kind, bytes) in &thread.kinds {
                *cells.entry((entity, *kind)).or_insert(0_i128) += bytes;
            }
        }
        cells
            .into_iter()
            .filter(|(_, bytes)| *bytes != 0)
            .map(|((entity, kind), bytes)| (entity, kind, clamp(bytes)))
            .collect()
    }

    /// Number of an entity; what comes after the last number shares it.
    fn index(&mut self, entity: &Entity) -> u16 {
        let known = self.entities.iter().position(|known| known == entity);
        let index = known.unwrap_or_else(|| {
            if self.entities.len() + 1 < MAX_ENTITIES {
                self.entities.push(entity.clone());
            } else if self.entities.len() < MAX_ENTITIES {
                self.entities.push(Entity::others());
            }
            self.entities.len() - 1
        });
        u16::try_from(index).unwrap_or(u16::MAX)
    }

    /// The points, in order.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Who the growth of the points belongs to, by its index.
    #[must_use]
    pub fn entities(&self) -> &[Entity] {
        &self.entities
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;

    fn nobody() -> Resolved<'static> {
        Resolved {
            threads: Vec::new(),
            guest_growth: 0,
            placed_by_smaps: 0,
            reclassified: 0,
            region_unknown: 0,
        }
    }

    #[test]
    fn a_long_series_stays_short_and_even() {
        let mut series = Series::default();
        for t in 0..100_000 {
            if series.turn() {
                series.push(t, 0, &Sample::default(), &nobody());
            }
        }
        let times: Vec<u64> = series.points().iter().map(|point| point.t).collect();
        assert!((MAX_POINTS / 2..MAX_POINTS).contains(&times.len()), "{}", times.len());
        let step = times[1] - times[0];
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == step));
    }

    #[test]
    fn names_without_end_share_the_last_number() {
        let mut series = Series::default();
        for number in 0..1000 {
            let name = format!("thread {number}");
            series.index(&Entity::new(&Role::Other(name.clone()), &name));
        }
        assert_eq!(series.entities().len(), MAX_ENTITIES);
        assert_eq!(series.entities().last(), Some(&Entity::others()));
        let again = Entity::new(&Role::Other("thread 7".to_owned()), "thread 7");
        assert_eq!(series.index(&again), 7);
    }
}
