//! Code paths of charges.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_common::{Kind, Region};

use super::names;
use crate::recording::schema;

/// A function, or a place in code without a name, told once before the first stack that it is in (`record --stacks`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// Number of the frame within the recording.
    pub frame: u32,
    /// Name of the function; absent where there is none.
    pub symbol: Option<String>,
    /// Program or library, as its process sees it; `kernel` for the kernel's.
    pub module: String,
    /// Build id of that file, in hexadecimal.
    pub build_id: Option<String>,
    /// Offset in the file of a place without a name.
    pub offset: Option<u64>,
}

/// A stack, told once before the first charge that refers to it (`record --stacks`). Number 0 has no frames: it stands for
/// stacks that are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stack {
    /// Number of the stack within the recording.
    pub stack: u32,
    /// Numbers of its frames in the process, innermost first; none in kernel threads.
    pub user: Vec<u32>,
    /// Numbers of its frames in the kernel, innermost first.
    pub kernel: Vec<u32>,
}

/// Overhead that was charged from a stack (`record --stacks`). Each account is sampled once in as many
/// bytes as the header's `granularity` says; what it gives back does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StackCharge {
    /// cgroup id.
    pub memcg: u64,
    /// Thread id; 4294967295 for the memcg's overflow account.
    pub tid: u32,
    /// Start time of the thread; 0 for the overflow account.
    pub start_ns: u64,
    /// What kind of memory.
    #[serde(with = "names::kind")]
    #[schemars(with = "schema::KindName")]
    pub kind: Kind,
    /// What it backs: `overhead`.
    #[serde(with = "names::region")]
    #[schemars(with = "schema::RegionName")]
    pub region: Region,
    /// Number of the stack.
    pub stack: u32,
    /// Bytes that the samples stand for. Over an account they add up to what it was charged, within one granularity.
    pub charged: u64,
    /// Samples.
    pub samples: u64,
}
