//! Beginning and end of a recording.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_common::{Kind, Region};

use super::{Loss, names};
use crate::recording::schema;

/// First event of every recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Name and major version of the format: `headroom.recording/1`.
    pub format: String,
    /// Version of headroom.
    pub version: String,
    /// Host name.
    pub host: String,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// `v1` or `v2`: the hierarchy of the memory controller.
    pub cgroup: String,
    /// UTC of boot: nanoseconds since the Unix epoch to add to `t`.
    pub boot_unix_ns: u64,
    /// Which backend each probe got, and why not one before it (`, not by BACKEND: REASON`); or why it has none.
    pub backends: BTreeMap<String, String>,
    /// Bytes that an account gathers before it emits.
    pub granularity: u64,
    /// Bytes of a page.
    pub page_size: u64,
    /// CPUs, for the tolerance: each may hold a batch of 64 pages per memcg.
    pub cpus: u32,
    /// Forecasts were made while recording: a reader need not make them again.
    #[serde(default)]
    pub forecasts: bool,
    /// Whether pages were followed, so that `live` lines say what accounts hold; absent in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Following>,
}

/// Whether each page of overhead was followed to the end of its charge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Following {
    /// It was.
    pub on: bool,
    /// Pages, or larger units that were charged at once, that there was room for at a time.
    pub room: u64,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// What had been counted before this recording begins, where it begins later than the tracer: a flight recorder keeps
/// the last minutes of a long run. Growth is counted from the first sample in any case; this ties the sums to the footer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Baseline {
    /// When the tracer attached, CLOCK_BOOTTIME nanoseconds.
    pub attached: u64,
    /// Sums over all charge events that are no longer kept.
    #[serde(deserialize_with = "names::known_totals")]
    pub totals: Vec<Total>,
    /// What had been lost.
    pub loss: Loss,
}

/// Last event of a complete recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Footer {
    /// Sums over all threads per (memcg, kind, region) since the tracer attached, read from the kernel's maps at the
    /// end: the reader's own sums, those of the baseline included, must equal them.
    #[serde(deserialize_with = "names::known_totals")]
    pub totals: Vec<Total>,
    /// What was lost.
    pub loss: Loss,
    /// Files that took the most page cache since the tracer attached, by pod.
    #[serde(default)]
    pub files: Vec<FileCache>,
    /// Why recording ended (`interrupted`, `duration over`, `oom`, `command ended`, `target gone`, `incident`, ...).
    pub ended: String,
}

/// Sum of all accounts of a memcg, kind and region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Total {
    /// cgroup id.
    pub memcg: u64,
    /// What kind of memory.
    #[serde(with = "names::kind")]
    #[schemars(with = "schema::KindName")]
    pub kind: Kind,
    /// What it backs.
    #[serde(with = "names::region")]
    #[schemars(with = "schema::RegionName")]
    pub region: Region,
    /// Bytes.
    pub charged: u64,
    /// Bytes.
    pub uncharged: u64,
}

/// Page cache that a file brought into a memcg.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileCache {
    /// cgroup id.
    pub memcg: u64,
    /// `major:minor` of its file system.
    pub device: String,
    /// Inode number.
    pub inode: u64,
    /// Path as a process of the pod sees it, where one has it open.
    pub path: Option<String>,
    /// Bytes of page cache added.
    pub bytes: u64,
}
