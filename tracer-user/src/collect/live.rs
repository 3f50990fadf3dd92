//! What accounts hold: followed from the moment an account has a slot in the page ledger until it holds nothing any more,
//! which may be long after its thread is gone.

use std::collections::{BTreeMap, HashSet};

use tracer_common::{AccountKey, AccountTotals, Kind, OVERFLOW_TID, OwnerTotals};

use crate::probe::Tracer;
use crate::recording::event::Live;

/// Accounts that have a slot.
#[derive(Debug, Default)]
pub struct Holdings {
    slots: BTreeMap<u32, Holding>,
    /// When the slots were last read, CLOCK_BOOTTIME nanoseconds.
    read_ns: u64,
}

#[derive(Debug)]
struct Holding {
    account: AccountKey,
    /// The account was removed: nothing will be charged to it any more.
    ended: bool,
    /// As last read: bytes held, and bytes that found no room.
    now: (u64, u64),
    /// As last told.
    told: (u64, u64),
}

impl Holdings {
    /// Reads what accounts hold, those that are new among them. Nothing where pages are not followed.
    pub fn read(&mut self, now: u64, tracer: &Tracer, accounts: &[(AccountKey, AccountTotals)]) {
        for (_, totals) in accounts {
            if !self.slots.contains_key(&totals.slot)
                && let Some(owner) = tracer.owner(totals.slot)
            {
                self.slots.insert(totals.slot, Holding::new(owner.account));
            }
        }
        for (slot, holding) in &mut self.slots {
            if let Some(owner) = tracer.owner(*slot) {
                holding.now = figures(&owner);
            }
        }
        self.read_ns = now;
    }

    /// When that was.
    #[must_use]
    pub const fn read_ns(&self) -> u64 {
        self.read_ns
    }

    /// An account was removed, whose thread is gone. What it holds is followed on.
    pub fn retire(&mut self, key: &AccountKey, slot: u32) {
        if let Some(holding) = self.slots.get_mut(&slot)
            && holding.account == *key
        {
            holding.ended = true;
        }
    }

    /// What changed since this was last asked, as last read. Accounts that ended and hold nothing are told for the last time,
    /// and their slots are free.
    pub fn changed(&mut self, tracer: &mut Tracer) -> Vec<Live> {
        let mut changed = Vec::new();
        self.slots.retain(|slot, holding| {
            changed.extend(holding.tell());
            let over = holding.ended && holding.now.0 == 0;
            if over {
                tracer.close_slot(*slot);
            }
            !over
        });
        changed
    }

    /// Memcgs are watched no more: what is given back there is seen no more. Their accounts are told to hold nothing.
    pub fn leave(&mut self, memcgs: &HashSet<u64>, tracer: &mut Tracer) -> Vec<Live> {
        let mut changed = Vec::new();
        let mut left = HashSet::new();
        // Whoever opened them closes them.
        let mut overflow = HashSet::new();
        self.slots.retain(|slot, holding| {
            let stays = !memcgs.contains(&holding.account.memcg);
            if !stays {
                left.insert(*slot);
                if holding.account.tid == OVERFLOW_TID {
                    overflow.insert(*slot);
                }
                holding.now.0 = 0;
                changed.extend(holding.tell());
            }
            stays
        });
        if tracer.forget_pages(&left) {
            for slot in left.difference(&overflow) {
                tracer.close_slot(*slot);
            }
        }
        changed
    }
}

impl Holding {
    const fn new(account: AccountKey) -> Self {
        Self {
            account,
            ended: false,
            now: (0, 0),
            told: (0, 0),
        }
    }

    /// What is new.
    fn tell(&mut self) -> Option<Live> {
        if self.now == self.told {
            return None;
        }
        self.told = self.now;
        Some(Live {
            memcg: self.account.memcg,
            tid: self.account.tid,
            start_ns: self.account.start_ns,
            kind: Kind::from_u8(self.account.kind)?,
            bytes: self.now.0,
            not_followed: self.now.1,
        })
    }
}

fn figures(owner: &OwnerTotals) -> (u64, u64) {
    (owner.live, owner.not_followed)
}
