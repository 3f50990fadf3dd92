//! The kernel's report against what was recorded of the same kill.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{Explanation, Sure};
use crate::oomlog::{Report, Stamp};
use crate::recording::event::{Body, Event, Header, Oom};
use crate::role::Role;
use crate::units::Bytes;

/// What comparing a log with a recording found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Kills that both have.
    pub matched: usize,
    /// Facts that were compared.
    pub compared: usize,
    /// Where they differ, one line each. Not escaped.
    pub disagreements: Vec<String>,
}

/// The kernel stamps its log with a clock that nothing keeps in step with the recording's.
const CLOCK_SLACK_US: u64 = 5_000_000;
/// Pages that a CPU may have charged in advance (kernel: mm/memcontrol.c MEMCG_CHARGE_BATCH).
const CHARGE_BATCH: u64 = 64;

/// Processes, memcgs and pods of a recording that are remembered; a node has no more.
const MAX_NAMES: usize = 1 << 16;

/// What a recording says that a log may say, too.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    header: Header,
    kills: Vec<(u64, Oom)>,
    /// Paths of memcgs, by cgroup id.
    memcgs: BTreeMap<u64, String>,
    /// Size of guest RAM by pod, where a QEMU was found.
    guest_ram: BTreeMap<u32, u64>,
    /// Names by process id, each as last told before the first kill.
    processes: HashMap<u32, String>,
}

impl Recorded {
    /// Takes an event.
    pub fn take(&mut self, event: Event) {
        match event.body {
            Body::Header(header) => self.header = header,
            Body::Oom(kill) => self.kills.push((event.t, kill)),
            Body::Pod(pod) => {
                let own = std::iter::once((pod.memcg, pod.cgroup));
                let below = pod.memcgs.into_iter().map(|memcg| (memcg.id, memcg.path));
                for (id, path) in own.chain(below).filter(|(id, _)| *id != 0) {
                    if self.memcgs.len() < MAX_NAMES {
                        self.memcgs.insert(id, path);
                    }
                }
                if pod.guest_ram > 0 && self.guest_ram.len() < MAX_NAMES {
                    self.guest_ram.insert(pod.pod, pod.guest_ram);
                }
            }
            Body::Process(process) if self.processes.len() < MAX_NAMES => {
                self.processes.insert(process.pid, process.comm);
            }
            _ => {}
        }
    }
}

/// Compares the kills of a log with those of a recording. Kills belong together by the victim's process id.
#[must_use]
pub fn compare(reports: &[Report], explanations: &[Explanation], recorded: &Recorded) -> Comparison {
    let kills = &recorded.kills;
    let mut result = Comparison::default();
    let mut used = vec![false; kills.len()];
    for (report, explanation) in reports.iter().zip(explanations) {
        let Some((pid, comm)) = report.victim() else { continue };
        let found = kills
            .iter()
            .enumerate()
            .find(|(index, (_, kill))| !used[*index] && kill.victim.pid == pid);
        match found {
            Some((index, (t, kill))) => {
                used[index] = true;
                result.matched += 1;
                facts(report, &recorded.header, *t, kill, &mut result);
                places(report, recorded, kill, &mut result);
                roles(explanation, kill, &mut result);
                guest(explanation, recorded, kill, &mut result);
                processes(report, recorded, kill, &mut result);
            }
            None => result.disagreements.push(format!(
                "the log has a kill of {comm} (pid {pid}), the recording has none"
            )),
        }
    }
    let killed = |pid| {
        let named = |report: &Report| report.victim().is_some_and(|(victim, _)| victim == pid);
        reports
            .iter()
            .any(|report| named(report) || report.kills.iter().any(|kill| kill.pid == pid))
    };
    for ((_, kill), used) in kills.iter().zip(used) {
        // One report may stand for several: memory.oom.group kills all, and a victim's dying threads are marked too.
        if !used && !killed(kill.victim.pid) {
            result.disagreements.push(format!(
                "the recording has a kill of {} (pid {}), the log has none",
                kill.victim.comm, kill.victim.pid
            ));
        }
    }
    result
}

fn facts(report: &Report, header: &Header, t: u64, kill: &Oom, result: &mut Comparison) {
    let pid = kill.victim.pid;
    let mut check = |what: &str, log: Option<String>, recorded: Option<String>, same: bool| {
        result.check(pid, what, log.zip(recorded), same);
    };
    let mut equal = |what: &str, log: Option<String>, recorded: Option<String>| {
        let same = log == recorded;
        check(what, log, recorded, same);
    };
    let invoker = report.invoker.as_ref();
    let named = |name: &String| !name.is_empty();
    equal(
        "the invoker's name",
        invoker.map(|invoker| invoker.comm.clone()),
        Some(kill.invoker.comm.clone()).filter(named),
    );
    equal(
        "the invoker's thread",
        invoker.and_then(|invoker| invoker.tid).map(|tid| tid.to_string()),
        Some(kill.invoker.tid).filter(|tid| *tid > 0).map(|tid| tid.to_string()),
    );
    equal(
        "the victim's name",
        report.victim().map(|(_, comm)| comm.to_owned()),
        Some(kill.victim.comm.clone()).filter(named),
    );
    equal(
        "the order of the allocation",
        invoker.and_then(|invoker| invoker.order).map(|order| order.to_string()),
        kill.order.map(|order| order.to_string()),
    );
    equal(
        "gfp_mask",
        invoker.and_then(|invoker| invoker.gfp_mask.clone()),
        kill.gfp.map(|gfp| format!("{gfp:#x}")),
    );
    let constraint = report.selection.as_ref().and_then(|selection| {
        let name = selection.constraint.strip_prefix("CONSTRAINT_")?;
        Some(name.to_lowercase())
    });
    equal("the constraint", constraint, kill.constraint.clone());
    equal(
        "the limit",
        report
            .memory
            .and_then(|memory| memory.limit)
            .map(|limit| limit.to_string()),
        Some(kill.limit)
            .filter(|limit| *limit > 0)
            .map(|limit| limit.to_string()),
    );
    let usage = report.memory.map(|memory| memory.usage);
    let slack = CHARGE_BATCH * header.page_size.max(4096) * u64::from(header.cpus.max(1));
    check(
        "usage",
        usage.map(|usage| usage.to_string()),
        Some(kill.usage.to_string()),
        usage.is_some_and(|usage| usage.abs_diff(kill.usage) <= slack),
    );
    if let Some((log, recorded)) = times(report.stamp.as_ref(), header, t) {
        check(
            "the time, in microseconds,",
            Some(log.to_string()),
            Some(recorded.to_string()),
            log.abs_diff(recorded) <= CLOCK_SLACK_US,
        );
    }
}

/// The time in the log and the recorded one, by the clock that the log has.
fn times(stamp: Option<&Stamp>, header: &Header, t: u64) -> Option<(u64, u64)> {
    let stamp = stamp?;
    if let Some(unix) = stamp.unix_us.and_then(|us| u64::try_from(us).ok()) {
        return Some((unix, header.boot_unix_ns.saturating_add(t) / 1000));
    }
    Some((stamp.boot_us?, t / 1000))
}

impl Comparison {
    /// Counts a fact that both have, and lists it where they differ.
    fn check(&mut self, pid: u32, what: &str, values: Option<(String, String)>, same: bool) {
        let Some((log, recorded)) = values else { return };
        self.compared += 1;
        if !same {
            self.disagreements.push(format!(
                "pid {pid}: {what} is {log} in the log and {recorded} in the recording"
            ));
        }
    }

    fn equal(&mut self, pid: u32, what: &str, values: Option<(String, String)>) {
        let same = values.as_ref().is_some_and(|(log, recorded)| log == recorded);
        self.check(pid, what, values, same);
    }
}

/// Whose limit it was, and where the victim was.
fn places(report: &Report, recorded: &Recorded, kill: &Oom, result: &mut Comparison) {
    let Some(selection) = &report.selection else { return };
    for (what, log, id) in [
        ("the cgroup at its limit", &selection.oom_memcg, kill.oom_memcg),
        ("the victim's cgroup", &selection.task_memcg, kill.memcg),
    ] {
        let values = log.clone().zip(recorded.memcgs.get(&id).cloned());
        result.equal(kill.victim.pid, what, values);
    }
}

/// Roles by name against roles by process. A name that says nothing disagrees with nothing.
fn roles(explanation: &Explanation, kill: &Oom, result: &mut Comparison) {
    let invoker = explanation.invoker.as_ref().map(|invoker| &invoker.role);
    let victim = explanation.victim.as_ref().map(|victim| &victim.role);
    for (what, log, recorded) in [
        ("the invoker's role", invoker, &kill.invoker.role),
        ("the victim's role", victim, &kill.victim.role),
    ] {
        let told = log.filter(|role| !matches!(role, Role::Other(_)));
        let values = told.zip(recorded.as_ref());
        let values = values.map(|(log, recorded)| (log.to_string(), recorded.to_string()));
        result.equal(kill.victim.pid, what, values);
    }
}

/// Guest RAM as the log suggests it, or as the reader said.
fn guest(explanation: &Explanation, recorded: &Recorded, kill: &Oom, result: &mut Comparison) {
    let guest = &explanation.guest_ram;
    let recorded = kill.pod.and_then(|pod| recorded.guest_ram.get(&pod));
    let what = match guest.sure {
        Sure::Given => "guest RAM, as given,",
        _ => "guest RAM, as the log suggests it,",
    };
    let values = guest.size.zip(recorded.copied());
    let same = values.is_some_and(|(log, recorded)| log == recorded);
    let shown = values.map(|(log, recorded)| (Bytes(log).to_string(), Bytes(recorded).to_string()));
    result.check(kill.victim.pid, what, shown, same);
}

/// The task table against the processes that were recorded. Where more than the pod is in the table, its processes need
/// not be in the recording.
fn processes(report: &Report, recorded: &Recorded, kill: &Oom, result: &mut Comparison) {
    let whole_pod = recorded.memcgs.contains_key(&kill.oom_memcg);
    for task in &report.tasks {
        let values = match recorded.processes.get(&task.pid) {
            Some(comm) => Some((task.comm.clone(), comm.clone())),
            None if whole_pod => Some((task.comm.clone(), "missing".to_owned())),
            None => None,
        };
        result.equal(kill.victim.pid, &format!("process {}", task.pid), values);
    }
}
