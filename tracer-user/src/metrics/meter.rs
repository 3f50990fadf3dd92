//! Adds events up, and works figures out when somebody asks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::exchange::Exchange;
use super::figures::{ByRole, Figures, PodFigures, add, bounded, kind};
use super::label::{BEFORE, Roles, name, unique};
use super::stalls::Stalls;
use crate::collect::EventSink;
use crate::ledger::{Ledger, PodLedger};
use crate::node::own::OwnMeter;
use crate::recording::event::{AlertKind, Body, Event, Sample};
use crate::units::clamp;

/// What memory there was before tracing is of: nobody knows.
const ANY_KIND: &str = "any";

/// A pod, besides what the ledger knows.
#[derive(Debug, Default)]
struct State {
    latest: Option<Sample>,
    expected_at: Option<u64>,
    alerts: BTreeMap<AlertKind, bool>,
    roles: Roles,
    stalls: Stalls,
}

/// Takes a tracer's events, for as long as it runs.
#[derive(Debug)]
pub struct Meter {
    exchange: Arc<Exchange>,
    ledger: Ledger,
    pods: BTreeMap<u32, State>,
    memcgs: HashMap<u64, u32>,
    records: u64,
    kills: u64,
    alerts: BTreeMap<AlertKind, u64>,
    own: OwnMeter,
    began_unix_s: f64,
}

impl Meter {
    /// One that answers through `exchange`.
    #[must_use]
    pub fn new(exchange: Arc<Exchange>) -> Self {
        Self {
            exchange,
            ledger: Ledger::new(),
            pods: BTreeMap::new(),
            memcgs: HashMap::new(),
            records: 0,
            kills: 0,
            alerts: BTreeMap::new(),
            own: OwnMeter::default(),
            began_unix_s: 0.0,
        }
    }

    /// Everything at this time, CLOCK_BOOTTIME nanoseconds.
    pub fn figures(&mut self, now_ns: u64) -> Figures {
        let Self { ledger, pods, .. } = self;
        let mut taken = BTreeSet::new();
        let figures = ledger.pods().filter_map(|pod| {
            let state = pods.get_mut(&pod.pod.pod)?;
            let (namespace, vm) = unique(&pod.pod, &mut taken);
            Some(PodFigures {
                namespace,
                vm,
                ..of_pod(ledger, pod, state, now_ns)
            })
        });
        let (pods, folded) = bounded(figures);
        Figures {
            pods,
            folded,
            loss: ledger.loss(),
            records: self.records,
            alerts: self.alerts.clone(),
            kills: self.kills,
            own: self.own.read(),
            began_unix_s: self.began_unix_s,
        }
    }

    /// A pod is gone, and so are its figures: it would be in every scrape for ever.
    fn forget(&mut self, pod: u32) {
        self.pods.remove(&pod);
        self.memcgs.retain(|_, of| *of != pod);
        self.ledger.forget(pod);
    }

    fn take(&mut self, event: &Event) {
        match &event.body {
            Body::Header(header) => self.began_unix_s = unix_s(header.boot_unix_ns.saturating_add(event.t)),
            Body::Pod(pod) if !pod.gone => {
                self.pods.entry(pod.pod).or_default();
                for memcg in &pod.memcgs {
                    self.memcgs.insert(memcg.id, pod.pod);
                }
                self.memcgs.insert(pod.memcg, pod.pod);
            }
            Body::Charge(_) => self.records += 1,
            Body::Sample(sample) => {
                let limiting = self
                    .ledger
                    .pod(sample.pod)
                    .is_some_and(|pod| pod.pod.memcg == sample.memcg);
                if let Some(state) = self.pods.get_mut(&sample.pod).filter(|_| limiting) {
                    state.latest = Some(sample.clone());
                }
            }
            Body::Reclaim(reclaim) => {
                if let Some(state) = self.memcgs.get(&reclaim.memcg).and_then(|pod| self.pods.get_mut(pod)) {
                    state.stalls.add(reclaim.duration_ns);
                }
            }
            Body::Forecast(forecast) => {
                if let Some(state) = self.pods.get_mut(&forecast.pod) {
                    state.expected_at = forecast.kill_at;
                }
            }
            Body::Alert(alert) => {
                if alert.raised {
                    *self.alerts.entry(alert.alert).or_default() += 1;
                }
                if let Some(state) = self.pods.get_mut(&alert.pod) {
                    state.alerts.insert(alert.alert, alert.raised);
                }
            }
            Body::Oom(oom) => self.kill(oom.pod.or_else(|| self.memcgs.get(&oom.oom_memcg).copied())),
            _ => {}
        }
    }

    /// What led to the kill is over: growth counts anew, and what was foreseen has come.
    fn kill(&mut self, pod: Option<u32>) {
        self.kills += 1;
        let Some(pod) = pod else { return };
        self.ledger.restart(pod);
        if let Some(state) = self.pods.get_mut(&pod) {
            state.expected_at = None;
            state.alerts.values_mut().for_each(|raised| *raised = false);
        }
    }
}

impl EventSink for Meter {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        if let Body::Pod(pod) = &event.body
            && pod.gone
        {
            self.forget(pod.pod);
            return Ok(());
        }
        self.ledger.apply(event);
        self.take(event);
        Ok(())
    }

    fn tick(&mut self, now_ns: u64) -> anyhow::Result<()> {
        if self.exchange.look(now_ns) {
            let figures = self.figures(now_ns);
            self.exchange.answer(figures);
        }
        Ok(())
    }
}

fn of_pod(ledger: &Ledger, pod: &PodLedger, state: &mut State, now_ns: u64) -> PodFigures {
    let latest = state.latest.as_ref();
    let usage = latest.map(|sample| sample.usage);
    let limit = match latest {
        Some(sample) => sample.limit,
        None => pod.pod.limit,
    };
    let mut overhead = ByRole::new();
    if let Some((_, first)) = &pod.first {
        let guest = first.guest_resident.or(pod.guest_first).unwrap_or(0);
        let before = i64::try_from(first.usage.saturating_sub(guest)).unwrap_or(i64::MAX);
        overhead.insert((BEFORE.to_owned(), ANY_KIND), before);
    }
    let threads = ledger.resolve(pod).threads;
    let mut sizes: HashMap<String, u64> = HashMap::new();
    for thread in &threads {
        let size = sizes.entry(name(&thread.entity.role)).or_default();
        let bytes: i128 = thread.kinds.values().map(|bytes| bytes.abs()).sum();
        *size = size.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
    for thread in &threads {
        let role = &thread.entity.role;
        let size = sizes.get(&name(role)).copied().unwrap_or(0);
        let role = state.roles.label(role, size);
        for (of, bytes) in &thread.kinds {
            add(&mut overhead, role.clone(), kind(*of), clamp(*bytes));
        }
    }
    let mut live = ByRole::new();
    if ledger.follows_pages() {
        for (role, kinds) in pod.held().by_role(ledger) {
            let size = sizes.get(&name(&role)).copied().unwrap_or(0);
            let holds = kinds.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
            let role = state.roles.label(&role, size.max(holds));
            for (of, bytes) in kinds {
                add(
                    &mut live,
                    role.clone(),
                    kind(of),
                    i64::try_from(bytes).unwrap_or(i64::MAX),
                );
            }
        }
    }
    PodFigures {
        usage,
        limit,
        headroom: limit.zip(usage).map(|(limit, usage)| limit.saturating_sub(usage)),
        reclaimable: latest.map(|sample| sample.reclaimable_file),
        guest_ram: pod.pod.guest_ram,
        guest_resident: latest.and_then(|sample| sample.guest_resident).or(pod.guest_last),
        eta_s: state.expected_at.map(|at| unix_s(at.saturating_sub(now_ns))),
        overhead,
        live,
        unexplained: pod.first.is_some().then(|| clamp(pod.unexplained())),
        alerts: state.alerts.clone(),
        stalls: state.stalls,
        ..PodFigures::default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds to a microsecond")]
fn unix_s(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
