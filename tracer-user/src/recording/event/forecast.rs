//! What is expected, and when somebody is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::role::Role;

/// When a pod is expected to meet its limit, as things looked at this time. Told when it changes materially.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Forecast {
    /// Number of the pod.
    pub pod: u32,
    /// When usage that the kernel cannot take back is expected to meet the limit; absent when what was forecast before
    /// holds no longer.
    pub kill_at: Option<u64>,
    /// With [`kill_at`](Self::kill_at): it will hardly happen before this.
    pub low: Option<u64>,
    /// It will hardly happen after this; absent where growth may as well end before.
    pub high: Option<u64>,
    /// Who drives it, where that is known.
    pub driver: Option<Driver>,
    /// What it rests on.
    pub basis: Basis,
}

/// Who blame is given to ahead of a kill: a role within QEMU, or any other process as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Driver {
    /// Its role.
    pub role: Role,
    /// Short name of its process.
    pub process: String,
}

/// The figures that a forecast rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Basis {
    /// Limit less usage, with the page cache that reclaim could take counted as free.
    pub available: i64,
    /// How fast overhead grows, less reclaimable page cache, bytes per second.
    pub overhead_rate: i64,
    /// How fast guest RAM fills, bytes per second.
    pub guest_rate: i64,
    /// Guest RAM that is not resident yet.
    pub guest_left: u64,
    /// The growth was seen for this long, nanoseconds.
    pub seen_ns: u64,
}

/// A threshold was passed, or is no longer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// Number of the pod.
    pub pod: u32,
    /// Which threshold.
    pub alert: AlertKind,
    /// It was raised; `false` when it ends.
    pub raised: bool,
    /// The threshold: nanoseconds for `eta`, bytes for `headroom`, bytes per second for `rate`.
    pub threshold: u64,
    /// What was measured against it, in the same unit; absent where an alert ended because there is nothing to measure.
    pub value: Option<u64>,
    /// Who drives it, where that is known.
    pub driver: Option<Driver>,
    /// When the limit is expected to be met, where that is forecast.
    pub kill_at: Option<u64>,
    /// The figures at hand.
    pub basis: Basis,
}

/// What an alert watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// Time until the limit is met.
    Eta,
    /// What is left below the limit, reclaimable page cache counted as free.
    Headroom,
    /// Growth of overhead per second.
    Rate,
}

impl AlertKind {
    /// Its name, as in a recording.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eta => "eta",
            Self::Headroom => "headroom",
            Self::Rate => "rate",
        }
    }
}
