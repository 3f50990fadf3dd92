//! Who is to blame.

use std::collections::BTreeMap;

use tracer_common::Kind;

use super::account::{ThreadKey, earliest};
use super::resolve::{Resolved, ThreadGrowth};
use crate::role::Role;

/// Who blame is given to: a role within QEMU, or any other process as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entity {
    /// Its role.
    pub role: Role,
    /// Name of its process.
    pub process: String,
}

impl Entity {
    pub(super) fn new(role: &Role, process: &str) -> Self {
        Self {
            role: role.clone(),
            process: process.to_owned(),
        }
    }

    /// Threads that no event named.
    pub(super) fn unknown() -> Self {
        Self::new(&Role::Other("unknown".to_owned()), "unknown")
    }

    /// Those that are too many to be told apart.
    #[must_use]
    pub fn others() -> Self {
        Self::new(&Role::Other("others".to_owned()), "others")
    }

    /// Threads that found no room in the kernel's map.
    pub(super) fn overflow() -> Self {
        Self::new(&Role::Other("overflow".to_owned()), "overflow")
    }
}

/// The entity whose overhead grew most.
#[derive(Clone, Debug, PartialEq)]
pub struct Culprit {
    /// Who.
    pub entity: Entity,
    /// Its thread, when it is a single one.
    pub thread: Option<ThreadKey>,
    /// Growth of its overhead, bytes.
    pub bytes: i128,
    /// Part of all positive growth of overhead, 0 to 1.
    pub share: f64,
    /// The kind that grew most.
    pub kind: Kind,
    /// When its growth began, at the earliest: the last sample before it.
    pub first_seen: u64,
    /// Bytes per second from then to the window's end.
    pub rate: f64,
}

/// What an entity's threads add up to.
struct Sum {
    bytes: i128,
    kinds: BTreeMap<Kind, i128>,
    threads: u64,
    key: Option<ThreadKey>,
    first_t: Option<u64>,
    growth_t: Option<u64>,
}

/// Guest RAM per byte of page tables that come with it whoever touches it: each page of 4 KiB takes an entry of 8 bytes
/// in QEMU's page tables and another in KVM's.
const GUEST_RAM_PER_PAGE_TABLE: i128 = 4096 / (8 + 8);

/// The culprit, unless nothing grew by more than the tolerance and the page tables that guest RAM takes.
#[must_use]
pub fn culprit(resolved: &Resolved<'_>, tolerance: u64, window: (u64, u64)) -> Option<Culprit> {
    let mut sums: BTreeMap<&Entity, Sum> = BTreeMap::new();
    for thread in &resolved.threads {
        add(&mut sums, thread);
    }
    let positive: i128 = sums.values().map(|sum| sum.bytes.max(0)).sum();
    let (entity, sum) = sums.into_iter().max_by_key(|(_, sum)| sum.bytes)?;
    if sum.bytes <= i128::from(tolerance) + resolved.guest_growth.max(0) / GUEST_RAM_PER_PAGE_TABLE {
        return None;
    }
    let (kind, _) = sum.kinds.iter().max_by_key(|(_, bytes)| **bytes)?;
    let first_seen = sum.growth_t.or(sum.first_t).unwrap_or(window.0).max(window.0);
    Some(Culprit {
        entity: entity.clone(),
        thread: sum.key.filter(|_| sum.threads == 1),
        bytes: sum.bytes,
        share: ratio(sum.bytes, positive),
        kind: *kind,
        first_seen,
        rate: ratio(sum.bytes, i128::from(window.1.saturating_sub(first_seen).max(1))) * 1e9,
    })
}

fn add<'a>(sums: &mut BTreeMap<&'a Entity, Sum>, thread: &'a ThreadGrowth<'_>) {
    let sum = sums.entry(&thread.entity).or_insert(Sum {
        bytes: 0,
        kinds: BTreeMap::new(),
        threads: 0,
        key: None,
        first_t: None,
        growth_t: None,
    });
    sum.bytes += thread.overhead_growth();
    for (kind, bytes) in &thread.kinds {
        *sum.kinds.entry(*kind).or_default() += bytes;
    }
    sum.threads += thread.threads();
    sum.key = thread.key;
    sum.first_t = earliest(sum.first_t, thread.account.first_t);
    sum.growth_t = earliest(sum.growth_t, thread.account.growth_t);
}

#[expect(clippy::cast_precision_loss, reason = "a share and a rate are given to a few digits")]
fn ratio(part: i128, whole: i128) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
