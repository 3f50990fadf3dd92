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
    /// The last victim: its threads are marked too when they run into the limit while they die.
    last_victim: Option<u32>,
    waiting: Vec<Event>,
}

impl Kills {
    /// The kernel chose a victim.
    pub const fn control(&mut self, record: OomRecord) {
        self.control = Some(record);
    }

    /// A victim was marked: the kill is certain. Returns the memcg whose limit was hit, when it is a new kill in a
    /// watched pod.
    pub fn victim(&mut self, names: &Names, pods: &Pods<'_>, record: &VictimRecord) -> Option<u64> {
        let pod = pods.of_memcg(record.memcg).or_else(|| pods.of_memcg(record.oom_memcg));
        let control = self
            .control
            .take()
            .filter(|control| control.victim_tgid == record.victim_tgid);
        if pod.is_none() || self.last_victim.replace(record.victim_tgid) == Some(record.victim_tgid) {
            return None;
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
        let oom_memcg = oom.oom_memcg;
        self.waiting.push(Event {
            t: record.t,
            body: Body::Oom(oom),
        });
        Some(oom_memcg)
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn victim(tgid: u32, memcg: u64) -> VictimRecord {
        VictimRecord {
            record: 4,
            invoker_tid: 12,
            t: 1_000,
            memcg,
            usage: 64,
            limit: 64,
            oom_memcg: memcg,
            invoker_tgid: 10,
            victim_tgid: tgid,
            invoker_comm: *b"CPU 1/KVM\0\0\0\0\0\0\0",
            victim_comm: *b"qemu-system-x86\0",
        }
    }

    fn control(victim_tgid: u32) -> OomRecord {
        OomRecord {
            record: 3,
            invoker_tid: 12,
            t: 990,
            oom_memcg: 77,
            usage: 100,
            limit: 100,
            invoker_tgid: 10,
            victim_tgid,
            gfp_mask: 0xcc0,
            order: 9,
            constraint: 3,
            padding: 0,
            invoker_comm: [0; 16],
            victim_comm: [0; 16],
        }
    }

    fn one_kill(control: Option<OomRecord>, victim: &VictimRecord) -> Option<Oom> {
        let mut kills = Kills::default();
        if let Some(control) = control {
            kills.control(control);
        }
        let limit = kills.victim(&Names::new(0), &Pods(&HashMap::from([(5, 0)])), victim);
        assert_eq!(limit.is_some(), kills.any_waiting());
        assert!(
            kills.ready(victim.t).is_empty(),
            "the kernel is still printing its report"
        );
        let ready = kills.ready(victim.t + REPORT_DELAY_NS);
        ready.into_iter().next().map(|event| match event.body {
            Body::Oom(oom) => oom,
            other => panic!("not a kill: {other:?}"),
        })
    }

    #[test]
    fn the_oom_control_says_which_limit_and_the_victim_which_process() {
        let oom = one_kill(Some(control(10)), &victim(10, 5)).expect("a kill in a watched pod");
        assert_eq!((oom.oom_memcg, oom.usage, oom.order), (77, 100, Some(9)));
        assert_eq!(oom.constraint.as_deref(), Some("memcg"));
        assert_eq!((oom.victim.pid, oom.victim.comm.as_str()), (10, "qemu-system-x86"));
        assert_eq!((oom.invoker.tid, oom.invoker.comm.as_str()), (12, "CPU 1/KVM"));
    }

    #[test]
    fn the_victim_alone_will_do_and_another_ones_control_is_not_taken() {
        let oom = one_kill(Some(control(99)), &victim(10, 5)).expect("a kill in a watched pod");
        assert_eq!((oom.oom_memcg, oom.usage, oom.gfp), (5, 64, None));
    }

    #[test]
    fn a_victim_dies_once() {
        let mut kills = Kills::default();
        let pods = HashMap::from([(5, 0)]);
        for tgid in [10, 10, 11] {
            kills.victim(&Names::new(0), &Pods(&pods), &victim(tgid, 5));
        }
        assert_eq!(
            kills.ready(u64::MAX).len(),
            2,
            "the second mark was a dying thread of the first victim"
        );
    }

    #[test]
    fn kills_elsewhere_are_not_ours() {
        assert_eq!(one_kill(None, &victim(10, 6)), None);
    }
}
