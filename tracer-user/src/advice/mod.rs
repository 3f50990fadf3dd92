//! What reserve a VM would have needed, from recordings of it.
//!
//! Each recording becomes an [`Observation`](measure::Observation); those of one VM are put together, held against what
//! KubeVirt budgeted, and the smallest reserves that hold are searched for by asking the arithmetic in
//! [`sizing`](crate::sizing) itself. Without I/O.

mod build;
mod growth;
mod measure;
mod reserve;
mod snippet;
mod text;
mod verdict;
mod workload;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::role::Role;
use crate::sizing::breakdown::Breakdown;
use crate::sizing::spec::Shape;

pub use build::{Recorded, advise};
pub use growth::{Growth, growth};
pub use measure::{Held, Observation, Work, observe};
pub use reserve::{Holding, Knob, Need, smallest};
pub use snippet::Snippet;
pub use text::render as render_text;
pub use workload::{Class, Workload, classify};

/// Name and major version of the JSON document.
pub const SCHEMA: &str = "headroom.advise/1";

/// What the recordings say about reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// They do not say enough.
    NotEnoughData,
    /// Overhead came to an end below a level that can be held.
    Bounded,
    /// Overhead grew until the recording ended: what holds for it may not hold for longer.
    StillGrowing,
    /// Overhead grew until the kernel killed: no reserve is known to hold.
    NoReserveWillDo,
}

/// Advice on one VM. Sizes are bytes, times UTC in RFC 3339.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// Kubernetes namespace.
    pub namespace: String,
    /// VM name.
    pub vm: String,
    /// Path of the limiting memcg, as last recorded.
    pub cgroup: String,
    /// What the recordings say.
    pub outcome: Outcome,
    /// The same in a sentence.
    pub verdict: String,
    /// The recordings.
    pub recordings: Vec<RecordingReport>,
    /// What the VM needs; absent without enough data.
    pub need: Option<NeedReport>,
    /// Who held the overhead, the largest first.
    pub by_role: Vec<RoleReport>,
    /// The VM that the rest is computed for.
    pub shape: Option<Shape>,
    /// What was budgeted against what was taken.
    pub budget: Option<Breakdown>,
    /// Kernel memory by kind, each at its peak, where the kernel shows it.
    pub kernel: BTreeMap<&'static str, u64>,
    /// The smallest reserves that would have held; absent without enough data, and where no reserve will do.
    pub reserves: Option<Reserves>,
    /// Whose growth did not end.
    pub look_at: Option<LookAt>,
    /// What kind of load it was.
    pub workload: Option<Workload>,
    /// Commands that apply the reserves.
    pub snippets: Vec<Snippet>,
    /// What to know about these figures.
    pub notes: Vec<String>,
}

/// A recording and what it shows of the VM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordingReport {
    /// Its file.
    pub file: String,
    /// Start of the window.
    pub start: String,
    /// Its end.
    pub end: String,
    /// How long that is.
    pub seconds: f64,
    /// The kernel killed the VM.
    pub killed: bool,
    /// What it says by itself.
    pub outcome: Outcome,
    /// Peak of the overhead, less page cache that reclaim could take.
    pub overhead_peak: u64,
    /// Size of guest RAM.
    pub guest_ram: u64,
    /// The limit.
    pub limit: Option<u64>,
    /// Why it is not enough.
    pub missing: Vec<&'static str>,
}

/// What a VM needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NeedReport {
    /// Percent on top of the overhead.
    pub margin_percent: u64,
    /// Guest RAM that the limit counts.
    pub guest_ram: u64,
    /// Overhead when the recording began.
    pub overhead_start: u64,
    /// Its peak.
    pub overhead_peak: u64,
    /// By how much that may be off: the kernel charges in batches.
    pub uncertainty: u64,
    /// Page tables of guest RAM that the guest has yet to touch.
    pub page_tables_to_come: u64,
    /// The least limit that would have held; absent where none is known to.
    pub minimum_limit: Option<u64>,
    /// The same with the margin.
    pub advised_limit: Option<u64>,
    /// The limit as recorded.
    pub limit: Option<u64>,
}

/// What a role or process held of the overhead, page cache aside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoleReport {
    /// The role.
    pub role: Role,
    /// Name of its process.
    pub process: String,
    /// When the tracer attached; absent where that is not known.
    pub at_attach: Option<u64>,
    /// Peak of its growth since.
    pub growth: u64,
    /// Both.
    pub peak: u64,
    /// It held at least this.
    pub low: u64,
    /// It held at most this; absent where what it held at attach is not known.
    pub high: Option<u64>,
    /// Its growth came to an end while it was watched.
    pub plateau: bool,
}

/// The smallest reserves that would have held, each by itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reserves {
    /// The ratio.
    pub ratio: Option<Holding>,
    /// Harvester's Reserved Memory.
    pub reserved_memory: Option<Holding>,
    /// KubeVirt's `reservedOverhead`.
    pub reserved_overhead: Option<Holding>,
    /// Why one is missing, by its name.
    pub why_not: BTreeMap<&'static str, String>,
}

/// Whose growth did not end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LookAt {
    /// Its role.
    pub role: Role,
    /// Name of its process.
    pub process: String,
    /// How much it grew.
    pub growth: u64,
    /// For how long.
    pub seconds: f64,
    /// How fast.
    pub rate_bytes_per_s: f64,
}

#[cfg(test)]
mod tests;
