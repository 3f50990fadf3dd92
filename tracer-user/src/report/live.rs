//! What is held at the end of a window: by thread, by role, and what nobody followed.

use std::collections::BTreeMap;

use serde::Serialize;
use tracer_common::Kind;

use super::ThreadReport;
use super::build::utc;
use crate::ledger::{Held, Ledger, PodLedger, Resolved, ThreadKey};
use crate::role::Role;
use crate::units::clamp;

/// Kinds of memory that guest RAM can be of, and that memory.stat shows on every kernel.
const USER_KINDS: [Kind; 4] = [Kind::Anon, Kind::File, Kind::Shmem, Kind::Hugetlb];

/// Processes named that were there before.
const MAX_BEFORE: usize = 32;

/// What the pod holds of what was charged while it was recorded, and what it held before.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LiveReport {
    /// When that changed last within the window; absent where nothing is held.
    pub at: Option<String>,
    /// Bytes of overhead charged while recording, and still held.
    pub bytes: u64,
    /// The same by kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// What memory.stat shows beyond that of anon, file, shmem and hugetlb, guest RAM left out: charged before attaching,
    /// or not followed for want of room.
    pub before_attach: i64,
    /// Processes that were there before attaching, with the memory of their own that they had then, the largest first.
    /// QEMU's is less guest RAM.
    pub processes_before: Vec<ProcessBefore>,
    /// What memory.stat shows of kinds that are not followed.
    pub not_followed: BTreeMap<&'static str, u64>,
    /// Bytes charged while recording that there was no room to follow: held or not.
    pub no_room: u64,
}

/// A process that was there before attaching.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named as in the recording's process")]
pub struct ProcessBefore {
    pub pid: u32,
    pub process: String,
    pub role: Role,
    pub rss_anon: u64,
}

/// The findings on what is held; `None` where pages were not followed.
pub(super) fn report(ledger: &Ledger, pod: &PodLedger) -> Option<LiveReport> {
    if !ledger.follows_pages() {
        return None;
    }
    let held = pod.held();
    let kinds = held.kinds();
    let stat = |kind: Kind| {
        pod.last
            .as_ref()
            .and_then(|(_, sample)| sample.stat.get(&kind).copied())
    };
    let shown: i128 = USER_KINDS.iter().filter_map(|kind| stat(*kind)).map(i128::from).sum();
    let followed: i128 = USER_KINDS
        .iter()
        .filter_map(|kind| kinds.get(kind))
        .map(|bytes| i128::from(*bytes))
        .sum();
    let guest = i128::from(pod.guest_last.unwrap_or(0));
    Some(LiveReport {
        at: held.at().map(|t| utc(ledger, t)),
        bytes: sum(&kinds),
        kinds: named(&kinds),
        before_attach: clamp((shown - guest - followed).max(0)),
        processes_before: processes_before(ledger, pod),
        not_followed: Kind::ALL
            .into_iter()
            .filter(|kind| !kind.is_followed() && *kind != Kind::Vmalloc)
            .filter_map(|kind| Some((kind.as_str(), stat(kind).filter(|bytes| *bytes > 0)?)))
            .collect(),
        no_room: held.without_room(),
    })
}

fn processes_before(ledger: &Ledger, pod: &PodLedger) -> Vec<ProcessBefore> {
    let guest = pod.guest_first.unwrap_or(0);
    let of_pod = ledger
        .processes()
        .filter(|process| process.before_attach && process.pod == Some(pod.pod.pod));
    let mut processes: Vec<ProcessBefore> = of_pod
        .filter_map(|process| {
            let guest = if process.pid == pod.pod.qemu_pid { guest } else { 0 };
            Some(ProcessBefore {
                pid: process.pid,
                process: process.name.clone(),
                role: process.role.clone(),
                rss_anon: process.rss_anon?.saturating_sub(guest),
            })
        })
        .collect();
    processes.sort_by_key(|process| (std::cmp::Reverse(process.rss_anon), process.pid));
    processes.truncate(MAX_BEFORE);
    processes
}

/// What a thread holds, by kind.
pub(super) fn of_thread(held: &Held, key: Option<ThreadKey>) -> BTreeMap<&'static str, u64> {
    key.map_or_else(BTreeMap::new, |key| named(&held.of(key)))
}

/// Threads that hold something and were charged nothing within the window, the largest first.
pub(super) fn other_holders(ledger: &Ledger, held: &Held, resolved: &Resolved<'_>) -> Vec<ThreadReport> {
    let listed: std::collections::HashSet<ThreadKey> =
        resolved.threads.iter().filter_map(|thread| thread.key).collect();
    let mut others: Vec<ThreadReport> = held
        .threads()
        .filter(|key| !listed.contains(key))
        .map(|key| {
            let known = ledger.thread_of(key);
            let entity = ledger.entity(key);
            let live_kinds = of_thread(held, Some(key));
            ThreadReport {
                tid: Some(key.tid),
                tgid: known.map(|known| known.pid),
                comm: known.map_or_else(|| entity.process.clone(), |known| known.comm.clone()),
                process: entity.process,
                role: known.map_or(entity.role, |known| known.role.clone()),
                charged: 0,
                overhead_growth: 0,
                kinds: BTreeMap::new(),
                live: Some(total(&live_kinds)),
                live_kinds,
                guest_charged: 0,
                reclaim_ns: 0,
                threads: 1,
            }
        })
        .collect();
    others.sort_by_key(|thread| (std::cmp::Reverse(thread.live), thread.tid));
    others
}

/// Bytes of all kinds.
pub(super) fn sum(kinds: &BTreeMap<Kind, u64>) -> u64 {
    kinds.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

/// Bytes of all kinds.
pub(super) fn total(kinds: &BTreeMap<&'static str, u64>) -> u64 {
    kinds.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

/// Kinds by their names.
pub(super) fn named(kinds: &BTreeMap<Kind, u64>) -> BTreeMap<&'static str, u64> {
    kinds.iter().map(|(kind, bytes)| (kind.as_str(), *bytes)).collect()
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
