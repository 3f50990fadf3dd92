//! Kills.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::role::Role;

/// The kernel killed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Oom {
    /// Number of the victim's pod.
    pub pod: Option<u32>,
    /// cgroup id of the memcg whose limit was hit.
    pub oom_memcg: u64,
    /// cgroup id of the victim's memcg.
    pub memcg: u64,
    /// Usage of `oom_memcg` at the kill.
    pub usage: u64,
    /// Its limit.
    pub limit: u64,
    /// `gfp_mask` of the allocation that failed, where the backend sees it.
    pub gfp: Option<u32>,
    /// Its order, where the backend sees it.
    pub order: Option<u32>,
    /// `memcg`, `cpuset`, `none`, ..., where the backend sees it.
    pub constraint: Option<String>,
    /// The thread whose allocation failed.
    pub invoker: OomTask,
    /// The process that was killed.
    pub victim: OomTask,
    /// The kernel's own report, when /dev/kmsg was readable.
    #[serde(default)]
    pub kernel_report: Vec<String>,
}

/// A thread or process in an OOM event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OomTask {
    /// Thread id (of the main thread for a victim).
    pub tid: u32,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Role, where known.
    pub role: Option<Role>,
}
