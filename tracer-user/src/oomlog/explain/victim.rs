//! Why the victim was the victim.

use std::cmp::Reverse;

use serde::Serialize;

use crate::oomlog::{Report, Task, role};
use crate::role::Role;

/// `oom_score_adj` of a process that is never killed (kernel: include/uapi/linux/oom.h OOM_SCORE_ADJ_MIN).
const NEVER: i64 = -1000;

/// The process that was killed.
#[derive(Clone, Debug, Serialize)]
pub struct Victim {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// What it is for.
    pub role: Role,
    /// Its place by the kernel's rule among the tasks of the log, from 1; absent where its row is missing.
    pub rank: Option<usize>,
    /// Its score by that rule, pages.
    pub score: Option<i64>,
    /// The part of the score that it holds itself (RSS, swap, page tables), bytes.
    pub footprint: Option<u64>,
    /// `oom_score_adj`
    pub oom_score_adj: Option<i64>,
    /// The highest score among the others.
    pub runner_up: Option<Contender>,
    /// Whether it holds the most memory of all, whatever `oom_score_adj` says.
    pub is_largest: Option<bool>,
    /// Whether the kernel was told to kill whoever allocates.
    pub kill_allocating_task: bool,
}

/// Another process that the kernel could have killed.
#[derive(Clone, Debug, Serialize)]
pub struct Contender {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Its score, pages.
    pub score: i64,
}

/// Pages that a process holds by the rule of the OOM killer.
pub(super) fn footprint(task: &Task, page_size: u64) -> u64 {
    task.rss
        .saturating_add(task.swapents)
        .saturating_add(task.pgtables / page_size)
}

/// kernel: mm/oom_kill.c oom_badness (5.3 to 7.3): rss + swapents + page tables + oom_score_adj x totalpages / 1000.
/// Without a limit in the log the total is unknown, and the adjustment can only be left out where all have the same.
fn score(task: &Task, page_size: u64, total_pages: Option<u64>) -> Option<i64> {
    if task.oom_score_adj == NEVER {
        return None;
    }
    let held = i64::try_from(footprint(task, page_size)).ok()?;
    let total = i64::try_from(total_pages.unwrap_or(0)).ok()?;
    Some(held.saturating_add(task.oom_score_adj.saturating_mul(total / 1000)))
}

/// What `oom_score_adj` is a thousandth of: the memcg's limit, or all memory and swap of the machine. Where a cpuset or a
/// memory policy is short, it is that of some NUMA nodes, which the log does not tell.
/// kernel: mm/oom_kill.c constrained_alloc; mm/show_mem.c __show_mem
fn total_pages(report: &Report, page_size: u64) -> Option<u64> {
    if let Some(memory) = report.memory {
        return memory.limit.map(|limit| limit / page_size);
    }
    let constraint = report.selection.as_ref().map(|selection| selection.constraint.as_str());
    if constraint.is_some_and(|constraint| constraint != "CONSTRAINT_NONE") {
        return None;
    }
    let before = |words: &str| {
        let found = report.mem_info.iter().find_map(|line| line.trim().strip_suffix(words));
        found?.parse::<u64>().ok()
    };
    let swap = report.mem_info.iter().find_map(|line| {
        line.trim()
            .strip_prefix("Total swap = ")?
            .strip_suffix("kB")?
            .parse::<u64>()
            .ok()
    });
    let swap = swap.unwrap_or(0).saturating_mul(1024) / page_size;
    let ram = before(" pages RAM")?.saturating_sub(before(" pages reserved").unwrap_or(0));
    Some(ram.saturating_add(swap))
}

pub(super) fn victim(report: &Report) -> Option<Victim> {
    let (pid, comm) = report.victim()?;
    let page_size = report.page_size();
    let total = total_pages(report, page_size);
    let same_adj = report
        .tasks
        .windows(2)
        .all(|pair| pair[0].oom_score_adj == pair[1].oom_score_adj);
    let mut ranking: Vec<(i64, &Task)> = Vec::new();
    if total.is_some() || same_adj {
        ranking.extend(
            report
                .tasks
                .iter()
                .filter_map(|task| Some((score(task, page_size, total)?, task))),
        );
        ranking.sort_by_key(|(score, task)| (Reverse(*score), task.pid));
    }
    let place = ranking.iter().position(|(_, task)| task.pid == pid);
    let task = report.task(pid);
    let largest = report.tasks.iter().map(|task| footprint(task, page_size)).max();
    Some(Victim {
        pid,
        comm: comm.to_owned(),
        role: role::of_process(comm),
        rank: place.map(|place| place + 1),
        score: place.map(|place| ranking[place].0),
        footprint: task.map(|task| footprint(task, page_size).saturating_mul(page_size)),
        oom_score_adj: task.map(|task| task.oom_score_adj),
        runner_up: ranking
            .iter()
            .find(|(_, task)| task.pid != pid)
            .map(|(score, task)| Contender {
                pid: task.pid,
                comm: task.comm.clone(),
                score: *score,
            }),
        is_largest: task.and_then(|task| Some(footprint(task, page_size) >= largest?)),
        kill_allocating_task: report
            .notes
            .iter()
            .any(|note| note.contains("oom_kill_allocating_task")),
    })
}
