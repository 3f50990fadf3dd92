//! Losses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What could not be kept, since the tracer attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// Times the ring buffer was full: bytes were late, not lost.
    pub ring_full: u64,
    /// Times there was no account left: bytes went into a memcg's overflow account.
    pub accounts_full: u64,
    /// Bytes that found no account.
    pub lost_bytes: u64,
    /// Reclaim, OOM, exit or rename records dropped.
    pub events_dropped: u64,
    /// Pages of page cache whose file is not known.
    pub files_full: u64,
    /// Times that a program did not run because it (as a kprobe: any) was running already on that CPU (an interrupt in its
    /// middle), or that a kprobe's call ended unseen: what would have been counted is in no account.
    #[serde(default)]
    pub missed_runs: u64,
    /// Stacks that found no room in their ring buffer: their bytes went to the next stack of the account.
    #[serde(default)]
    pub stacks_dropped: u64,
    /// Sampled stacks that are not known: too many different ones, or no names in time.
    #[serde(default)]
    pub stacks_unknown: u64,
    /// Bytes of pages that there was no room to follow: nobody knows how long they are held.
    #[serde(default, skip_serializing_if = "super::is_zero")]
    pub not_followed: u64,
    /// Longest that a byte waited in the kernel because the ring buffer was full, nanoseconds.
    pub max_delay_ns: u64,
}

impl Loss {
    /// What was lost since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            ring_full: self.ring_full.saturating_sub(before.ring_full),
            accounts_full: self.accounts_full.saturating_sub(before.accounts_full),
            lost_bytes: self.lost_bytes.saturating_sub(before.lost_bytes),
            events_dropped: self.events_dropped.saturating_sub(before.events_dropped),
            files_full: self.files_full.saturating_sub(before.files_full),
            missed_runs: self.missed_runs.saturating_sub(before.missed_runs),
            stacks_dropped: self.stacks_dropped.saturating_sub(before.stacks_dropped),
            stacks_unknown: self.stacks_unknown.saturating_sub(before.stacks_unknown),
            not_followed: self.not_followed.saturating_sub(before.not_followed),
            max_delay_ns: if self.max_delay_ns > before.max_delay_ns {
                self.max_delay_ns
            } else {
                0
            },
        }
    }
}
