//! A pod's memory over time, for charts.

use std::collections::BTreeMap;

use tracer_common::Kind;

use crate::ledger::{Ledger, PodLedger};
use crate::role::Role;

/// A pod's memory at some moments in order, the last of them the kill where there was one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    /// The moments.
    pub points: Vec<TimelinePoint>,
    /// Growth of overhead since the first moment, by role or process and kind; each as long as `points`.
    pub growth: Vec<Growth>,
}

/// A pod at one moment. Sizes are bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct TimelinePoint {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// Usage of the limiting memcg.
    pub usage: u64,
    /// Its limit; absent when there is none.
    pub limit: Option<u64>,
    /// Resident guest RAM, where known.
    pub guest_resident: Option<u64>,
    /// Page cache that reclaim could take.
    pub reclaimable_file: u64,
}

/// How the overhead of one role or process and kind grew.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// The role.
    pub role: Role,
    /// Name of its process.
    pub process: String,
    /// The kind.
    pub kind: Kind,
    /// Net growth since the first moment at each, bytes.
    pub bytes: Vec<i64>,
}

impl Timeline {
    /// The timeline of a pod, whose guest RAM grew by `guest_growth` in all as charged.
    pub(super) fn new(ledger: &Ledger, pod: &PodLedger, guest_growth: i128) -> Self {
        let series = pod.series.points();
        let boot_ms = ledger.header().boot_unix_ns / 1_000_000;
        let mut points: Vec<TimelinePoint> = series
            .iter()
            .map(|point| TimelinePoint {
                unix_ms: boot_ms.saturating_add(point.t / 1_000_000),
                usage: point.usage,
                limit: point.limit,
                guest_resident: point.guest_resident,
                reclaimable_file: point.reclaimable_file,
            })
            .collect();
        // smaps is read with each sample, not at the kill: there the accounts know better.
        if let Some(point) = points.last_mut().filter(|_| pod.usage_at_kill.is_some()) {
            let at_start = pod.first.as_ref().and_then(|(_, sample)| sample.guest_resident);
            let at_kill = at_start.and_then(|start| u64::try_from(i128::from(start) + guest_growth).ok());
            point.guest_resident = at_kill.map(|guest| guest.min(point.usage)).or(point.guest_resident);
        }
        let mut cells: BTreeMap<(u16, Kind), Vec<i64>> = BTreeMap::new();
        for (index, point) in series.iter().enumerate() {
            for (entity, kind, bytes) in &point.growth {
                let row = cells.entry((*entity, *kind)).or_insert_with(|| vec![0; series.len()]);
                if let Some(cell) = row.get_mut(index) {
                    *cell = *bytes;
                }
            }
        }
        let growth = cells
            .into_iter()
            .filter_map(|((entity, kind), bytes)| {
                let entity = pod.series.entities().get(usize::from(entity))?;
                Some(Growth {
                    role: entity.role.clone(),
                    process: entity.process.clone(),
                    kind,
                    bytes,
                })
            })
            .collect();
        Self { points, growth }
    }
}
