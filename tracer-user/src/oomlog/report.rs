//! What one kernel OOM report says, before any interpretation.

use std::collections::BTreeMap;

use serde::Serialize;

/// When a line was printed, as far as its prefix tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// As the log shows it.
    pub printed: String,
    /// Microseconds since boot.
    pub boot_us: Option<u64>,
    /// Microseconds since the Unix epoch. Absent where the log gives no year or no time zone.
    pub unix_us: Option<i64>,
}

/// One kernel OOM report. Every part may be missing: people paste excerpts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Time of its first line.
    pub stamp: Option<Stamp>,
    /// Host that the log names.
    pub host: Option<String>,
    /// Whose allocation failed.
    pub invoker: Option<Invoker>,
    /// The invoker's call trace, innermost first, with the register lines around it.
    pub trace: Vec<String>,
    /// `memory:` of the memcg that hit its limit.
    pub memory: Option<Counter>,
    /// `memory+swap:` (cgroup v1).
    pub memory_swap: Option<Counter>,
    /// `kmem:` (cgroup v1).
    pub kmem: Option<Counter>,
    /// `swap:` (cgroup v2).
    pub swap: Option<Counter>,
    /// The memcg that the statistics are for.
    pub stats_path: Option<String>,
    /// memory.stat of that memcg: bytes or event counts, under the kernel's names.
    pub stats: BTreeMap<String, u64>,
    /// The kernel's figures for the whole machine (`Mem-Info:`), where no memcg was at its limit.
    pub mem_info: Vec<String>,
    /// The task table.
    pub tasks: Vec<Task>,
    /// The `oom-kill:` line: which memcg, which victim.
    pub selection: Option<Selection>,
    /// Processes killed, in order; several with memory.oom.group.
    pub kills: Vec<Kill>,
    /// The memcg whose memory.oom.group had everything in it killed.
    pub group: Option<String>,
    /// What the OOM reaper took back.
    pub reaped: Vec<Reaped>,
    /// Other things that the kernel said about this kill.
    pub notes: Vec<String>,
    /// Lines inside the report that say nothing known (the first of them; [`LineCount::unparsed`] counts all).
    pub unparsed: Vec<String>,
    /// How its lines were taken.
    pub lines: LineCount,
}

/// How the lines of a report were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LineCount {
    /// Lines of the report.
    pub total: u64,
    /// Understood.
    pub parsed: u64,
    /// Not understood.
    pub unparsed: u64,
    /// `...`, where somebody left lines out.
    pub elided: u64,
    /// Understood, but not kept, because there were too many.
    pub dropped: u64,
}

/// The thread whose allocation failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Invoker {
    /// Its name.
    pub comm: String,
    /// Thread id in the initial namespace (the kernel prints it as PID).
    pub tid: Option<u32>,
    /// User id (6.11 and later).
    pub uid: Option<u32>,
    /// CPU it ran on.
    pub cpu: Option<u32>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// `gfp_mask`, as printed.
    pub gfp_mask: Option<String>,
    /// Its flags, as printed.
    pub gfp_flags: Option<String>,
    /// Order of the allocation; -1 for one asked for by sysrq.
    pub order: Option<i64>,
    /// `oom_score_adj` of the thread's process.
    pub oom_score_adj: Option<i64>,
}

/// A page counter of a memcg, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// Usage.
    pub usage: u64,
    /// Limit; absent when there is none.
    pub limit: Option<u64>,
    /// Times that a charge ran into the limit.
    pub failcnt: u64,
}

/// A row of the task table. Sizes are pages, as the kernel prints them, except page tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Task {
    /// Process id.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Name of its main thread.
    pub comm: String,
    /// Virtual size, pages.
    pub total_vm: u64,
    /// Resident, pages.
    pub rss: u64,
    /// Anonymous part, pages (6.8 and later).
    pub rss_anon: Option<u64>,
    /// File part, pages (6.8 and later).
    pub rss_file: Option<u64>,
    /// Shared memory part, pages (6.8 and later).
    pub rss_shmem: Option<u64>,
    /// Page tables, bytes.
    pub pgtables: u64,
    /// Swapped out, pages.
    pub swapents: u64,
    /// `oom_score_adj`
    pub oom_score_adj: i64,
}

/// The `oom-kill:` line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Selection {
    /// `CONSTRAINT_MEMCG`, `CONSTRAINT_CPUSET`, `CONSTRAINT_MEMORY_POLICY` or `CONSTRAINT_NONE`.
    pub constraint: String,
    /// cpuset of the invoker.
    pub cpuset: Option<String>,
    /// NUMA nodes it may allocate from.
    pub mems_allowed: Option<String>,
    /// The memcg whose limit was hit; absent when the whole machine ran out.
    pub oom_memcg: Option<String>,
    /// The victim's memcg.
    pub task_memcg: Option<String>,
    /// Name of the victim.
    pub comm: String,
    /// Its process id.
    pub pid: Option<u32>,
    /// Its user id.
    pub uid: Option<u32>,
}

/// A `Killed process` line. Sizes are bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kill {
    /// What the kernel calls the occasion (`Memory cgroup out of memory`, `Out of memory`).
    pub occasion: String,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// When.
    pub stamp: Option<Stamp>,
    /// Virtual size.
    pub total_vm: Option<u64>,
    /// Anonymous memory.
    pub anon_rss: Option<u64>,
    /// File pages.
    pub file_rss: Option<u64>,
    /// Shared memory.
    pub shmem_rss: Option<u64>,
    /// Page tables.
    pub pgtables: Option<u64>,
    /// User id.
    pub uid: Option<u32>,
    /// `oom_score_adj`
    pub oom_score_adj: Option<i64>,
}

/// What was left of a victim after the OOM reaper, bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reaped {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Anonymous memory still mapped.
    pub anon_rss: u64,
    /// File pages still mapped.
    pub file_rss: u64,
    /// Shared memory still mapped.
    pub shmem_rss: u64,
}

impl Report {
    /// The process that the kernel chose: id and name.
    #[must_use]
    pub fn victim(&self) -> Option<(u32, &str)> {
        let selected = self.selection.as_ref().and_then(|s| Some((s.pid?, s.comm.as_str())));
        selected.or_else(|| self.kills.first().map(|kill| (kill.pid, kill.comm.as_str())))
    }

    /// Row of the task table with this process id.
    #[must_use]
    pub fn task(&self, pid: u32) -> Option<&Task> {
        self.tasks.iter().find(|task| task.pid == pid)
    }

    /// Bytes of a page, from the victim's virtual size, which the kernel prints both in pages and in kB; 4096
    /// where it cannot be told.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        self.kills
            .iter()
            .find_map(|kill| {
                let pages = self.task(kill.pid)?.total_vm;
                let size = kill.total_vm?.checked_div(pages)?;
                (size.is_power_of_two() && (4096..=65536).contains(&size)).then_some(size)
            })
            .unwrap_or(4096)
    }
}
