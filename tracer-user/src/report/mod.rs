//! What the ledger found, as data, text, JSON and HTML.

mod build;
mod code_path;
mod foreseen;
mod html;
mod json;
mod live;
pub mod merged;
mod text;
mod timeline;
mod verdict;
mod words;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::recording::event::Loss;
use crate::role::Role;
use crate::sizing::spec::Budgeted;

pub use build::utc;
pub use code_path::{CodePath, CodePaths};
pub use foreseen::announcement;
pub use html::{render as render_html, render_merged as render_merged_html};
pub use json::{render as render_json, render_merged as render_merged_json, write_json};
pub use live::{LiveReport, ProcessBefore};
pub use merged::{Merged, render as render_merged_text};
pub use text::render as render_text;
pub use timeline::{Growth, Timeline, TimelinePoint};
pub use verdict::verdict;

/// Name and major version of the report's JSON form.
pub const SCHEMA: &str = "headroom.report/1";

/// Findings about every pod of a recording (or of a live ledger). Sizes are bytes, times UTC in RFC 3339.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`]
    pub schema: &'static str,
    /// Where it was recorded.
    pub node: Node,
    /// From the first event to the last.
    pub window: Window,
    /// Which backend each probe got.
    pub backends: BTreeMap<String, String>,
    /// The state of the recording.
    pub recording: Recording,
    /// By pod.
    pub pods: Vec<PodReport>,
    /// What could not be kept.
    pub loss: LossReport,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named as in the recording's header")]
pub struct Node {
    pub host: String,
    pub kernel: String,
    pub cgroup: String,
    pub cpus: u32,
    pub page_size: u64,
    pub headroom: String,
}

/// A stretch of time.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "start and end")]
pub struct Window {
    pub start: String,
    pub end: String,
}

/// The state of what was read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Recording {
    /// `complete`, `incomplete`, `damaged`, or `live`.
    pub state: &'static str,
    /// Why recording ended, where the footer says so.
    pub ended: Option<String>,
    /// Stretches of the file that could not be read.
    pub damaged_stretches: u64,
    /// Bytes in them.
    pub damaged_bytes: u64,
    /// Bytes of a last frame that was cut off.
    pub cut_off_bytes: u64,
    /// Lines that were not understood.
    pub skipped_lines: u64,
}

/// Start and end of a figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Usage {
    pub start: u64,
    pub end: u64,
    pub peak: u64,
}

/// Resident guest RAM by smaps; absent where it was not readable.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct GuestResident {
    pub start: Option<u64>,
    pub end: Option<u64>,
}

/// Usage that is not guest RAM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overhead {
    /// Usage less resident guest RAM at the window's start.
    pub start: i64,
    /// `start` and `growth`.
    pub end: i64,
    /// Largest usage less resident guest RAM of any sample.
    pub peak: u64,
    /// Growth of usage less growth of guest RAM: that of all threads and what is unexplained.
    pub growth: i64,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PodReport {
    /// Kubernetes namespace.
    pub namespace: String,
    /// VM name.
    pub vm: String,
    /// Pod uid.
    pub pod_uid: String,
    /// Path of the limiting memcg.
    pub cgroup: String,
    /// Its limit.
    pub limit: Option<u64>,
    /// Size of guest RAM.
    pub guest_ram: u64,
    /// The stretch that growth is counted over; absent when there was no sample.
    pub window: Option<Window>,
    /// Usage.
    pub usage: Usage,
    /// Resident guest RAM.
    pub guest_resident: GuestResident,
    /// Growth of guest RAM as charged.
    pub guest_growth: i64,
    /// Overhead.
    pub overhead: Overhead,
    /// Limit less guest RAM size.
    pub budget: Option<i64>,
    /// What KubeVirt's formula budgets for overhead against what was taken; absent for what is no pod, and without a
    /// limit.
    pub budgeted: Option<Budgeted>,
    /// Smallest limit less usage.
    pub headroom_min: Option<u64>,
    /// Growth of usage that no account explains.
    pub unexplained: i64,
    /// How much of that is normal.
    pub tolerance: u64,
    /// Largest unexplained growth at any sample.
    pub unexplained_worst: i64,
    /// Bytes that may be guest RAM or overhead; counted as overhead.
    pub region_unknown: i64,
    /// Guest RAM that smaps placed, split over threads by estimate.
    pub placed_by_smaps: i64,
    /// Guest RAM that QEMU touched before its ranges were known.
    pub reclassified: i64,
    /// What is held at the window's end; absent where pages were not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveReport>,
    /// The accounts compared with memory.stat.
    pub kinds: Vec<KindReport>,
    /// By role, the largest growth first.
    pub by_role: Vec<RoleReport>,
    /// By thread, the largest growth first.
    pub by_thread: Vec<ThreadReport>,
    /// Who is to blame.
    pub culprit: Option<CulpritReport>,
    /// What was predicted.
    pub forecasts: Vec<Forecast>,
    /// Who was warned of what.
    pub alerts: Vec<AlertReport>,
    /// Marks of `headroom mark` that concern it, within its window and after.
    pub marks: Vec<MarkReport>,
    /// Kills.
    pub oom: Vec<OomReport>,
    /// Page cache by file, the largest first.
    pub files: Vec<FileReport>,
    /// Time threads spent reclaiming before their charges.
    pub stalls: Stalls,
    /// Bytes that a thread was charged from one sample to the next, guest RAM included.
    pub charge_sizes: Quantiles,
    /// Code paths that overhead was charged from; absent where stacks were not sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_code_path: Option<CodePaths>,
    /// Memory over time. Not in the JSON form, which holds findings: exports hold series.
    #[serde(skip)]
    pub timeline: Timeline,
}

/// A kind (or `kernel` for all kernel kinds) in memory.stat and in the accounts.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct KindReport {
    pub kind: &'static str,
    pub stat_growth: i64,
    pub accounted: i64,
}

/// A role within the pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoleReport {
    /// The role.
    pub role: Role,
    /// Bytes charged by its threads, guest RAM included.
    pub charged: i64,
    /// Bytes they gave back, whoever had charged them.
    pub uncharged: u64,
    /// Growth of its overhead.
    pub overhead_growth: i64,
    /// The same by kind.
    pub kinds: BTreeMap<&'static str, i64>,
    /// Bytes of overhead charged to its threads while recording that are held at the window's end, whoever gave back the
    /// rest; absent where pages were not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<u64>,
    /// The same by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub live_kinds: BTreeMap<&'static str, u64>,
    /// How many threads.
    pub threads: u64,
}

/// A thread, or ended threads added up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ThreadReport {
    /// Thread id; absent for ended threads added up.
    pub tid: Option<u32>,
    /// Process id, where known.
    pub tgid: Option<u32>,
    /// Its name.
    pub comm: String,
    /// Name of its process.
    pub process: String,
    /// Its role.
    pub role: Role,
    /// Bytes charged, guest RAM included.
    pub charged: i64,
    /// Growth of its overhead.
    pub overhead_growth: i64,
    /// The same by kind.
    pub kinds: BTreeMap<&'static str, i64>,
    /// Bytes of overhead charged to it while recording that are held at the window's end, whoever gave back the rest;
    /// absent where pages were not followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<u64>,
    /// The same by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub live_kinds: BTreeMap<&'static str, u64>,
    /// Guest RAM charged.
    pub guest_charged: u64,
    /// Time spent reclaiming.
    pub reclaim_ns: u64,
    /// How many threads this is.
    pub threads: u64,
}

/// Who is to blame.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CulpritReport {
    /// Its role.
    pub role: Role,
    /// Name of its process.
    pub process: String,
    /// Its thread, when it is a single one.
    pub tid: Option<u32>,
    /// Growth of its overhead.
    pub bytes: i64,
    /// Part of all growth of overhead, 0 to 1.
    pub share: f64,
    /// The kind that grew most.
    pub kind: &'static str,
    /// Bytes of overhead charged to it while recording that are held at the window's end; absent where pages were not
    /// followed, or most of its growth is of kinds that are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<u64>,
    /// When its growth began, at the earliest: the last sample before it.
    pub first_seen: String,
    /// From then to the end of the window.
    pub seconds: f64,
    /// How fast.
    pub rate_bytes_per_s: f64,
}

/// A prediction of a kill.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Forecast {
    pub at: String,
    pub kill_at: String,
    pub low: String,
    /// Absent where it may never come.
    pub high: Option<String>,
    pub driver: String,
    /// Seconds from `at` to `kill_at`.
    pub left_s: f64,
    /// When it held no longer, if no other took its place.
    pub withdrawn: Option<String>,
}

/// A threshold that was passed, or is no longer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named as in the recording's alert")]
pub struct AlertReport {
    pub at: String,
    pub alert: &'static str,
    pub raised: bool,
    pub threshold: u64,
    pub value: Option<u64>,
    pub kill_at: Option<String>,
    pub driver: Option<String>,
}

/// A kill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OomReport {
    /// When.
    pub at: String,
    /// Whose allocation failed.
    pub invoker: Task,
    /// Who was killed.
    pub victim: Task,
    /// Path of the memcg whose limit was hit, or its cgroup id.
    pub oom_memcg: String,
    /// Its usage.
    pub usage: u64,
    /// Its limit.
    pub limit: u64,
    /// How long before it was predicted.
    pub lead_time_s: Option<f64>,
    /// The kernel's own report, line by line, where the kernel's log was readable.
    pub kernel_report: Vec<String>,
}

/// A thread or process of a kill.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Task {
    pub tid: u32,
    pub pid: u32,
    pub comm: String,
    pub role: Option<Role>,
}

/// Page cache of a file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named as in the recording's footer")]
pub struct FileReport {
    pub path: Option<String>,
    pub device: String,
    pub inode: u64,
    pub bytes: u64,
}

/// Reclaim stalls of a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stalls {
    /// Time in all.
    pub total_ns: u64,
    /// How long they took.
    pub duration_ns: Quantiles,
}

/// A distribution.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "named for what they are")]
pub struct Quantiles {
    pub count: u64,
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// What could not be kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LossReport {
    /// As counted by the tracer.
    #[serde(flatten)]
    pub counted: Loss,
    /// Sums of the records that differ from the kernel's maps; absent without a footer.
    pub disagreements: Option<u64>,
}

/// Somebody said what happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MarkReport {
    /// When.
    pub at: String,
    /// What. Not escaped.
    pub text: String,
}

#[cfg(test)]
mod story;
#[cfg(test)]
mod tests;
