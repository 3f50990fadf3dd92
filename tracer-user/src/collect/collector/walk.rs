//! Reading every account, and burying those of threads that are gone.

use std::collections::{HashMap, HashSet};

use tracer_common::{Account, Kind, OVERFLOW_TID};

use super::{CollectError, Collector};
use crate::collect::departures::{Comm, ThreadKey};
use crate::collect::names::{Seen, is_alive};
use crate::collect::sink::EventSink;
use crate::collect::stacks::Stacks;
use crate::probe::boot_ns;
use crate::recording::event::Body;

/// Reading the map may take this share of the time between two readings: 1%.
const WALK_SHARE: u64 = 100;
/// Accounts are read at least this far apart: what has not filled a record shows after that.
const WALK_NS: u64 = 100_000_000;
/// Kinds whose charges are charges only. On the tracepoint backend page cache and kernel memory also count as charged
/// what moves out of their named parts when those are given back.
const PURE_KINDS: [u8; 2] = [Kind::Anon as u8, Kind::Shmem as u8];

impl<S: EventSink> Collector<S> {
    /// Reads every account, and ends those of threads that are gone for good. Returns those that stay, as read.
    pub(super) fn walk(&mut self) -> Result<Vec<(u32, Account)>, CollectError> {
        let began = boot_ns();
        // In this order: a thread that is gone now puts no more records into the ring, so once that is drained its
        // accounts say all there will ever be.
        let gone = self.gone_threads();
        let left = self.left_memcgs();
        self.drain()?;
        let mut accounts = self.tracer.accounts();
        let now = boot_ns();
        let killed = self.kills.first_waiting().filter(|&t| t > self.last_walk_ns);
        if killed.is_some() {
            // What was held when it was last looked, which is before the kill.
            self.tell_holdings(self.holdings.read_ns())?;
        }
        self.holdings.read(now, &self.tracer, &accounts);
        let is_over = |account: &Account| {
            gone.contains_key(&(account.key.tid, account.key.start_ns)) || left.contains(&account.key.memcg)
        };
        for (number, account) in &accounts {
            let key = &account.key;
            let ends = is_over(account);
            // Whoever opened the others closes them.
            let totals = if ends && key.tid != OVERFLOW_TID {
                self.tracer.end_account(*number, key)
            } else {
                *account
            };
            let seen = Seen {
                tid: key.tid,
                tgid: totals.tgid,
                start_ns: key.start_ns,
                memcg: key.memcg,
                comm: totals.comm,
            };
            if let Some(killed) = killed
                && PURE_KINDS.contains(&key.kind)
                && self.accounts.new_charges(key, totals.charged) < self.granularity
            {
                // What a thread had gathered without filling a record was charged before the kill; what is given back
                // since is the victim's end. More than a record's worth is in the ring by now, with its own time.
                self.charge(killed, key, &seen, totals.charged, 0)?;
            }
            self.charge(now, key, &seen, totals.charged, totals.uncharged)?;
            if ends {
                self.accounts.retire(key, totals.charged, totals.uncharged);
                if let Some(stacks) = &mut self.stacks {
                    stacks.retire(key);
                }
                self.holdings.retire(*number);
            }
        }
        for live in self.holdings.leave(&left, &mut self.tracer) {
            self.emit(now, Body::Live(live))?;
        }
        left.iter().for_each(|memcg| self.tracer.close_overflow(*memcg));
        if self.losses.take_exits_dropped() {
            self.find_silent_exits(&accounts);
        }
        accounts.retain(|(_, account)| !is_over(account));
        for ((tid, start_ns), comm) in gone {
            if let Some(body) = self.names.exited(tid, start_ns, &comm) {
                self.emit(now, body)?;
            }
        }
        self.emit_stacks(Stacks::events)?;
        self.update_loss()?;
        self.last_walk_ns = now;
        let took = boot_ns().saturating_sub(began);
        self.next_walk_ns = now + WALK_NS.max(took.saturating_mul(WALK_SHARE));
        Ok(accounts)
    }

    /// Emits what accounts hold, where that changed.
    pub(super) fn tell_holdings(&mut self, t: u64) -> Result<(), CollectError> {
        for live in self.holdings.changed(&mut self.tracer) {
            self.emit(t, Body::Live(live))?;
        }
        Ok(())
    }

    /// Memcgs whose accounts change no more: a program that began before one was left has ended by now.
    fn left_memcgs(&mut self) -> HashSet<u64> {
        let leaving = std::mem::replace(&mut self.leaving, self.targets.take_left());
        let targets = &self.targets;
        leaving.into_iter().filter(|memcg| !targets.watches(*memcg)).collect()
    }

    /// Threads that could not say that they exit, and did: the next walk buries them like the others.
    fn find_silent_exits(&mut self, accounts: &[(u32, Account)]) {
        for (_, account) in accounts {
            let key = &account.key;
            // Neither the overflow account nor the idle tasks are in /proc.
            let is_thread = key.tid != OVERFLOW_TID && key.tid != 0;
            if is_thread && !is_alive(&self.node, key.tid, key.start_ns) {
                self.departures.exits((key.tid, key.start_ns), account.comm);
            }
        }
    }

    /// Threads that have come to their very end.
    fn gone_threads(&mut self) -> HashMap<ThreadKey, Comm> {
        let node = &self.node;
        let is_alive = |(tid, start_ns)| is_alive(node, tid, start_ns);
        if self.detached {
            return self.departures.all(is_alive);
        }
        self.departures.gone(boot_ns(), is_alive)
    }

    /// Emits the losses when there are more than before.
    pub(super) fn update_loss(&mut self) -> Result<(), CollectError> {
        let now = boot_ns();
        let stacks_unknown = self.stacks.as_ref().map_or(0, Stacks::unknown);
        // What did not fit into the ring was late by at most the time since the accounts were last read.
        let late_ns = now.saturating_sub(self.last_walk_ns);
        match self.losses.news(&self.tracer, stacks_unknown, late_ns)? {
            Some(loss) => self.emit(now, Body::Loss(loss)),
            None => Ok(()),
        }
    }
}
