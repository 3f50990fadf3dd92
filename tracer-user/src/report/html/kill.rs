//! A kill, and what the kernel reported of it.

use super::cell::{Size, name};
use crate::oomlog::Parser;
use crate::oomlog::explain::{Explanation, TaskUse, explain, facts};
use crate::report::verdict::duration;
use crate::report::words::moment;
use crate::report::{OomReport, PodReport};
use crate::units::Bytes;

pub(super) struct KillView {
    pub at: String,
    pub at_short: String,
    pub victim: String,
    pub victim_pid: u32,
    pub usage: String,
    pub limit: String,
    pub memcg: String,
    pub invoker: String,
    pub invoker_tid: u32,
    pub invoker_role: String,
    /// How long before it was predicted; empty where it was not.
    pub lead: String,
    pub explained: Vec<ExplainedView>,
    pub lines: Vec<String>,
}

/// The kernel's report in a VM's terms.
pub(super) struct ExplainedView {
    pub verdict: Vec<String>,
    pub facts: Vec<(&'static str, String)>,
    pub kubevirt: String,
    pub tasks: Vec<TaskRow>,
}

pub(super) struct TaskRow {
    pub comm: String,
    pub pid: u32,
    pub role: String,
    pub rss: Size,
    pub budget: Size,
    pub over: Size,
    pub page_tables: Size,
    pub swap: Size,
    pub adj: String,
}

pub(super) fn kills(pod: &PodReport) -> Vec<KillView> {
    pod.oom.iter().map(|oom| KillView::new(pod, oom)).collect()
}

impl KillView {
    fn new(pod: &PodReport, oom: &OomReport) -> Self {
        Self {
            at: name(&oom.at),
            at_short: moment(&oom.at),
            victim: name(&oom.victim.comm),
            victim_pid: oom.victim.pid,
            usage: Bytes(oom.usage).to_string(),
            limit: Bytes(oom.limit).to_string(),
            memcg: name(&oom.oom_memcg),
            invoker: name(&oom.invoker.comm),
            invoker_tid: oom.invoker.tid,
            invoker_role: oom
                .invoker
                .role
                .as_ref()
                .map_or_else(String::new, |role| name(role.to_string())),
            lead: oom.lead_time_s.map_or_else(String::new, duration),
            explained: explained(pod, oom),
            lines: oom.kernel_report.iter().map(name).collect(),
        }
    }
}

fn explained(pod: &PodReport, oom: &OomReport) -> Vec<ExplainedView> {
    let mut parser = Parser::default();
    for line in &oom.kernel_report {
        parser.line(line.as_bytes());
    }
    let guest = (pod.guest_ram > 0).then_some(pod.guest_ram);
    let reports = parser.finish().reports;
    reports
        .iter()
        .map(|report| ExplainedView::new(&explain(report, guest)))
        .collect()
}

impl ExplainedView {
    fn new(explanation: &Explanation) -> Self {
        Self {
            verdict: explanation.verdict.iter().map(name).collect(),
            facts: facts(explanation)
                .into_iter()
                .map(|(what, value)| (what, name(value)))
                .collect(),
            kubevirt: name(&explanation.kubevirt),
            tasks: explanation.tasks.iter().map(TaskRow::new).collect(),
        }
    }
}

impl TaskRow {
    fn new(task: &TaskUse) -> Self {
        Self {
            comm: name(&task.comm),
            pid: task.pid,
            role: name(task.role_name()),
            rss: Size::of(task.rss),
            budget: Size::or_none(task.budget),
            over: Size::or_none(task.over()),
            page_tables: Size::of(task.page_tables),
            swap: Size::of(task.swap),
            adj: task.oom_score_adj.to_string(),
        }
    }
}
