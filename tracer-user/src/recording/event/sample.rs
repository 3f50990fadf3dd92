//! The kernel's own figures, and what it does when memory is short.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_common::Kind;

use super::names;
use crate::recording::schema;

/// The kernel's own figures for a memcg: what the accounts are reconciled against.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// cgroup id.
    pub memcg: u64,
    /// Number of the pod.
    pub pod: u32,
    /// `memory.current` / `memory.usage_in_bytes`.
    pub usage: u64,
    /// `memory.max` / `memory.limit_in_bytes`; absent when there is none.
    pub limit: Option<u64>,
    /// `memory.peak` / `memory.max_usage_in_bytes`, where the kernel has it.
    pub peak: Option<u64>,
    /// memory.stat (hierarchical) by kind. `file` is without shmem; `kmem` is kernel memory that memory.stat does
    /// not show under a kind of its own.
    #[serde(with = "names::kind_map")]
    #[schemars(with = "BTreeMap<schema::KindName, u64>")]
    pub stat: BTreeMap<Kind, u64>,
    /// Clean or dirty page cache that reclaim could take: inactive_file + active_file.
    pub reclaimable_file: u64,
    /// Resident guest RAM (smaps of QEMU's guest RAM mappings); absent without QEMU or permission.
    pub guest_resident: Option<u64>,
    /// Total stall time of some tasks for memory (PSI), microseconds, where there is PSI.
    pub pressure_some_us: Option<u64>,
    /// memory.events / failcnt: how often the limit was hit.
    pub limit_hits: u64,
    /// OOM kills counted by the memcg.
    pub oom_kills: u64,
}

/// A thread spent time reclaiming before its charge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reclaim {
    /// cgroup id of the thread's memcg.
    pub memcg: u64,
    /// Thread id.
    pub tid: u32,
    /// Start time of the thread.
    pub start_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// Pages reclaimed.
    pub pages: u64,
    /// Order of the allocation.
    pub order: u32,
}
