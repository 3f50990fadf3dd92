//! What stacks were charged, by pod, role, thread and kind: what `folded` and `pprof` are made of.

use std::collections::BTreeMap;

use tracer_common::{Kind, OVERFLOW_TID, Region};

use super::Source;
use super::moment::PodKey;
use crate::ledger::{Entity, Ledger, ThreadKey};
use crate::recording::event::StackCharge;

/// Rows kept apart.
const MAX_ROWS: usize = 256 << 10;

/// Whose charges a row adds up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) pod: PodKey,
    pub(super) entity: Entity,
    /// Name of the thread. Not escaped.
    pub(super) thread: String,
    pub(super) kind: Kind,
    /// Number of the stack in its recording.
    pub(super) stack: u32,
}

/// Bytes and samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charged {
    pub(super) bytes: u64,
    pub(super) samples: u64,
}

/// Everything that was charged to pods as overhead, whenever.
#[derive(Debug, Default)]
pub(super) struct Sampled {
    rows: BTreeMap<Row, Charged>,
}

impl Sampled {
    pub(super) fn take(&mut self, source: Source<'_>, charge: &StackCharge) {
        let ledger = source.ledger;
        let Some(pod) = ledger.pod_of_memcg(charge.memcg) else {
            return;
        };
        if charge.region != Region::Overhead {
            return;
        }
        let thread = ThreadKey {
            tid: charge.tid,
            start_ns: charge.start_ns,
        };
        let mut row = Row {
            pod: (source.number, pod),
            entity: ledger.entity(thread),
            thread: comm(ledger, thread),
            kind: charge.kind,
            stack: charge.stack,
        };
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&row) {
            row.entity = Entity::others();
            row.thread = "others".to_owned();
            row.stack = 0;
        }
        let charged = self.rows.entry(row).or_default();
        charged.bytes = charged.bytes.saturating_add(charge.charged);
        charged.samples = charged.samples.saturating_add(charge.samples);
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (&Row, Charged)> {
        self.rows.iter().map(|(row, charged)| (row, *charged))
    }
}

fn comm(ledger: &Ledger, thread: ThreadKey) -> String {
    match ledger.thread_of(thread) {
        Some(thread) => thread.comm.clone(),
        None if thread.tid == OVERFLOW_TID => "overflow".to_owned(),
        None => "unknown".to_owned(),
    }
}
