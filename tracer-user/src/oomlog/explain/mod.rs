//! A kernel OOM report in a VM's terms.
//!
//! Pure: a [`Report`] in, an [`Explanation`] out. One report is a snapshot: it says what was there at the kill, not who
//! grew before it, and the explanation says no more than that.

mod budget;
mod compare;
mod guest;
mod memory;
mod text;
mod verdict;
mod victim;

use serde::Serialize;

use super::{Counter, Level, LevelKind, LineCount, Report, Stamp, role};
use crate::role::Role;
use crate::sizing::spec::Budgeted;

pub use compare::{Comparison, Recorded, compare};
pub use guest::{GuestRam, Sure};
pub use memory::{Memory, Overhead, TaskUse};
pub use text::{facts, render};
pub use victim::{Contender, Victim};

/// One kernel OOM report, explained. Sizes are bytes.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What happened, in a sentence or two. Not escaped.
    pub verdict: Vec<String>,
    /// When.
    pub at: Option<Stamp>,
    /// Where.
    pub host: Option<String>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Which limit was hit; absent where the log does not say, or when the machine itself ran out.
    pub limit: Option<LimitHit>,
    /// What the kernel was short of (`CONSTRAINT_MEMCG`, ...).
    pub constraint: Option<String>,
    /// Whose allocation failed.
    pub invoker: Option<Invoker>,
    /// Who was killed, and why.
    pub victim: Option<Victim>,
    /// Processes that were killed, in order, each once.
    pub killed: Vec<u32>,
    /// Whether memory.oom.group had everything in the memcg killed.
    pub group: bool,
    /// Guest RAM, and how sure that is.
    pub guest_ram: GuestRam,
    /// Where the memory was.
    pub memory: Memory,
    /// What the limit leaves beyond guest RAM, and how much of that was used; absent without guest RAM.
    pub overhead: Option<Overhead>,
    /// KubeVirt's budget against what was taken, where the limit is exactly that of a usual VM.
    pub budgeted: Option<Budgeted>,
    /// The KubeVirt release that `tasks` are held against: the one whose limit it is, else the newest.
    pub kubevirt: String,
    /// The processes, largest first.
    pub tasks: Vec<TaskUse>,
    /// How the lines of the report were taken.
    pub lines: LineCount,
    /// Lines inside the report that say nothing known.
    pub unparsed: Vec<String>,
}

/// The limit that was hit.
#[derive(Clone, Debug, Serialize)]
pub struct LimitHit {
    /// Whose.
    pub level: Option<Level>,
    /// What it limits.
    pub of: Limited,
    /// Usage.
    pub usage: u64,
    /// The limit; absent where there is none.
    pub limit: Option<u64>,
    /// Times that a charge ran into it.
    pub failcnt: u64,
}

/// What a limit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// Memory.
    Memory,
    /// Memory and swap together (cgroup v1).
    MemoryAndSwap,
}

impl Limited {
    /// For people, behind whose limit it is.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Memory => "",
            Self::MemoryAndSwap => " on memory and swap together",
        }
    }
}

/// The thread whose allocation failed.
#[derive(Clone, Debug, Serialize)]
pub struct Invoker {
    /// Its name.
    pub comm: String,
    /// Thread id.
    pub tid: Option<u32>,
    /// What it is for, by its name.
    pub role: Role,
    /// CPU it ran on.
    pub cpu: Option<u32>,
    /// What it asked for.
    pub gfp_flags: Option<String>,
    /// In how many pages at once, as a power of two.
    pub order: Option<i64>,
}

/// Explains a report. `guest` is the size of guest RAM, where the reader knows it.
#[must_use]
pub fn explain(report: &Report, guest: Option<u64>) -> Explanation {
    let limit = limit_hit(report);
    let guest_ram = guest::guest_ram(report, limit.as_ref(), guest);
    let memory = memory::memory(report);
    let budgeted = budget::budgeted(report, &guest_ram, &memory);
    let kubevirt = budget::release(budgeted.as_ref());
    let in_pod = limit.as_ref().is_some_and(LimitHit::is_of_one_pod);
    let mut explanation = Explanation {
        verdict: Vec::new(),
        at: report.stamp.clone(),
        host: report.host.clone(),
        kernel: report.invoker.as_ref().and_then(|invoker| invoker.kernel.clone()),
        constraint: report.selection.as_ref().map(|selection| selection.constraint.clone()),
        invoker: report.invoker.as_ref().map(invoker),
        victim: victim::victim(report),
        killed: killed(report),
        group: report.group.is_some(),
        overhead: memory::overhead(report, &guest_ram),
        budgeted,
        kubevirt: kubevirt.0.to_string(),
        tasks: memory::tasks(report, &guest_ram, kubevirt, in_pod),
        lines: report.lines,
        unparsed: report.unparsed.clone(),
        limit,
        guest_ram,
        memory,
    };
    explanation.verdict = verdict::verdict(&explanation);
    explanation
}

fn invoker(invoker: &super::Invoker) -> Invoker {
    Invoker {
        comm: invoker.comm.clone(),
        tid: invoker.tid,
        role: role::of_thread(&invoker.comm),
        cpu: invoker.cpu,
        gfp_flags: invoker.gfp_flags.clone(),
        order: invoker.order,
    }
}

fn limit_hit(report: &Report) -> Option<LimitHit> {
    let memory = report.memory?;
    // The counter that is nearer to its limit is the one that a charge ran into.
    let left = |counter: Counter| counter.limit.map(|limit| limit.saturating_sub(counter.usage));
    let nearer = |both: &Counter| left(*both).is_some_and(|both| left(memory).is_none_or(|alone| both < alone));
    let both = report.memory_swap.filter(nearer);
    let of = if both.is_some() {
        Limited::MemoryAndSwap
    } else {
        Limited::Memory
    };
    let Counter { usage, limit, failcnt } = both.unwrap_or(memory);
    let selected = report
        .selection
        .as_ref()
        .and_then(|selection| selection.oom_memcg.as_deref());
    Some(LimitHit {
        level: selected.or(report.stats_path.as_deref()).map(Level::of),
        of,
        usage,
        limit,
        failcnt,
    })
}

/// memory.oom.group has the victim killed a second time along with the others.
fn killed(report: &Report) -> Vec<u32> {
    let mut pids = Vec::new();
    for kill in &report.kills {
        if !pids.contains(&kill.pid) {
            pids.push(kill.pid);
        }
    }
    pids
}

impl LimitHit {
    /// Whether all that it limits belongs to one pod.
    fn is_of_one_pod(&self) -> bool {
        let kind = self.level.as_ref().map(|level| level.kind);
        matches!(kind, Some(LevelKind::Container | LevelKind::Pod))
    }

    /// Whose limit it is, for people.
    #[must_use]
    pub fn whose(&self) -> &'static str {
        self.level
            .as_ref()
            .map_or("the cgroup", |level| LevelKind::describe(level.kind))
    }
}

#[cfg(test)]
mod tests;
