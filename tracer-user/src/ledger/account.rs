//! What one thread was charged and gave back.

use std::collections::BTreeMap;

use tracer_common::{Kind, Region};

/// Identity of a thread: ids are reused, start times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThreadKey {
    /// Thread id; [`OVERFLOW_TID`](tracer_common::OVERFLOW_TID) for a memcg's overflow account.
    pub tid: u32,
    /// Start time, nanoseconds since boot.
    pub start_ns: u64,
}

/// Bytes in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes charged.
    pub charged: u64,
    /// Bytes given back.
    pub uncharged: u64,
}

impl Flow {
    /// Adds to both; a recording that claims more than 2^64 bytes saturates.
    pub fn add(&mut self, charged: u64, uncharged: u64) {
        self.charged = self.charged.saturating_add(charged);
        self.uncharged = self.uncharged.saturating_add(uncharged);
    }

    /// Charged less uncharged. Wide, so that no sum of these overflows.
    #[must_use]
    pub fn net(self) -> i128 {
        i128::from(self.charged) - i128::from(self.uncharged)
    }
}

/// Flows by kind and region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells(BTreeMap<(Kind, Region), Flow>);

impl Cells {
    /// Adds to one cell.
    pub fn add(&mut self, kind: Kind, region: Region, charged: u64, uncharged: u64) {
        self.0.entry((kind, region)).or_default().add(charged, uncharged);
    }

    /// Adds every cell of another.
    pub fn merge(&mut self, other: &Self) {
        for ((kind, region), flow) in &other.0 {
            self.add(*kind, *region, flow.charged, flow.uncharged);
        }
    }

    /// The cells that were ever touched.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, Region, Flow)> {
        self.0.iter().map(|((kind, region), flow)| (*kind, *region, *flow))
    }

    /// One cell.
    #[must_use]
    pub fn get(&self, kind: Kind, region: Region) -> Flow {
        self.0.get(&(kind, region)).copied().unwrap_or_default()
    }

    /// Net bytes of the cells that `wanted` picks.
    pub fn net_where(&self, wanted: impl Fn(Kind, Region) -> bool) -> i128 {
        self.iter()
            .filter(|(kind, region, _)| wanted(*kind, *region))
            .map(|(_, _, flow)| flow.net())
            .sum()
    }

    /// Net bytes in a region.
    #[must_use]
    pub fn net(&self, region: Region) -> i128 {
        self.net_where(|_, other| other == region)
    }

    /// Net bytes in all.
    #[must_use]
    pub fn total(&self) -> i128 {
        self.net_where(|_, _| true)
    }

    /// Bytes charged in all: a page counts once, whether it is still unplaced or went on to its region.
    #[must_use]
    pub fn gross_charged(&self) -> i128 {
        self.iter()
            .map(|(_, region, flow)| match region {
                Region::Unplaced => flow.net(),
                _ => i128::from(flow.charged),
            })
            .sum()
    }

    /// Bytes charged that found their place, guest RAM included.
    #[must_use]
    pub fn placed(&self) -> u64 {
        self.iter()
            .filter(|(_, region, _)| *region != Region::Unplaced)
            .fold(0, |sum: u64, (_, _, flow)| sum.saturating_add(flow.charged))
    }

    /// Bytes given back; leaving `unplaced` is a move, not a return.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.iter()
            .filter(|(_, region, _)| *region != Region::Unplaced)
            .fold(0, |sum: u64, (_, _, flow)| sum.saturating_add(flow.uncharged))
    }
}

/// What one thread did to one pod within its window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// By kind and region.
    pub cells: Cells,
    /// Time spent reclaiming before its charges.
    pub reclaim_ns: u64,
    /// How often it did.
    pub reclaims: u64,
    /// The last sample before its first charge that was not to guest RAM.
    pub first_t: Option<u64>,
    /// The last sample before its overhead passed [`GROWTH`]: the start of real growth rather than of noise.
    pub growth_t: Option<u64>,
    /// How many threads this stands for, where ended threads were added up.
    pub threads: u64,
}

/// Overhead that is growth rather than the noise of a thread that lives.
const GROWTH: i128 = 256 << 10;

impl Account {
    /// Adds what was charged after the sample at `since`, and before the next one.
    ///
    /// Times are those of samples, because charges in between are told together, or late, or were added up by the
    /// recorder.
    pub fn charge(&mut self, since: u64, cells: &Cells) {
        self.cells.merge(cells);
        let overhead = self.cells.net_where(|_, region| region != Region::Guest);
        if cells
            .iter()
            .any(|(_, region, flow)| region != Region::Guest && flow.charged > 0)
        {
            self.first_t.get_or_insert(since);
        }
        if overhead >= GROWTH {
            self.growth_t.get_or_insert(since);
        } else if self.growth_t == Some(since) {
            // What was told late took it back.
            self.growth_t = None;
        }
    }

    /// Adds another thread's account.
    pub fn merge(&mut self, other: &Self) {
        self.cells.merge(&other.cells);
        self.reclaim_ns = self.reclaim_ns.saturating_add(other.reclaim_ns);
        self.reclaims = self.reclaims.saturating_add(other.reclaims);
        self.first_t = earliest(self.first_t, other.first_t);
        self.growth_t = earliest(self.growth_t, other.growth_t);
        self.threads += other.threads.max(1);
    }
}

/// The earlier of two times, where there are any.
pub(super) fn earliest(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}
