//! Whose overhead grows: sums by thread, added up by who is blamed.

use std::collections::HashMap;

use tracer_common::{Kind, Region};

use crate::ledger::account::ThreadKey;
use crate::ledger::culprit::Entity;
use crate::recording::event::Charge;

/// Threads kept apart; beyond that those at hand are added up by whom they belong to.
const MAX_THREADS: usize = 4 << 10;
/// Entities kept apart in the history; names come from pods, so there is no other bound to their number.
const MAX_ENTITIES: usize = 32;

/// Net bytes of one thread or entity.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    overhead: i64,
    /// Not placed yet, and of a kind that guest RAM can be of.
    unplaced: i64,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.overhead = self.overhead.saturating_add(other.overhead);
        self.unplaced = self.unplaced.saturating_add(other.unplaced);
    }
}

/// Growth of a pod's overhead by entity, without page cache, which the kernel can take back.
#[derive(Debug, Default)]
pub struct Drivers {
    threads: HashMap<ThreadKey, Sums>,
    /// Of threads that are no longer kept apart.
    folded: HashMap<Entity, Sums>,
    /// Names of the columns of [`Drivers::growth`].
    entities: Vec<Entity>,
    guest: i64,
}

impl Drivers {
    /// Adds a charge.
    pub fn charge(&mut self, charge: &Charge) {
        let net = i64::try_from(i128::from(charge.charged) - i128::from(charge.uncharged)).unwrap_or(0);
        let backs_guest = matches!(charge.kind, Kind::Anon | Kind::Shmem);
        let sums = match charge.region {
            Region::Guest => {
                self.guest = self.guest.saturating_add(net);
                return;
            }
            _ if charge.kind == Kind::File => return,
            Region::Unplaced if backs_guest => Sums {
                unplaced: net,
                ..Sums::default()
            },
            _ => Sums {
                overhead: net,
                ..Sums::default()
            },
        };
        let key = ThreadKey {
            tid: charge.tid,
            start_ns: charge.start_ns,
        };
        self.threads.entry(key).or_default().add(sums);
    }

    /// Guest RAM that the probes saw charged, net.
    pub const fn guest(&self) -> i64 {
        self.guest
    }

    /// Growth of each entity so far, by its column. `hidden` is guest RAM that became resident without being seen as
    /// such: it is taken from what is not placed yet, in proportion. Threads that `ended` are added up for good: in hours
    /// a pod has many.
    pub fn growth(
        &mut self,
        hidden: f64,
        entity: impl Fn(ThreadKey) -> Entity,
        ended: impl Fn(ThreadKey) -> bool,
    ) -> Vec<f64> {
        let too_many = self.threads.len() > MAX_THREADS;
        for (key, sums) in self.threads.extract_if(|key, _| too_many || ended(*key)) {
            self.folded.entry(entity(key)).or_default().add(sums);
        }
        let mut by_entity = self.folded.clone();
        for (key, sums) in &self.threads {
            by_entity.entry(entity(*key)).or_default().add(*sums);
        }
        let unplaced: f64 = by_entity.values().map(|sums| float(sums.unplaced.max(0))).sum();
        let left = if unplaced > 0.0 {
            1.0 - (hidden / unplaced).clamp(0.0, 1.0)
        } else {
            1.0
        };
        let mut growth = vec![0.0; self.entities.len()];
        // In a fixed order, so that the same recording always gives the same columns.
        let mut sorted: Vec<_> = by_entity.into_iter().collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        for (entity, sums) in sorted {
            let column = self.column(entity);
            if growth.len() <= column {
                growth.resize(column + 1, 0.0);
            }
            growth[column] += float(sums.overhead) + left * float(sums.unplaced);
        }
        growth
    }

    /// Who a column is.
    pub fn entity(&self, column: usize) -> Option<&Entity> {
        self.entities.get(column)
    }

    fn column(&mut self, entity: Entity) -> usize {
        if let Some(column) = self.entities.iter().position(|known| *known == entity) {
            return column;
        }
        if self.entities.len() + 1 < MAX_ENTITIES {
            self.entities.push(entity);
        } else if self.entities.len() < MAX_ENTITIES {
            self.entities.push(Entity::others());
        }
        self.entities.len() - 1
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes to fifteen digits")]
pub fn float(bytes: i64) -> f64 {
    bytes as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;

    fn charge(tid: u32, kind: Kind, region: Region, charged: u64) -> Charge {
        Charge {
            memcg: 1,
            tid,
            start_ns: 0,
            kind,
            region,
            charged,
            uncharged: 0,
        }
    }

    fn named(key: ThreadKey) -> Entity {
        Entity::new(&Role::Other(key.tid.to_string()), "x")
    }

    #[test]
    fn page_cache_and_guest_ram_drive_nothing() {
        let mut drivers = Drivers::default();
        drivers.charge(&charge(1, Kind::File, Region::Overhead, 1000));
        drivers.charge(&charge(1, Kind::Anon, Region::Guest, 500));
        drivers.charge(&charge(2, Kind::Anon, Region::Overhead, 70));
        assert_eq!(drivers.growth(0.0, named, |_| false), [70.0]);
        assert_eq!(drivers.entity(0), Some(&named(ThreadKey { tid: 2, start_ns: 0 })));
        assert_eq!(drivers.guest(), 500);
    }

    #[test]
    fn hidden_guest_ram_is_taken_from_what_has_no_place_yet() {
        let mut drivers = Drivers::default();
        drivers.charge(&charge(1, Kind::Anon, Region::Unplaced, 900));
        drivers.charge(&charge(2, Kind::Anon, Region::Unplaced, 100));
        drivers.charge(&charge(2, Kind::Kmem, Region::Unplaced, 40));
        let growth = drivers.growth(900.0, named, |_| false);
        assert!(
            (growth[0] - 90.0).abs() < 1e-6 && (growth[1] - 50.0).abs() < 1e-6,
            "{growth:?}"
        );
    }

    #[test]
    fn a_thread_that_ended_is_kept_in_the_sum_of_its_entity_alone() {
        let mut drivers = Drivers::default();
        for tid in 0..100 {
            drivers.charge(&charge(tid, Kind::Anon, Region::Overhead, 10));
            let worker = |_| Entity::new(&Role::BlockWorker, "qemu");
            let growth = drivers.growth(0.0, worker, |key| key.tid % 2 == 0);
            assert_eq!(growth, [10.0 * f64::from(tid + 1)]);
        }
        assert_eq!(drivers.threads.len(), 50);
    }

    #[test]
    fn short_threads_and_made_up_names_stay_bounded() {
        let mut drivers = Drivers::default();
        for tid in 0..10_000 {
            drivers.charge(&charge(tid, Kind::Anon, Region::Overhead, 1));
        }
        let growth = drivers.growth(0.0, named, |_| false);
        assert!(drivers.threads.is_empty());
        assert_eq!(growth.len(), MAX_ENTITIES);
        assert!((growth.iter().sum::<f64>() - 10_000.0).abs() < 1e-6);
        assert_eq!(drivers.entity(MAX_ENTITIES - 1), Some(&Entity::others()));
    }
}
