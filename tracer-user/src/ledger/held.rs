//! What accounts hold: bytes that were charged to them and not given back, by whomever.

use std::collections::{BTreeMap, HashMap};

use tracer_common::Kind;

use super::Ledger;
use super::account::ThreadKey;
use crate::recording::event::Live;
use crate::role::Role;

/// Accounts that are told apart; a tracer has no more. What a made-up recording has beyond that is left out.
const MAX_ACCOUNTS: usize = 1 << 16;

/// What the accounts of a pod hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    threads: HashMap<ThreadKey, BTreeMap<(u64, Kind), u64>>,
    accounts: usize,
    not_followed: HashMap<(u64, ThreadKey, Kind), u64>,
    /// When something was last told.
    at: Option<u64>,
}

impl Held {
    /// Takes what an account holds now.
    pub(super) fn take(&mut self, t: u64, live: &Live) {
        self.at = self.at.max(Some(t));
        let key = ThreadKey {
            tid: live.tid,
            start_ns: live.start_ns,
        };
        self.not_followed(live, key);
        let account = (live.memcg, live.kind);
        if let Some(accounts) = self.threads.get_mut(&key)
            && let Some(bytes) = accounts.get_mut(&account)
        {
            if live.bytes > 0 {
                *bytes = live.bytes;
                return;
            }
            accounts.remove(&account);
            self.accounts -= 1;
            if accounts.is_empty() {
                self.threads.remove(&key);
            }
            return;
        }
        if live.bytes > 0 && self.accounts < MAX_ACCOUNTS {
            self.threads.entry(key).or_default().insert(account, live.bytes);
            self.accounts += 1;
        }
    }

    fn not_followed(&mut self, live: &Live, key: ThreadKey) {
        let account = (live.memcg, key, live.kind);
        if live.not_followed > 0 && (self.not_followed.len() < MAX_ACCOUNTS || self.not_followed.contains_key(&account))
        {
            self.not_followed.insert(account, live.not_followed);
        }
    }

    /// Bytes by kind that a thread's accounts hold.
    #[must_use]
    pub fn of(&self, key: ThreadKey) -> BTreeMap<Kind, u64> {
        let mut kinds = BTreeMap::new();
        for (&(_, kind), &bytes) in self.threads.get(&key).into_iter().flatten() {
            let sum: &mut u64 = kinds.entry(kind).or_default();
            *sum = sum.saturating_add(bytes);
        }
        kinds
    }

    /// Threads whose accounts hold something, be they alive or not, in no particular order.
    pub fn threads(&self) -> impl Iterator<Item = ThreadKey> {
        self.threads.keys().copied()
    }

    /// Bytes by kind that roles hold, whether or not their threads are still there.
    #[must_use]
    pub fn by_role(&self, ledger: &Ledger) -> BTreeMap<Role, BTreeMap<Kind, u64>> {
        let mut roles: BTreeMap<Role, BTreeMap<Kind, u64>> = BTreeMap::new();
        for key in self.threads() {
            let kinds = roles.entry(ledger.entity(key).role).or_default();
            for (kind, bytes) in self.of(key) {
                let sum = kinds.entry(kind).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
        roles
    }

    /// Bytes by kind that all accounts hold.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<Kind, u64> {
        let mut kinds = BTreeMap::new();
        for (&(_, kind), &bytes) in self.threads.values().flatten() {
            let sum: &mut u64 = kinds.entry(kind).or_default();
            *sum = sum.saturating_add(bytes);
        }
        kinds
    }

    /// Bytes that there was no room to follow.
    #[must_use]
    pub fn without_room(&self) -> u64 {
        self.not_followed
            .values()
            .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// When something was last told; what is held has not changed since.
    #[must_use]
    pub const fn at(&self) -> Option<u64> {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(tid: u32, kind: Kind, bytes: u64) -> Live {
        Live {
            memcg: 1,
            tid,
            start_ns: 2,
            kind,
            bytes,
            not_followed: 0,
        }
    }

    #[test]
    fn the_last_word_counts_and_nothing_is_forgotten() {
        let mut held = Held::default();
        held.take(1, &live(7, Kind::Anon, 300));
        held.take(2, &live(7, Kind::File, 20));
        held.take(3, &live(7, Kind::Anon, 10));
        held.take(4, &live(8, Kind::Anon, 5));
        let key = ThreadKey { tid: 7, start_ns: 2 };
        assert_eq!(held.of(key), BTreeMap::from([(Kind::Anon, 10), (Kind::File, 20)]));
        assert_eq!(held.kinds(), BTreeMap::from([(Kind::Anon, 15), (Kind::File, 20)]));
        held.take(5, &live(7, Kind::Anon, 0));
        held.take(6, &live(7, Kind::File, 0));
        assert_eq!(held.threads().map(|key| key.tid).collect::<Vec<_>>(), [8]);
        assert_eq!(held.at(), Some(6));
    }

    #[test]
    fn a_recording_without_end_takes_no_memory_without_end() {
        let mut held = Held::default();
        for tid in 0..100_000 {
            held.take(1, &live(tid, Kind::Anon, 1));
        }
        assert_eq!(held.threads().count(), MAX_ACCOUNTS);
        held.take(2, &live(0, Kind::Anon, 0));
        held.take(3, &live(99_999, Kind::Anon, 1));
        assert_eq!(held.threads().count(), MAX_ACCOUNTS);
    }
}
