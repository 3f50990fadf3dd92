//! The points of a timeline: each pod at each sample, at the kill that ends its window, and at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use tracer_common::Kind;

use super::Source;
use crate::ledger::{Entity, PodLedger};
use crate::recording::event::{Body, Event, Oom, Sample};

/// Who is told apart in a pod; names come from pods, so there is no other bound to their number.
const MAX_ENTITIES: usize = 256;

/// A pod at one time.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    /// Where it was recorded.
    pub source: Source<'a>,
    /// CLOCK_BOOTTIME nanoseconds.
    pub t: u64,
    /// The pod.
    pub pod: &'a PodLedger,
    /// How its memory stands.
    pub levels: Option<Levels<'a>>,
    /// What the accounts say; absent behind the end of the pod's window.
    pub growth: Option<Growth>,
}

impl Moment<'_> {
    /// Nanoseconds since the Unix epoch.
    pub(super) fn unix_ns(&self) -> u64 {
        self.source.unix_ns(self.t)
    }

    /// The pod among those of all recordings.
    pub(super) const fn key(&self) -> PodKey {
        (self.source.number, self.pod.pod.pod)
    }
}

/// Number of a recording, and of a pod in it.
pub(super) type PodKey = (usize, u32);

/// The kernel's figures.
#[derive(Debug)]
pub(super) struct Levels<'a> {
    /// Usage of the limiting memcg, bytes.
    pub usage: u64,
    /// Its limit.
    pub limit: Option<u64>,
    /// Resident guest RAM, where known.
    pub guest_resident: Option<u64>,
    /// The sample; absent at a kill.
    pub sample: Option<&'a Sample>,
}

/// Growth since the pod's first sample, bytes.
#[derive(Debug, Default)]
pub(super) struct Growth {
    /// Of overhead, by who and kind.
    pub overhead: BTreeMap<(Entity, Kind), i128>,
    /// Time spent reclaiming, nanoseconds.
    pub stalls: BTreeMap<Entity, u64>,
    /// Of guest RAM.
    pub guest: i128,
    /// Of usage that no account explains.
    pub unexplained: i128,
}

impl Growth {
    /// Growth of overhead by who alone.
    pub(super) fn by_entity(&self) -> BTreeMap<&Entity, i128> {
        let mut sums = BTreeMap::new();
        for ((entity, _), bytes) in &self.overhead {
            *sums.entry(entity).or_default() += bytes;
        }
        sums
    }
}

/// Finds the points among the events.
#[derive(Debug, Default)]
pub(super) struct Moments {
    /// Least time between two points of a pod, nanoseconds.
    every: u64,
    /// When the next point is due, by pod.
    due: HashMap<PodKey, u64>,
    /// Pods that were killed, whose last growth is not told yet.
    killed: BTreeSet<PodKey>,
    /// Who is told apart, by pod.
    entities: HashMap<PodKey, BTreeSet<Entity>>,
}

impl Moments {
    pub(super) fn every(every: u64) -> Self {
        Self {
            every,
            ..Self::default()
        }
    }

    /// The point that this event is, if it is one. The ledger has taken the event already.
    pub(super) fn of<'a>(&mut self, source: Source<'a>, event: &'a Event) -> Option<Moment<'a>> {
        match &event.body {
            Body::Sample(sample) => self.sample(source, event.t, sample),
            Body::Oom(oom) => self.kill(source, event.t, oom),
            _ => None,
        }
    }

    fn sample<'a>(&mut self, source: Source<'a>, t: u64, sample: &'a Sample) -> Option<Moment<'a>> {
        let pod = source.ledger.pod(sample.pod)?;
        if sample.memcg != pod.pod.memcg {
            return None;
        }
        if self.every > 0 {
            let due = self.due.entry((source.number, sample.pod)).or_default();
            if t < *due {
                return None;
            }
            *due = t.saturating_add(self.every);
        }
        Some(Moment {
            source,
            t,
            pod,
            levels: Some(Levels {
                usage: sample.usage,
                limit: sample.limit,
                guest_resident: sample.guest_resident,
                sample: Some(sample),
            }),
            growth: pod.kill_t().is_none().then(|| self.growth(source, pod)),
        })
    }

    /// The first kill of a pod, which ends its window, if that had begun.
    fn kill<'a>(&mut self, source: Source<'a>, t: u64, oom: &Oom) -> Option<Moment<'a>> {
        let number = source.ledger.pod_of_oom(oom)?;
        let pod = source.ledger.pod(number)?;
        if pod.ooms.len() != 1 || pod.first.is_none() {
            return None;
        }
        self.killed.insert((source.number, number));
        let last = pod.last.as_ref().and_then(|(_, sample)| sample.limit);
        let of_pod = oom.oom_memcg == pod.pod.memcg && oom.limit > 0;
        Some(Moment {
            source,
            t,
            pod,
            levels: Some(Levels {
                usage: pod.usage().1,
                limit: of_pod.then_some(oom.limit).or(last),
                guest_resident: pod.guest_last,
                sample: None,
            }),
            growth: None,
        })
    }

    /// Growth at the kills. It is known at the end only: what was charged before a kill may be told after it.
    pub(super) fn at_kills(
        &mut self,
        sources: &[Source<'_>],
        mut take: impl FnMut(&Moment<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        for (recording, number) in std::mem::take(&mut self.killed) {
            let Some(source) = sources.iter().find(|source| source.number == recording) else {
                continue;
            };
            let Some(pod) = source.ledger.pod(number) else { continue };
            let Some(t) = pod.kill_t() else { continue };
            take(&Moment {
                source: *source,
                t,
                pod,
                levels: None,
                growth: Some(self.growth(*source, pod)),
            })?;
        }
        Ok(())
    }

    fn growth(&mut self, source: Source<'_>, pod: &PodLedger) -> Growth {
        let entities = self.entities.entry((source.number, pod.pod.pod)).or_default();
        let resolved = source.ledger.resolve(pod);
        let mut growth = Growth {
            guest: resolved.guest_growth,
            unexplained: pod.unexplained(),
            ..Growth::default()
        };
        for thread in &resolved.threads {
            if entities.len() < MAX_ENTITIES && !entities.contains(&thread.entity) {
                entities.insert(thread.entity.clone());
            }
            let known = entities.get(&thread.entity);
            let entity = known.cloned().unwrap_or_else(Entity::others);
            for (kind, bytes) in &thread.kinds {
                *growth.overhead.entry((entity.clone(), *kind)).or_default() += bytes;
            }
            let stalls = growth.stalls.entry(entity).or_default();
            *stalls = stalls.saturating_add(thread.account.reclaim_ns);
        }
        growth
    }
}
