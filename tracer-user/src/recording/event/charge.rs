//! What accounts were charged, and what they hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracer_common::{Kind, Region};

use super::{Body, Event, names};
use crate::recording::schema;

/// What was charged and given back by one thread in one memcg since the last charge event of the same account
/// (memcg, thread, kind, region).
///
/// A page that is placed is `uncharged` from `unplaced` and `charged` to its region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Charge {
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
    /// What it backs.
    #[serde(with = "names::region")]
    #[schemars(with = "schema::RegionName")]
    pub region: Region,
    /// Bytes.
    pub charged: u64,
    /// Bytes.
    pub uncharged: u64,
}

/// A charge event's line by itself: read without the detour that a tagged type takes.
#[derive(Deserialize)]
pub(in crate::recording) struct ChargeLine {
    t: u64,
    memcg: u64,
    tid: u32,
    start_ns: u64,
    #[serde(with = "names::kind")]
    kind: Kind,
    #[serde(with = "names::region")]
    region: Region,
    charged: u64,
    uncharged: u64,
}

impl From<ChargeLine> for Event {
    fn from(line: ChargeLine) -> Self {
        Self {
            t: line.t,
            body: Body::Charge(Charge {
                memcg: line.memcg,
                tid: line.tid,
                start_ns: line.start_ns,
                kind: line.kind,
                region: line.region,
                charged: line.charged,
                uncharged: line.uncharged,
            }),
        }
    }
}

/// What an account holds: bytes of overhead that were charged to it since the tracer attached and are charged still,
/// whoever may give them back, and though its thread may be gone. Told when it changes; 0 until it is told.
///
/// Kinds that come in pages are followed: anon, file, shmem, hugetlb, pagetable, secondary_pagetable, kernel_stack and kmem.
/// vmalloc areas stay kmem here. slab, percpu and sock are not followed, and guest RAM is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Live {
    /// cgroup id.
    pub memcg: u64,
    /// Thread id; 4294967295 for what accounts hold that are too many to be told apart.
    pub tid: u32,
    /// Start time of the thread; 0 for the overflow account.
    pub start_ns: u64,
    /// What kind of memory.
    #[serde(with = "names::kind")]
    #[schemars(with = "schema::KindName")]
    pub kind: Kind,
    /// Bytes held now.
    pub bytes: u64,
    /// Bytes charged to the account that there was no room to follow, since the tracer attached: held or not.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub not_followed: u64,
}
