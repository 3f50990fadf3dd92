//! What one message of the kernel states, if it belongs to an OOM report.
//!
//! kernel: mm/oom_kill.c (dump_header, dump_tasks, dump_oom_victim, __oom_kill_process, oom_reap_task),
//! mm/memcontrol.c (mem_cgroup_print_oom_meminfo, mem_cgroup_print_oom_context), 5.3 to 7.3.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::prefix::pattern;
use super::report::{Counter, Invoker, Kill, Reaped, Selection, Task};

/// What a message states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// `X invoked oom-killer: ...`
    Invoked(Invoker),
    /// `CPU: 3 PID: 1 Comm: ...`: where the invoker ran, and the kernel's release.
    Cpu(Invoker),
    /// A line of the call trace or of the registers around it.
    Trace,
    /// `memory: usage ...`
    Memory(Counter),
    /// `memory+swap: usage ...`
    MemorySwap(Counter),
    /// `kmem: usage ...`
    Kmem(Counter),
    /// `swap: usage ...`
    Swap(Counter),
    /// `Memory cgroup stats for PATH:`, and what follows on the same line.
    StatsFor(String, Vec<(String, u64)>),
    /// One or more `name value` pairs of memory.stat.
    Stats(Vec<(String, u64)>),
    /// `Mem-Info:`: the machine's own figures follow.
    MemInfo,
    /// `Tasks state (memory values in pages):`
    TasksHeader,
    /// The column names of the task table, without pid.
    Columns(Vec<String>),
    /// A row of the task table: process id and the rest of the row.
    Row(u32, String),
    /// `oom-kill:constraint=...`
    Selection(Selection),
    /// `Killed process ...`
    Killed(Kill),
    /// `Tasks in PATH are going to be killed due to memory.oom.group set`
    Group(String),
    /// `oom_reaper: reaped process ...`
    Reaped(Reaped),
    /// Something else that only the OOM killer says.
    Note,
    /// `...`: somebody left lines out.
    Elided,
}

macro_rules! patterns {
    ($($name:ident = $text:expr;)*) => {
        $(static $name: LazyLock<Regex> = LazyLock::new(|| pattern($text));)*
    };
}

patterns! {
    INVOKED = r"(?s)^(.{0,64}) invoked oom-killer: gfp_mask=([^\s(,]+)(?:\(([^)]*)\))?(.*)$";
    CPU = r"(?s)^CPU: (\d+) (?:UID: (\d+) )?PID: (\d+) Comm: (.{0,64}?) (?:Kdump: \w+ )?(?:Not tainted|Tainted:[A-Z ]+?) +(\d\S*)";
    COUNTER = r"^(memory|memory\+swap|kmem|swap): usage (\d+)kB, limit (\d+)kB, failcnt (\d+)";
    STATS_FOR = r"(?s)^Memory cgroup stats for (.*?):(?:[ \n](.*))?$";
    KILLED = r"(?s)^(.{0,80}?)(?:: |^)Kill(?:ed)? process (\d+) \((.{0,64})\),? (?:UID:? ?\d+,? )?(total-vm:.*)$";
    GROUP = r"(?s)^Tasks in (.*) are going to be killed due to memory\.oom\.group set";
    REAPED = r"(?s)^oom_reaper: reaped process (\d+) \((.{0,64})\),? now anon-rss:(\d+)kB, file-rss:(\d+)kB, shmem-rss:(\d+)kB";
    ROW = r"(?s)^\[ *(\d+) *\] +(\d.*)$";
    COLUMNS = r"^\[ *pid *\] +(uid .*)$";
    TRACE = r"(?x)^(?: (?:\?\ )?[\w.$]+\+0x[0-9a-f]+/0x[0-9a-f]+ | </?[A-Z]+>$ | (?i:call\ trace): | RIP: | Code:
        | RSP: | R[A-Z0-9]{2}: | FS: | CS: | CR2: | ORIG_RAX | Hardware\ name: | Workqueue: | Tainted:
        | pstate: | (?:pc|lr|sp)\ : | x\d{1,2}\ ?: | COMPACTION\ is\ disabled )";
    NOTE = r"(?x)^(?: .*Out\ of\ memory\ and\ no\ killable\ processes | .*out\ of\ memory\ and\ no\ killable\ processes
        | oom_reaper: | OOM\ victim\ \d+ | Out\ of\ memory\ \(oom_kill_allocating_task\)
        | Memory\ cgroup\ min\ protection\ \d+kB | .*\ cpuset=\S*\ mems_allowed=\S* | memory\ used:
        | Out\ of\ memory:\ Kill\ process | Memory\ cgroup\ out\ of\ memory:\ Kill\ process )";
}

/// What a message states; `None` when it is nothing that an OOM report holds.
#[must_use]
pub fn read(text: &str) -> Option<Fact> {
    let text = text.trim_start().trim_end_matches(['\r', '\n', ' ']);
    if text == "..." || text == "\u{2026}" || text == "[...]" || text == "<...>" {
        return Some(Fact::Elided);
    }
    if let Some(found) = INVOKED.captures(text) {
        return Some(Fact::Invoked(invoked(&found)));
    }
    selection(text)
        .or_else(|| killed(text))
        .or_else(|| counter(text))
        .or_else(|| task_table(text))
        .or_else(|| statistics(text))
        .or_else(|| other(text))
}

fn invoked(found: &Captures<'_>) -> Invoker {
    let field = |name: &str| after(&found[4], name).and_then(leading_number);
    Invoker {
        comm: found[1].to_owned(),
        gfp_mask: Some(found[2].to_owned()),
        gfp_flags: found.get(3).map(|flags| flags.as_str().to_owned()),
        order: field("order="),
        oom_score_adj: field("oom_score_adj="),
        ..Invoker::default()
    }
}

fn other(text: &str) -> Option<Fact> {
    if let Some(found) = CPU.captures(text) {
        return Some(Fact::Cpu(Invoker {
            comm: found[4].to_owned(),
            tid: found[3].parse().ok(),
            uid: found.get(2).and_then(|uid| uid.as_str().parse().ok()),
            cpu: found[1].parse().ok(),
            kernel: Some(found[5].to_owned()),
            ..Invoker::default()
        }));
    }
    if let Some(found) = GROUP.captures(text) {
        return Some(Fact::Group(found[1].to_owned()));
    }
    if let Some(found) = REAPED.captures(text) {
        return Some(Fact::Reaped(Reaped {
            pid: found[1].parse().ok()?,
            comm: found[2].to_owned(),
            anon_rss: kilobytes(&found[3])?,
            file_rss: kilobytes(&found[4])?,
            shmem_rss: kilobytes(&found[5])?,
        }));
    }
    match text {
        "Mem-Info:" => Some(Fact::MemInfo),
        _ if TRACE.is_match(text) => Some(Fact::Trace),
        _ if NOTE.is_match(text) => Some(Fact::Note),
        _ => None,
    }
}

/// A limit from here on is none at all: the counter's maximum is LONG_MAX / PAGE_SIZE pages, rounded down to a
/// multiple of at most 64 KiB.
const UNLIMITED: u64 = (i64::MAX as u64) - (1 << 20);

fn counter(text: &str) -> Option<Fact> {
    let found = COUNTER.captures(text)?;
    let limit = kilobytes(&found[3])?;
    let counter = Counter {
        usage: kilobytes(&found[2])?,
        limit: (limit < UNLIMITED).then_some(limit),
        failcnt: found[4].parse().ok()?,
    };
    Some(match &found[1] {
        "memory" => Fact::Memory(counter),
        "memory+swap" => Fact::MemorySwap(counter),
        "kmem" => Fact::Kmem(counter),
        _ => Fact::Swap(counter),
    })
}

fn statistics(text: &str) -> Option<Fact> {
    if let Some(found) = STATS_FOR.captures(text) {
        let path = found[1].to_owned();
        let rest = found.get(2).map_or("", |rest| rest.as_str()).trim();
        return match pairs(rest) {
            Some(pairs) => Some(Fact::StatsFor(path, pairs)),
            None if rest.is_empty() => Some(Fact::StatsFor(path, Vec::new())),
            None => None,
        };
    }
    pairs(text).map(Fact::Stats)
}

/// `name value` lines; all of them, or none. Kernels before 5.2 wrote `name:valueKB` in one line. Where a record of
/// /dev/kmsg was kept as it is, line breaks within it are escaped.
fn pairs(text: &str) -> Option<Vec<(String, u64)>> {
    let text = text.replace("\\x0a", "\n");
    let text = text.as_str();
    let name_ok = |name: &str| {
        (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let pair = |line: &str| {
        let (name, value) = line.trim().split_once(' ')?;
        let value = value.trim();
        (name_ok(name) && value.bytes().all(|b| b.is_ascii_digit())).then_some((name.to_owned(), value.parse().ok()?))
    };
    let old_pair = |word: &str| {
        let (name, value) = word.split_once(':')?;
        name_ok(name).then_some((name.to_owned(), kilobytes(value.strip_suffix("KB")?)?))
    };
    if text.is_empty() {
        return None;
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(pair)
        .collect::<Option<Vec<_>>>()
        .or_else(|| text.split_whitespace().map(old_pair).collect())
}

fn task_table(text: &str) -> Option<Fact> {
    if text.starts_with("Tasks state (memory values in pages)") {
        return Some(Fact::TasksHeader);
    }
    if let Some(found) = COLUMNS.captures(text) {
        return Some(Fact::Columns(
            found[1].split_whitespace().take(32).map(str::to_owned).collect(),
        ));
    }
    let found = ROW.captures(text)?;
    Some(Fact::Row(found[1].parse().ok()?, found[2].to_owned()))
}

/// Column names of kernels before 6.8.
const COLUMNS_OLD: [&str; 8] = [
    "uid",
    "tgid",
    "total_vm",
    "rss",
    "pgtables_bytes",
    "swapents",
    "oom_score_adj",
    "name",
];
/// Column names since 6.8.
const COLUMNS_SPLIT: [&str; 11] = [
    "uid",
    "tgid",
    "total_vm",
    "rss",
    "rss_anon",
    "rss_file",
    "rss_shmem",
    "pgtables_bytes",
    "swapents",
    "oom_score_adj",
    "name",
];

/// Reads a row of the task table by its column names, or, where the log has none, by what the numbers say.
#[must_use]
pub fn row(pid: u32, row: &str, columns: Option<&[String]>) -> Option<Task> {
    if let Some(columns) = columns {
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        return row_by(pid, row, &columns);
    }
    row_by(pid, row, &COLUMNS_SPLIT)
        .filter(|task| {
            [task.rss_anon, task.rss_file, task.rss_shmem]
                .into_iter()
                .flatten()
                .sum::<u64>()
                == task.rss
        })
        .or_else(|| row_by(pid, row, &COLUMNS_OLD))
}

fn row_by(pid: u32, row: &str, columns: &[&str]) -> Option<Task> {
    let mut task = Task { pid, ..Task::default() };
    let mut rest = row;
    for column in columns.iter().take_while(|column| **column != "name") {
        let (value, tail) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
        rest = tail;
        // Totals of what a hostile log may say must not overflow.
        let pages = || {
            value
                .parse::<u32>()
                .map(u64::from)
                .or_else(|_| value.parse::<u64>().map(|n| n.min(1 << 48)))
        };
        match *column {
            "uid" => task.uid = value.parse().ok()?,
            "total_vm" => task.total_vm = pages().ok()?,
            "rss" => task.rss = pages().ok()?,
            "rss_anon" => task.rss_anon = Some(pages().ok()?),
            "rss_file" => task.rss_file = Some(pages().ok()?),
            "rss_shmem" => task.rss_shmem = Some(pages().ok()?),
            "pgtables_bytes" => task.pgtables = pages().ok()?,
            "swapents" => task.swapents = pages().ok()?,
            "oom_score_adj" => task.oom_score_adj = i64::from(value.parse::<i16>().ok()?),
            _ => {
                value.parse::<i64>().ok()?;
            }
        }
    }
    rest.clone_into(&mut task.comm);
    Some(task)
}

/// cgroup paths and the name come from pods: the fields are found from both ends, so that a comma in a name does
/// not move them.
fn selection(text: &str) -> Option<Fact> {
    let rest = text.strip_prefix("oom-kill:constraint=")?;
    let (constraint, rest) = rest.split_once(',')?;
    let (head, uid) = rest.rsplit_once(",uid=").unwrap_or((rest, ""));
    let (head, pid) = head.rsplit_once(",pid=").unwrap_or((head, ""));
    // A name has at most 15 bytes: the first ",task=" that leaves no more.
    let name = head.match_indices(",task=").map(|(at, found)| (at, at + found.len()));
    let (end, start) = name.into_iter().find(|(_, start)| head.len() - start <= 15)?;
    let (places, comm) = (&head[..end], &head[start..]);
    let (before, memcg) = places
        .split_once(",oom_memcg=")
        .map_or((places, None), |(a, b)| (a, Some(b)));
    let (oom_memcg, task_memcg) = match memcg {
        Some(memcg) => match memcg.split_once(",task_memcg=") {
            Some((oom, task)) => (Some(oom), Some(task)),
            None => (Some(memcg), None),
        },
        None => (None, before.split_once(",task_memcg=").map(|(_, task)| task)),
    };
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let (_, placement) = before.split_once("cpuset=").unwrap_or(("", ""));
    let (cpuset, mems) = placement.split_once(",mems_allowed=").unwrap_or((placement, ""));
    let mems = mems.split(",global_oom").next().filter(|mems| !mems.is_empty());
    Some(Fact::Selection(Selection {
        constraint: constraint.to_owned(),
        cpuset: owned(Some(cpuset).filter(|cpuset| !cpuset.is_empty())),
        mems_allowed: owned(mems),
        oom_memcg: owned(oom_memcg),
        task_memcg: owned(task_memcg),
        comm: comm.to_owned(),
        pid: pid.parse().ok(),
        uid: uid.parse().ok(),
    }))
}

fn killed(text: &str) -> Option<Fact> {
    let found = KILLED.captures(text)?;
    let sizes = &found[4];
    let size = |name: &str| after(sizes, name).and_then(|rest| kilobytes(rest.split_once("kB")?.0));
    Some(Fact::Killed(Kill {
        occasion: found[1].to_owned(),
        pid: found[2].parse().ok()?,
        comm: found[3].to_owned(),
        stamp: None,
        total_vm: size("total-vm:"),
        anon_rss: size("anon-rss:"),
        file_rss: size("file-rss:"),
        shmem_rss: size("shmem-rss:"),
        pgtables: size("pgtables:"),
        uid: after(sizes, "UID:")
            .and_then(leading_number)
            .and_then(|uid| u32::try_from(uid).ok()),
        oom_score_adj: after(sizes, "oom_score_adj:").and_then(leading_number),
    }))
}

fn after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_once(name).map(|(_, rest)| rest)
}

fn leading_number(text: &str) -> Option<i64> {
    let end = text
        .char_indices()
        .find(|(at, c)| !(c.is_ascii_digit() || (*at == 0 && *c == '-')))
        .map_or(text.len(), |(at, _)| at);
    text[..end].parse().ok()
}

/// The kernel's kB are 1024 bytes.
fn kilobytes(text: &str) -> Option<u64> {
    text.parse::<u64>().ok()?.checked_mul(1024)
}
