//! Listens to events, keeps the last of them, and says when there is an incident to write.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use jiff::Timestamp;

use super::contents::Incident;
use crate::collect::{EventSink, KillFiles};
use crate::recording::event::{Body, Event, Footer, Oom, Pod};
use crate::recording::flight::{Flight, Limits};

/// How long events are kept after the kill: the kernel's report, and what the kill gave back.
const AFTER_KILL_NS: u64 = 2_000_000_000;

/// What made an incident of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The kernel killed.
    Kill,
    /// An alert was raised.
    Alert,
}

/// An incident that is not written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ripe {
    trigger: Trigger,
    pod: Option<u32>,
    /// When it happened, CLOCK_BOOTTIME nanoseconds.
    at: u64,
    /// The last kill that belongs to it.
    last: u64,
    /// When it is to be written.
    due: u64,
}

/// The flight recorder and the incidents that wait.
#[derive(Debug)]
pub struct Watcher {
    flight: Flight,
    boot_unix_ns: u64,
    pods: BTreeMap<u32, Pod>,
    waiting: Vec<Ripe>,
    /// Last kill of each pod that has been written.
    told: HashMap<u32, u64>,
    /// When an alert of a pod was last made an incident of: one that comes soon after would tell the same again.
    alerted: HashMap<u32, u64>,
    keep_ns: u64,
    kill_files: Vec<KillFiles>,
}

impl Watcher {
    /// A watcher that keeps this much.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new(limits: Limits) -> anyhow::Result<Self> {
        Ok(Self {
            flight: Flight::new(limits)?,
            boot_unix_ns: 0,
            pods: BTreeMap::new(),
            waiting: Vec::new(),
            told: HashMap::new(),
            alerted: HashMap::new(),
            keep_ns: limits.keep_ns,
            kill_files: Vec::new(),
        })
    }

    /// The flight recorder.
    #[must_use]
    pub const fn flight(&self) -> &Flight {
        &self.flight
    }

    /// Asks for an incident folder about what is kept now; for one that waits already, nothing.
    pub fn trigger(&mut self, trigger: Trigger, pod: Option<u32>, at: u64) {
        if !self.waiting.iter().any(|ripe| ripe.pod == pod) {
            self.waiting.push(Ripe {
                trigger,
                pod,
                at,
                last: 0,
                due: at,
            });
        }
    }

    /// Alerts of a pod within what an incident holds of the past are one incident. A kill is always another.
    fn alert(&mut self, pod: u32, t: u64) {
        let told = self.alerted.get(&pod);
        if told.is_none_or(|told| t.saturating_sub(*told) >= self.keep_ns) {
            self.alerted.insert(pod, t);
            self.trigger(Trigger::Alert, Some(pod), t);
        }
    }

    /// Takes what memcgs showed right after kills.
    pub fn kill_files(&mut self, files: Vec<KillFiles>) {
        self.kill_files.extend(files);
    }

    fn kill(&mut self, t: u64, oom: &Oom) {
        // Several processes may die of one lack of memory (memory.oom.group): that is one incident.
        if let Some(ripe) = self.waiting.iter_mut().find(|ripe| ripe.pod == oom.pod) {
            if ripe.trigger != Trigger::Kill {
                ripe.trigger = Trigger::Kill;
                ripe.at = t;
                ripe.due = t + AFTER_KILL_NS;
            }
            ripe.last = ripe.last.max(t);
            return;
        }
        self.waiting.push(Ripe {
            trigger: Trigger::Kill,
            pod: oom.pod,
            at: t,
            last: t,
            due: t.saturating_add(AFTER_KILL_NS),
        });
    }

    /// Whether an incident is to be written by now; at `u64::MAX` whether there is any.
    #[must_use]
    pub fn is_due(&self, now_ns: u64) -> bool {
        self.waiting.iter().any(|ripe| ripe.due <= now_ns)
    }

    /// The incidents to be written by now, with what is kept up to the footer, which must be of this very moment.
    ///
    /// # Errors
    /// When events cannot be packed.
    pub fn take_due(&mut self, now_ns: u64, t: u64, footer: &Footer) -> anyhow::Result<Vec<Incident>> {
        let (due, waiting) = mem::take(&mut self.waiting)
            .into_iter()
            .partition(|ripe: &Ripe| ripe.due <= now_ns);
        self.waiting = waiting;
        let incidents = due.into_iter().map(|ripe| self.incident(&ripe, t, footer)).collect();
        self.forget_gone();
        incidents
    }

    /// Forgets pods that are gone, unless an incident still waits to be told.
    fn forget_gone(&mut self) {
        let waiting = &self.waiting;
        self.pods
            .retain(|number, pod| !pod.gone || waiting.iter().any(|ripe| ripe.pod == Some(*number)));
        self.told.retain(|number, _| self.pods.contains_key(number));
        self.alerted.retain(|number, _| self.pods.contains_key(number));
    }

    fn incident(&mut self, ripe: &Ripe, t: u64, footer: &Footer) -> anyhow::Result<Incident> {
        let past = ripe
            .pod
            .and_then(|pod| Some((pod, *self.told.get(&pod)?)))
            .filter(|_| ripe.trigger == Trigger::Kill);
        let recording = self.flight.excerpt(t, footer.clone(), past)?;
        if let (Some(pod), Trigger::Kill) = (ripe.pod, ripe.trigger) {
            self.told.insert(pod, ripe.last);
        }
        let of_it = |files: &KillFiles| Some(files.pod) == ripe.pod && files.t <= ripe.last.max(ripe.at);
        let kill_files: Vec<KillFiles> = self.kill_files.extract_if(.., |files| of_it(files)).collect();
        let pod = ripe
            .pod
            .and_then(|pod| self.pods.get(&pod))
            .cloned()
            .unwrap_or_default();
        Ok(Incident {
            trigger: ripe.trigger,
            at: self.utc(ripe.at),
            begins: self.utc(recording.begins()),
            pod,
            recording,
            shortened: self.flight.was_short(),
            memory_files: kill_files.into_iter().next().map_or_else(Vec::new, |first| first.files),
        })
    }

    fn utc(&self, t: u64) -> Timestamp {
        let nanoseconds = i128::from(self.boot_unix_ns) + i128::from(t);
        Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::MAX)
    }
}

impl EventSink for Watcher {
    fn event(&mut self, event: &Event) -> anyhow::Result<()> {
        match &event.body {
            Body::Header(header) => self.boot_unix_ns = header.boot_unix_ns,
            Body::Pod(pod) => {
                self.pods.insert(pod.pod, pod.clone());
                self.forget_gone();
            }
            Body::Oom(oom) => self.kill(event.t, oom),
            Body::Alert(alert) if alert.raised => self.alert(alert.pod, event.t),
            // Each incident gets a footer of its own.
            Body::Footer(_) => return Ok(()),
            _ => {}
        }
        Ok(self.flight.push(event)?)
    }

    fn tick(&mut self, now_ns: u64) -> anyhow::Result<()> {
        Ok(self.flight.tick(now_ns)?)
    }
}
