//! What accounts hold whose pages are followed: from the moment an account is open until it holds nothing any more, which may
//! be long after its thread is gone.

use std::collections::{BTreeMap, HashSet};

use tracer_common::{Account, AccountKey, Kind, OVERFLOW_TID};

use crate::probe::Tracer;
use crate::recording::event::Live;

/// Accounts whose pages are followed.
#[derive(Debug, Default)]
pub struct Holdings {
    by_number: BTreeMap<u32, Holding>,
    /// When they were last read, CLOCK_BOOTTIME nanoseconds.
    read_ns: u64,
}

#[derive(Debug)]
struct Holding {
    account: AccountKey,
    /// Nothing will be charged to it any more.
    ended: bool,
    /// As last read: bytes held, and bytes that found no room.
    now: (u64, u64),
    /// As last told.
    told: (u64, u64),
}

impl Holdings {
    /// Reads what accounts hold, those that are new among them. Nothing where pages are not followed.
    pub fn read(&mut self, now: u64, tracer: &Tracer, accounts: &[(u32, Account)]) {
        for (number, account) in accounts {
            if tracer.follows(&account.key) {
                let holding = self.by_number.entry(*number);
                holding.or_insert_with(|| Holding::new(account.key));
            }
        }
        for (number, holding) in &mut self.by_number {
            holding.now = tracer.held(*number);
        }
        self.read_ns = now;
    }

    /// When that was.
    #[must_use]
    pub const fn read_ns(&self) -> u64 {
        self.read_ns
    }

    /// An account has ended, whose thread is gone. What it holds is followed on.
    pub fn retire(&mut self, number: u32) {
        if let Some(holding) = self.by_number.get_mut(&number) {
            holding.ended = true;
        }
    }

    /// What changed since this was last asked, as last read. Accounts that ended and hold nothing are told for the last time,
    /// and their numbers are free.
    pub fn changed(&mut self, tracer: &mut Tracer) -> Vec<Live> {
        let mut changed = Vec::new();
        self.by_number.retain(|number, holding| {
            changed.extend(holding.tell());
            let over = holding.ended && holding.now.0 == 0;
            if over {
                tracer.close_account(*number);
            }
            !over
        });
        changed
    }

    /// Memcgs are watched no more, and their threads' accounts have ended: what is given back there is seen no more. They are
    /// told to hold nothing.
    pub fn leave(&mut self, memcgs: &HashSet<u64>, tracer: &mut Tracer) -> Vec<Live> {
        let mut left: BTreeMap<u32, Holding> = BTreeMap::new();
        left.extend(
            self.by_number
                .extract_if(.., |_, holding| memcgs.contains(&holding.account.memcg)),
        );
        tracer.forget_pages(&left.keys().copied().collect());
        let mut changed = Vec::new();
        for (number, mut holding) in left {
            holding.now.0 = 0;
            changed.extend(holding.tell());
            // Whoever opened the others closes them.
            if holding.account.tid != OVERFLOW_TID {
                tracer.close_account(number);
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
