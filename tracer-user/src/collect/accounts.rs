//! From cumulative totals to deltas, each byte once, whichever way it comes: by a record or by reading the map.

use std::collections::HashMap;

use tracer_common::{AccountKey, Kind, Region};

use crate::recording::event::{Charge, Total};

/// Charged and uncharged bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    charged: u64,
    uncharged: u64,
}

/// What has been seen of every account.
#[derive(Debug, Default)]
pub struct Accounts {
    seen: HashMap<AccountKey, Sums>,
    /// Final totals of removed accounts.
    retired: HashMap<(u64, Kind, Region), Sums>,
}

impl Accounts {
    /// Takes an account's totals and returns what is new in them. Totals older than those already seen add nothing:
    /// both counters only ever grow.
    pub fn update(&mut self, key: &AccountKey, charged: u64, uncharged: u64) -> Option<Charge> {
        let (kind, region) = (Kind::from_u8(key.kind)?, Region::from_u8(key.region)?);
        let seen = self.seen.entry(*key).or_default();
        let delta = Sums {
            charged: charged.saturating_sub(seen.charged),
            uncharged: uncharged.saturating_sub(seen.uncharged),
        };
        seen.charged += delta.charged;
        seen.uncharged += delta.uncharged;
        (delta != Sums::default()).then_some(Charge {
            memcg: key.memcg,
            tid: key.tid,
            start_ns: key.start_ns,
            kind,
            region,
            charged: delta.charged,
            uncharged: delta.uncharged,
        })
    }

    /// How many bytes of these charges were not seen before.
    #[must_use]
    pub fn new_charges(&self, key: &AccountKey, charged: u64) -> u64 {
        charged.saturating_sub(self.seen.get(key).map_or(0, |seen| seen.charged))
    }

    /// The account was removed from the map with these totals.
    pub fn retire(&mut self, key: &AccountKey, charged: u64, uncharged: u64) {
        self.seen.remove(key);
        if let (Some(kind), Some(region)) = (Kind::from_u8(key.kind), Region::from_u8(key.region)) {
            let sums = self.retired.entry((key.memcg, kind, region)).or_default();
            sums.charged += charged;
            sums.uncharged += uncharged;
        }
    }

    /// The truth of the maps: what the kernel holds now plus what was removed from it, by memcg, kind and region.
    pub fn totals(&self, in_map: impl Iterator<Item = (AccountKey, u64, u64)>) -> Vec<Total> {
        let mut sums = self.retired.clone();
        for (key, charged, uncharged) in in_map {
            if let (Some(kind), Some(region)) = (Kind::from_u8(key.kind), Region::from_u8(key.region)) {
                let entry = sums.entry((key.memcg, kind, region)).or_default();
                entry.charged += charged;
                entry.uncharged += uncharged;
            }
        }
        let mut totals: Vec<Total> = sums
            .into_iter()
            .map(|((memcg, kind, region), sums)| Total {
                memcg,
                kind,
                region,
                charged: sums.charged,
                uncharged: sums.uncharged,
            })
            .collect();
        totals.sort_by_key(|total| (total.memcg, total.kind, total.region));
        totals
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tid: u32) -> AccountKey {
        AccountKey {
            memcg: 1,
            start_ns: 2,
            tid,
            kind: Kind::Anon as u8,
            region: Region::Overhead as u8,
            padding: 0,
        }
    }

    #[test]
    fn a_late_record_adds_nothing_twice() {
        let mut accounts = Accounts::default();
        assert_eq!(accounts.update(&key(1), 100, 0).map(|charge| charge.charged), Some(100));
        assert_eq!(
            accounts
                .update(&key(1), 300, 50)
                .map(|charge| (charge.charged, charge.uncharged)),
            Some((200, 50))
        );
        assert_eq!(
            accounts.update(&key(1), 200, 0),
            None,
            "a record that was in the ring while the map was read"
        );
    }

    proptest! {
        /// However reports of growing totals are dropped, repeated and reordered, once the last is seen the deltas
        /// add up to it.
        #[test]
        fn deltas_add_up_to_the_totals(steps in proptest::collection::vec((0_u64..1000, 0_u64..1000), 1..50), order in any::<u64>()) {
            let mut totals = Vec::new();
            let mut last = (0, 0);
            for (charged, uncharged) in steps {
                last = (last.0 + charged, last.1 + uncharged);
                totals.push(last);
            }
            let count = totals.len() as u64;
            let mut accounts = Accounts::default();
            let (mut charged, mut uncharged) = (0, 0);
            let picks = (0..count).map(|i| totals[usize::try_from((i.wrapping_mul(order | 1)) % count).unwrap_or(0)]);
            for total in picks.chain([last]) {
                if let Some(charge) = accounts.update(&key(9), total.0, total.1) {
                    charged += charge.charged;
                    uncharged += charge.uncharged;
                }
            }
            prop_assert_eq!((charged, uncharged), last);
            let map = accounts.totals([(key(9), last.0, last.1)].into_iter());
            prop_assert_eq!((map[0].charged, map[0].uncharged), last);
        }
    }
}
