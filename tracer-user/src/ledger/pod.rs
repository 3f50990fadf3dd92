//! One pod's accounts and samples within its window.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;
use tracer_common::Kind;

use super::account::{Account, Cells, ThreadKey};
use super::culprit::Entity;
use super::held::Held;
use super::peaks::Peaks;
use super::predicted::Predicted;
use super::reconcile::Worst;
use super::series::Series;
use crate::recording::event::{Alert, Charge, Forecast, Live, Oom, Pod, Reclaim, Sample};

/// Roles and processes of ended threads kept apart; names come from pods, so there is no other bound to their number.
const MAX_ENDED: usize = 1024;

/// One pod.
#[derive(Debug, Default)]
pub struct PodLedger {
    /// What it is, as last described.
    pub pod: Pod,
    /// First sample of the limiting memcg and its time: growth counts from here.
    pub first: Option<(u64, Sample)>,
    /// Last sample within the window and its time.
    pub last: Option<(u64, Sample)>,
    /// Usage at the kill, where the limiting memcg is the one that was full.
    pub usage_at_kill: Option<u64>,
    /// Kills, with their times. The first one ends the window.
    pub ooms: Vec<(u64, Oom)>,
    /// Largest usage seen.
    pub usage_peak: u64,
    /// Largest usage less resident guest RAM seen.
    pub overhead_peak: u64,
    /// Smallest limit less usage seen.
    pub headroom_min: Option<u64>,
    /// What a limit has to hold.
    pub peaks: Peaks,
    /// First guest resident figure that was known.
    pub guest_first: Option<u64>,
    /// Last one.
    pub guest_last: Option<u64>,
    /// Timeline.
    pub series: Series,
    /// Worst moment of reconciliation.
    pub worst: Worst,
    /// Bytes that a thread was charged from one sample to the next, where it was charged any.
    pub bursts: Sizes,
    /// Reclaim stalls, nanoseconds.
    pub stalls: Sizes,
    /// What was predicted before the kill.
    pub predicted: Predicted,
    /// Charged to memcgs of the pod that do not count against the limit.
    pub uncounted: Cells,
    /// Charged after the kill: the teardown.
    pub teardown: Cells,
    accounts: HashMap<ThreadKey, Account>,
    ended: BTreeMap<Entity, Account>,
    /// Charged since the last sample: not yet comparable with any usage.
    late: HashMap<ThreadKey, Cells>,
    /// What the last sample (or the kill) made comparable.
    recent: Vec<(ThreadKey, Cells)>,
    total: Cells,
    /// What accounts hold now.
    held: Held,
    /// What they held at the kill that ended the window.
    held_at_kill: Option<Held>,
}

/// A histogram of 1 to 2^62 at two digits.
#[derive(Debug)]
pub struct Sizes(pub Histogram<u64>);

impl Default for Sizes {
    fn default() -> Self {
        // Cannot fail: two digits are within 0..=5, and the bounds are in order.
        let histogram = Histogram::new_with_bounds(1, 1 << 62, 2);
        Self(histogram.unwrap_or_else(|_| unreachable!("constant bounds")))
    }
}

impl PodLedger {
    pub(super) fn describe(&mut self, pod: &Pod) {
        if pod.gone {
            // The cgroup's limit went with it; what was known before is what is reported.
            self.pod.gone = true;
            return;
        }
        if self.first.is_some() && self.pod.memcg != pod.memcg && self.ooms.is_empty() {
            // Another memcg limits now: growth of the old one's usage says nothing about it.
            *self = Self {
                held: std::mem::take(&mut self.held),
                ..Self::default()
            };
        }
        self.pod = pod.clone();
    }

    pub(super) fn restart(&mut self) {
        *self = Self {
            pod: std::mem::take(&mut self.pod),
            held: std::mem::take(&mut self.held),
            ..Self::default()
        };
    }

    pub(super) fn charge(&mut self, t: u64, charge: &Charge, counted: bool) {
        let Charge {
            kind,
            region,
            charged,
            uncharged,
            ..
        } = *charge;
        if !counted {
            return self.uncounted.add(kind, region, charged, uncharged);
        }
        if self.kill_t().is_some_and(|kill| t > kill) {
            return self.teardown.add(kind, region, charged, uncharged);
        }
        let key = ThreadKey {
            tid: charge.tid,
            start_ns: charge.start_ns,
        };
        self.late.entry(key).or_default().add(kind, region, charged, uncharged);
        if self.kill_t().is_some() {
            // Older than the kill, but told after it.
            self.settle();
        }
    }

    pub(super) fn live(&mut self, t: u64, live: &Live) {
        self.held.take(t, live);
        if self.kill_t().is_some_and(|kill| t <= kill)
            && let Some(held) = &mut self.held_at_kill
        {
            held.take(t, live);
        }
    }

    /// What accounts hold at the end of the window.
    #[must_use]
    pub fn held(&self) -> &Held {
        self.held_at_kill.as_ref().unwrap_or(&self.held)
    }

    /// Takes a sample; says whether it is to become a point of the timeline.
    pub(super) fn sample(&mut self, t: u64, sample: &Sample, tolerance: u64) -> bool {
        if sample.memcg != self.pod.memcg || self.kill_t().is_some() {
            return false;
        }
        if self.first.is_none() {
            // What was charged before is part of the first usage.
            self.late.clear();
            self.first = Some((t, sample.clone()));
        }
        self.settle();
        self.record_bursts();
        self.last = Some((t, sample.clone()));
        self.guest_first = self.guest_first.or(sample.guest_resident);
        self.guest_last = sample.guest_resident.or(self.guest_last);
        self.usage_peak = self.usage_peak.max(sample.usage);
        let guest = sample.guest_resident.or(self.guest_last).unwrap_or(0);
        self.overhead_peak = self.overhead_peak.max(sample.usage.saturating_sub(guest));
        self.peaks.observe(sample);
        if let Some(limit) = sample.limit {
            let headroom = limit.saturating_sub(sample.usage);
            self.headroom_min = Some(self.headroom_min.map_or(headroom, |least| least.min(headroom)));
        }
        self.worst.observe(t, self.unexplained(), tolerance);
        self.series.turn()
    }

    pub(super) fn reclaim(&mut self, t: u64, reclaim: &Reclaim) {
        if self.kill_t().is_some_and(|kill| t > kill) {
            return;
        }
        self.stalls.0.saturating_record(reclaim.duration_ns.max(1));
        let key = ThreadKey {
            tid: reclaim.tid,
            start_ns: reclaim.start_ns,
        };
        let account = self.accounts.entry(key).or_default();
        account.reclaim_ns = account.reclaim_ns.saturating_add(reclaim.duration_ns);
        account.reclaims += 1;
    }

    pub(super) fn oom(&mut self, t: u64, oom: &Oom) {
        if self.ooms.is_empty() && self.first.is_some() {
            self.settle();
            self.record_bursts();
            if oom.oom_memcg == self.pod.memcg && oom.usage > 0 {
                self.usage_at_kill = Some(oom.usage);
                self.usage_peak = self.usage_peak.max(oom.usage);
                let headroom = oom.limit.saturating_sub(oom.usage);
                self.headroom_min = Some(self.headroom_min.map_or(headroom, |least| least.min(headroom)));
            }
        }
        if self.ooms.is_empty() {
            self.held_at_kill = Some(self.held.clone());
        }
        self.ooms.push((t, oom.clone()));
    }

    pub(super) fn forecast(&mut self, t: u64, forecast: &Forecast) {
        if self.kill_t().is_none_or(|kill| t <= kill) {
            self.predicted.forecast(t, forecast);
        }
    }

    pub(super) fn alert(&mut self, t: u64, alert: &Alert) {
        if self.kill_t().is_none_or(|kill| t <= kill) {
            self.predicted.alert(t, alert);
        }
    }

    /// Moves what came since the last sample into the accounts.
    fn settle(&mut self) {
        let since = self.last.as_ref().or(self.first.as_ref()).map_or(0, |(t, _)| *t);
        self.recent.clear();
        for (key, cells) in self.late.drain() {
            self.total.merge(&cells);
            self.accounts.entry(key).or_default().charge(since, &cells);
            self.recent.push((key, cells));
        }
    }

    fn record_bursts(&mut self) {
        for (_, cells) in &self.recent {
            let bytes = cells.placed();
            if bytes > 0 {
                self.bursts.0.saturating_record(bytes);
            }
        }
    }

    /// Threads that something is still to be told of: what they were charged since the last sample, what that sample made
    /// comparable, or what they hold.
    pub(super) fn in_use(&self) -> impl Iterator<Item = ThreadKey> {
        let recent = self.recent.iter().map(|(key, _)| *key);
        let holding = self.held.threads().chain(self.held().threads());
        self.late.keys().copied().chain(recent).chain(holding)
    }

    pub(super) fn fold(&mut self, key: ThreadKey, entity: &Entity) {
        if let Some(account) = self.accounts.remove(&key) {
            let known = self.ended.len() < MAX_ENDED || self.ended.contains_key(entity);
            let entity = if known { entity.clone() } else { Entity::others() };
            self.ended.entry(entity).or_default().merge(&account);
        }
    }

    /// Time of the kill that ended the window.
    #[must_use]
    pub fn kill_t(&self) -> Option<u64> {
        self.ooms.first().map(|(t, _)| *t)
    }

    /// Whether what was charged at this time counts as growth.
    pub(super) fn counts_at(&self, t: u64) -> bool {
        self.first.as_ref().is_some_and(|(first, _)| t >= *first) && self.kill_t().is_none_or(|kill| t <= kill)
    }

    /// Start and end of the window; `None` before the first sample.
    #[must_use]
    pub fn window(&self) -> Option<(u64, u64)> {
        let end = self.kill_t().or(self.last.as_ref().map(|(t, _)| *t))?;
        Some((self.first.as_ref()?.0, end))
    }

    /// Usage at the window's start and end.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        let start = self.first.as_ref().map_or(0, |(_, sample)| sample.usage);
        let last = self.last.as_ref().map_or(start, |(_, sample)| sample.usage);
        (start, self.usage_at_kill.unwrap_or(last))
    }

    /// How much usage grew within the window.
    #[must_use]
    pub fn usage_growth(&self) -> i128 {
        let (start, end) = self.usage();
        i128::from(end) - i128::from(start)
    }

    /// Growth of usage that no account explains.
    #[must_use]
    pub fn unexplained(&self) -> i128 {
        self.usage_growth() - self.total.total()
    }

    /// Sums over all threads.
    #[must_use]
    pub fn total(&self) -> &Cells {
        &self.total
    }

    /// What each thread was charged and gave back between the last two samples (or the last sample and the kill).
    #[must_use]
    pub fn recent(&self) -> &[(ThreadKey, Cells)] {
        &self.recent
    }

    /// Accounts of threads, in no particular order.
    pub fn accounts(&self) -> impl Iterator<Item = (ThreadKey, &Account)> {
        self.accounts.iter().map(|(key, account)| (*key, account))
    }

    /// Sums over ended threads that are no longer kept apart.
    pub fn ended(&self) -> impl Iterator<Item = (&Entity, &Account)> {
        self.ended.iter()
    }

    /// Growth of one kind in memory.stat within the window, where the kernel shows it.
    #[must_use]
    pub fn stat_growth(&self, kind: Kind) -> Option<i128> {
        let of = |sample: &Option<(u64, Sample)>| sample.as_ref()?.1.stat.get(&kind).copied();
        Some(i128::from(of(&self.last)?) - i128::from(of(&self.first)?))
    }
}
