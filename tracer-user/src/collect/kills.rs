//! From the kernel side's two views of a kill, and the kernel's own report, to one event.

use tracer_common::{OomRecord, VictimRecord};

use super::names::{Names, Pods, comm_text};
use crate::recording::event::{Body, Event, Oom, OomTask};

/// How long after the kill its event is held back: the kernel prints its report meanwhile.
const REPORT_DELAY_NS: u64 = 300_000_000;

/// Kills that are not announced yet.
#[derive(Debug, Default)]
pub struct Kills {
    /// The OOM control seen last, until its victim is marked.
    control: Option<OomRecord>,
    waiting: Vec<Event>,
}

impl Kills {
    /// The kernel chose a victim.
    pub const fn control(&mut self, record: OomRecord) {
        self.control = Some(record);
    }

    /// A victim was marked: the kill is certain.
    pub fn victim(&mut self, names: &Names, pods: &Pods<'_>, record: &VictimRecord) {
        let pod = pods.of_memcg(record.memcg).or_else(|| pods.of_memcg(record.oom_memcg));
        let control = self
            .control
            .take()
            .filter(|control| control.victim_tgid == record.victim_tgid);
        if pod.is_none() {
            return;
        }
        let invoker_comm = comm_text(&record.invoker_comm);
        let victim_comm = comm_text(&record.victim_comm);
        let oom = Oom {
            pod,
            oom_memcg: control.map_or(record.oom_memcg, |control| control.oom_memcg),
            memcg: record.memcg,
            usage: control.map_or(record.usage, |control| control.usage),
            limit: control.map_or(record.limit, |control| control.limit),
            gfp: control.map(|control| control.gfp_mask),
            order: control.map(|control| control.order),
            constraint: control.map(|control| constraint(control.constraint)),
            invoker: OomTask {
                tid: record.invoker_tid,
                pid: record.invoker_tgid,
                role: names.role(record.invoker_tid, record.invoker_tgid, &invoker_comm),
                comm: invoker_comm,
            },
            victim: OomTask {
                tid: record.victim_tgid,
                pid: record.victim_tgid,
                role: names.role(record.victim_tgid, record.victim_tgid, &victim_comm),
                comm: victim_comm,
            },
            kernel_report: Vec::new(),
        };
        self.waiting.push(Event {
            t: record.t,
            body: Body::Oom(oom),
        });
    }

    /// Whether a kill waits to be announced.
    #[must_use]
    pub fn any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When the first of the kills that wait to be announced happened.
    #[must_use]
    pub fn first_waiting(&self) -> Option<u64> {
        self.waiting.first().map(|event| event.t)
    }

    /// The kills that are old enough to be announced, the kernel having printed its report.
    pub fn ready(&mut self, now_ns: u64) -> Vec<Event> {
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|event| now_ns.saturating_sub(event.t) >= REPORT_DELAY_NS);
        self.waiting = waiting;
        ready
    }
}

/// kernel: enum oom_constraint, include/linux/oom.h (the same numbers in 5.10 to 7.3)
fn constraint(number: u32) -> String {
    ["none", "cpuset", "memory_policy", "memcg"]
        .get(number as usize)
        .map_or_else(|| format!("constraint {number}"), |name| (*name).to_owned())
}
