//! Adds charges of the same account up before they are written.
//!
//! A busy pod charges thousands of times a second, and a recording is of hours. What a thread was charged between two
//! samples says as much about it as the thousand steps that it took, so only that is written: the same sums, the same
//! report, a twentieth of the lines.

use std::collections::{BTreeMap, VecDeque};

use tracer_common::{Kind, Region};

use super::event::{Body, Charge, Event};

/// Accounts gathered at most: bounds what one frame can hold.
const MAX_ACCOUNTS: usize = 8 << 10;

/// Kills told apart. Those before were announced long ago, and nothing older than them comes any more.
const MAX_KILLS: usize = 16;

/// An account, and on which side of the kills: what was charged before a kill must not be mixed with what was charged
/// after it. In the order that compresses best: the accounts of a thread stand together.
type Key = (usize, u64, u32, u64, Kind, Region);

/// Charges that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Gather {
    accounts: BTreeMap<Key, (u64, u64)>,
    /// Time of the latest charge, by the number of kills before it.
    latest: BTreeMap<usize, u64>,
    kills: VecDeque<u64>,
}

impl Gather {
    /// Takes a charge, unless there is no room for it: then what is gathered has to be drained first.
    pub(super) fn take(&mut self, t: u64, charge: &Charge) -> bool {
        let side = self.kills.iter().filter(|&&kill| t > kill).count();
        let key = (
            side,
            charge.memcg,
            charge.tid,
            charge.start_ns,
            charge.kind,
            charge.region,
        );
        let full = self.accounts.len() >= MAX_ACCOUNTS;
        let sums = match self.accounts.get_mut(&key) {
            Some(sums) => sums,
            None if full => return false,
            None => self.accounts.entry(key).or_default(),
        };
        let added = sums
            .0
            .checked_add(charge.charged)
            .zip(sums.1.checked_add(charge.uncharged));
        let Some(added) = added else {
            return false;
        };
        *sums = added;
        let latest = self.latest.entry(side).or_default();
        *latest = t.max(*latest);
        true
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// Whether `body` says something that charges before and after it must be kept apart by. What names threads and
    /// processes does not, and may come before charges that are older.
    pub(super) fn is_bound(body: &Body) -> bool {
        !matches!(
            body,
            Body::Charge(_)
                | Body::Live(_)
                | Body::Process(_)
                | Body::Thread(_)
                | Body::Reclaim(_)
                | Body::Frame(_)
                | Body::Stack(_)
                | Body::StackCharge(_)
                | Body::Loss(_)
        )
    }

    /// From now on, charges up to `t` and later ones are not mixed.
    pub(super) fn kill(&mut self, t: u64) {
        if self.kills.len() >= MAX_KILLS {
            self.kills.pop_front();
        }
        self.kills.push_back(t);
    }

    /// What was gathered, as charge events with the time of the latest charge among them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Event> + use<> {
        let latest = std::mem::take(&mut self.latest);
        std::mem::take(&mut self.accounts).into_iter().map(
            move |((side, memcg, tid, start_ns, kind, region), (charged, uncharged))| Event {
                t: latest.get(&side).copied().unwrap_or_default(),
                body: Body::Charge(Charge {
                    memcg,
                    tid,
                    start_ns,
                    kind,
                    region,
                    charged,
                    uncharged,
                }),
            },
        )
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
