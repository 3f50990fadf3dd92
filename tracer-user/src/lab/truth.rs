//! Ground truth: what the actors say they allocated.

use std::collections::BTreeMap;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::role::Role;

/// What an actor tells the lab, one JSON line each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A thread is there and waits for its first phase.
    Ready {
        /// When, CLOCK_BOOTTIME nanoseconds.
        t: u64,
        /// Thread id.
        tid: u32,
        /// Its name.
        comm: String,
        /// What it stands for.
        role: Role,
    },
    /// A thread allocated.
    Alloc(Alloc),
    /// A thread is through with a phase.
    Done {
        /// When.
        t: u64,
        /// Thread id.
        tid: u32,
        /// Which phase.
        phase: u32,
    },
    /// A thread could not do what its part says.
    Failed {
        /// Thread id.
        tid: u32,
        /// Why.
        error: String,
    },
}

impl Event {
    /// The thread that says it.
    #[must_use]
    pub const fn tid(&self) -> Option<u32> {
        match self {
            Self::Ready { tid, .. } | Self::Done { tid, .. } | Self::Failed { tid, .. } => Some(*tid),
            Self::Alloc(_) => None,
        }
    }
}

/// An allocation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alloc {
    /// When it was complete, CLOCK_BOOTTIME nanoseconds.
    pub t: u64,
    /// Thread id; 0 where the lab sees only the role (threads inside a real QEMU).
    pub tid: u32,
    /// What the thread stands for.
    pub role: Role,
    /// Name of the kind of memory ([`tracer_common::Kind`]).
    pub kind: String,
    /// `guest` or `overhead`.
    pub region: String,
    /// Bytes.
    pub bytes: u64,
    /// The kernel charges exactly this, page for page. Otherwise it charges at least this (a socket buffer's
    /// bookkeeping, for one, comes on top).
    pub exact: bool,
}

/// Now, CLOCK_BOOTTIME nanoseconds: the clock of recordings.
#[must_use]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every kernel since 2.6.39 has CLOCK_BOOTTIME");
    u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
}

/// One line of the truth: what one role of one process allocated of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Short name of the process.
    pub process: String,
    /// Role.
    pub role: Role,
    /// Kind.
    pub kind: String,
    /// Region.
    pub region: String,
}

/// Sum of the allocations under one [`Key`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whose and what.
    #[serde(flatten)]
    pub key: Key,
    /// Bytes.
    pub bytes: u64,
    /// Every part of it was exact.
    pub exact: bool,
    /// When the first of it was complete, CLOCK_BOOTTIME nanoseconds.
    pub first_t: u64,
    /// When the last of it was complete.
    pub last_t: u64,
}

/// What is kept under a [`Key`].
#[derive(Clone, Copy, Debug)]
struct Sum {
    bytes: u64,
    exact: bool,
    first_t: u64,
    last_t: u64,
}

/// Everything allocated since the first phase began.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    sums: BTreeMap<Key, Sum>,
}

impl Truth {
    /// Adds an allocation of a process.
    pub fn add(&mut self, process: &str, alloc: &Alloc) {
        let key = Key {
            process: process.to_owned(),
            role: alloc.role.clone(),
            kind: alloc.kind.clone(),
            region: alloc.region.clone(),
        };
        let sum = self.sums.entry(key).or_insert(Sum {
            bytes: 0,
            exact: true,
            first_t: alloc.t,
            last_t: alloc.t,
        });
        sum.bytes += alloc.bytes;
        sum.exact &= alloc.exact;
        sum.first_t = sum.first_t.min(alloc.t);
        sum.last_t = sum.last_t.max(alloc.t);
    }

    /// The sums, in the order of their keys.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.sums
            .iter()
            .map(|(key, sum)| Entry {
                key: key.clone(),
                bytes: sum.bytes,
                exact: sum.exact,
                first_t: sum.first_t,
                last_t: sum.last_t,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alloc(role: Role, kind: &str, region: &str, bytes: u64, exact: bool) -> Alloc {
        Alloc {
            t: 1,
            tid: 2,
            role,
            kind: kind.to_owned(),
            region: region.to_owned(),
            bytes,
            exact,
        }
    }

    #[test]
    fn sums_by_process_role_kind_and_region() {
        let mut truth = Truth::default();
        truth.add("qemu", &alloc(Role::Vcpu(0), "anon", "guest", 10, true));
        truth.add("qemu", &alloc(Role::Vcpu(0), "anon", "guest", 5, true));
        truth.add("qemu", &alloc(Role::Vcpu(0), "anon", "overhead", 3, true));
        truth.add(
            "passt",
            &alloc(Role::Helper("passt".to_owned()), "kmem", "overhead", 7, true),
        );
        truth.add(
            "passt",
            &alloc(Role::Helper("passt".to_owned()), "kmem", "overhead", 1, false),
        );
        let entries: Vec<_> = truth
            .entries()
            .into_iter()
            .map(|entry| (entry.bytes, entry.exact))
            .collect();
        assert_eq!(entries, [(8, false), (15, true), (3, true)]);
    }

    #[test]
    fn events_survive_their_line() {
        let event = Event::Alloc(alloc(
            Role::IoThread("iothread1".to_owned()),
            "file",
            "overhead",
            4096,
            true,
        ));
        let line = serde_json::to_string(&event).expect("plain data");
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Event>(&line).ok(), Some(event));
    }
}
