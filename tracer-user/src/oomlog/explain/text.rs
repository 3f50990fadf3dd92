//! An explanation to be read. Everything that comes from the log is escaped.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::{Explanation, LimitHit, Sure, TaskUse, Victim};
use crate::escape;
use crate::sizing::version::KubeVirt;
use crate::sizing::{self, MIB};
use crate::units::{Bytes, SignedBytes};

/// Writes the explanation.
///
/// # Errors
/// What `out` answers.
pub fn render(explanation: &Explanation, out: &mut impl Write) -> io::Result<()> {
    for sentence in &explanation.verdict {
        writeln!(out, "{}", escape::terminal(sentence))?;
    }
    writeln!(out)?;
    for (name, value) in facts(explanation) {
        writeln!(out, "  {name:<13} {}", escape::terminal(&value))?;
    }
    if !explanation.tasks.is_empty() {
        writeln!(out, "\n{}", table(&explanation.tasks))?;
        let release = KubeVirt::named(&explanation.kubevirt).unwrap_or(KubeVirt::NEWEST);
        let newest = if explanation.budgeted.is_none() {
            ", the newest,"
        } else {
            ""
        };
        writeln!(
            out,
            "BUDGET: what KubeVirt {}{newest} sets aside for the process; for QEMU guest RAM and {}, to which come its vCPUs and \
             devices.",
            explanation.kubevirt,
            Bytes(release.constants().qemu * MIB)
        )?;
    }
    if let Some(budgeted) = &explanation.budgeted {
        writeln!(out)?;
        write!(out, "{}", sizing::text::render(budgeted))?;
    }
    for line in &explanation.unparsed {
        writeln!(out, "not understood: {}", escape::terminal(line))?;
    }
    Ok(())
}

type Fact = (&'static str, String);

/// What is known, one thing at a time, by name. Not escaped.
#[must_use]
pub fn facts(explanation: &Explanation) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(at) = &explanation.at {
        let host = explanation
            .host
            .as_ref()
            .map_or_else(String::new, |host| format!(" on {host}"));
        facts.push(("when", format!("{}{host}", at.printed)));
    }
    if let Some(hit) = &explanation.limit {
        limit(hit, &mut facts);
    }
    invoker(explanation, &mut facts);
    if let Some(victim) = &explanation.victim {
        facts.push(("victim", why(victim)));
    }
    if explanation.killed.len() > 1 {
        facts.push(("killed", format!("{} processes", explanation.killed.len())));
    }
    guest(explanation, &mut facts);
    memory(explanation, &mut facts);
    facts.push(("log", lines(explanation)));
    facts
}

fn limit(hit: &LimitHit, facts: &mut Vec<Fact>) {
    let limit = hit.limit.map_or_else(
        || "none".to_owned(),
        |limit| format!("{} ({} kB)", Bytes(limit), limit >> 10),
    );
    facts.push((
        "limit",
        format!(
            "{limit} of {}{}, usage {} kB, failcnt {}",
            hit.whose(),
            hit.of.describe(),
            hit.usage >> 10,
            hit.failcnt
        ),
    ));
    if let Some(level) = &hit.level {
        facts.push(("cgroup", level.path.clone()));
        facts.extend(level.pod_uid.clone().map(|uid| ("pod uid", uid)));
    }
}

fn invoker(explanation: &Explanation, facts: &mut Vec<Fact>) {
    let Some(invoker) = &explanation.invoker else { return };
    let mut value = format!("{} ({}", invoker.role, invoker.comm);
    value.extend(invoker.tid.map(|tid| format!(", tid {tid}")));
    value.extend(invoker.cpu.map(|cpu| format!(", on CPU {cpu}")));
    value.push(')');
    value.extend(invoker.gfp_flags.as_ref().map(|flags| format!(", asked with {flags}")));
    value.extend(invoker.order.map(|order| format!(", order {order}")));
    facts.push(("invoker", value));
    facts.extend(explanation.kernel.clone().map(|kernel| ("kernel", kernel)));
}

fn why(victim: &Victim) -> String {
    let mut value = format!("{} (pid {}): ", victim.comm, victim.pid);
    if victim.kill_allocating_task {
        value.push_str("vm.oom_kill_allocating_task has whoever allocates killed");
        return value;
    }
    let (Some(rank), Some(footprint), Some(adj)) = (victim.rank, victim.footprint, victim.oom_score_adj) else {
        value.push_str("why is not in the log, its row or the limit is missing");
        return value;
    };
    let held = format!(
        "{} of resident memory, swap and page tables, oom_score_adj {adj}",
        Bytes(footprint)
    );
    value.push_str(&match rank {
        1 => format!("highest score by the kernel's rule, with {held}"),
        _ => format!(
            "number {rank} by the kernel's rule, with {held}; those above it may have been unkillable or exiting"
        ),
    });
    if let Some(next) = &victim.runner_up {
        value.push_str(&format!(
            "; {} {}",
            if rank == 1 { "next" } else { "highest" },
            next.comm
        ));
    }
    value.push_str(match victim.is_largest {
        Some(false) => ". It is not the largest process: its oom_score_adj decided",
        _ => ". The rule looks at size, not at growth",
    });
    value
}

fn guest(explanation: &Explanation, facts: &mut Vec<Fact>) {
    let guest = &explanation.guest_ram;
    let value = match guest.size {
        None => format!("unknown: {}; give it with --guest-memory", guest.why),
        Some(size) if guest.sure == Sure::Given => format!("{} (given)", Bytes(size)),
        Some(size) => format!(
            "{} ({}: {}); Harvester may keep 100.0 MiB of it from the guest, and the budget is that much larger then",
            Bytes(size),
            guest.sure.describe(),
            guest.why
        ),
    };
    facts.push(("guest RAM", value));
    if let Some(overhead) = &explanation.overhead {
        facts.push((
            "overhead",
            format!(
                "at least {} used, {} budgeted (limit less guest RAM)",
                Bytes(overhead.at_least),
                SignedBytes(overhead.budget)
            ),
        ));
    }
}

fn memory(explanation: &Explanation, facts: &mut Vec<Fact>) {
    let memory = &explanation.memory;
    if !explanation.tasks.is_empty() {
        facts.push((
            "processes",
            format!("{} resident in {}", Bytes(memory.processes), explanation.tasks.len()),
        ));
    }
    let usage = explanation.limit.as_ref().map(|hit| hit.usage);
    if let Some(kernel) = memory.kernel {
        let mut value = Bytes(kernel).to_string();
        value.extend(usage.map(|usage| format!(", {} of usage", percent(kernel, usage))));
        let budget = explanation
            .overhead
            .as_ref()
            .and_then(|overhead| u64::try_from(overhead.budget).ok());
        value.extend(
            budget
                .filter(|budget| *budget > 0)
                .map(|budget| format!(", {} of the overhead budget", percent(kernel, budget))),
        );
        facts.push(("kernel memory", value));
    }
    if !explanation.tasks.is_empty() {
        let largest = explanation.tasks.iter().max_by_key(|task| task.page_tables);
        let whose = largest.map_or_else(String::new, |task| {
            format!(", {} of them for {}", Bytes(task.page_tables), task.comm)
        });
        facts.push((
            "page tables",
            format!("{}{whose}; part of kernel memory", Bytes(memory.page_tables)),
        ));
    }
    if let (Some(anon), Some(cache)) = (memory.anon, memory.page_cache) {
        let shmem = memory
            .shmem
            .map_or_else(String::new, |shmem| format!(", {} of it shared memory", Bytes(shmem)));
        facts.push((
            "charged as",
            format!("{} anonymous, {} page cache{shmem}", Bytes(anon), Bytes(cache)),
        ));
    }
    if let Some(swap) = memory.swap.filter(|swap| *swap > 0) {
        facts.push(("swap", format!("{} swapped out", Bytes(swap))));
    }
    if let Some(rest) = memory.unexplained {
        let value = format!(
            "{} of usage is neither resident in a listed process nor kernel memory: page cache that nobody maps, or \
             what a process that was just killed has yet to give back",
            Bytes(rest)
        );
        facts.push(("unexplained", value));
    }
    if let Some(twice) = memory.counted_twice {
        facts.push((
            "unexplained",
            format!(
                "nothing: processes and kernel memory add up to {} more than usage, since shared pages count once \
                 for each process and mapped files may be charged to another cgroup",
                Bytes(twice)
            ),
        ));
    }
}

fn lines(explanation: &Explanation) -> String {
    let lines = explanation.lines;
    let mut value = format!("{} lines, {} not understood", lines.total, lines.unparsed);
    if lines.elided > 0 {
        value.push_str(&format!(", left out in {} places", lines.elided));
    }
    if lines.dropped > 0 {
        value.push_str(&format!(", {} too many to keep", lines.dropped));
    }
    value
}

fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    format!("{}.{}%", tenths / 10, tenths % 10)
}

fn table(tasks: &[TaskUse]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(cells(
        [
            "PROCESS",
            "PID",
            "ROLE",
            "RSS",
            "BUDGET",
            "OVER",
            "PAGE TABLES",
            "SWAP",
            "ADJ",
        ]
        .map(str::to_owned),
    ));
    for task in tasks {
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| Bytes(bytes).to_string());
        table.add_row(cells([
            escape::terminal(&task.comm).into_owned(),
            task.pid.to_string(),
            escape::terminal(&task.role_name()).into_owned(),
            Bytes(task.rss).to_string(),
            size(task.budget),
            size(task.over()),
            Bytes(task.page_tables).to_string(),
            Bytes(task.swap).to_string(),
            task.oom_score_adj.to_string(),
        ]));
    }
    table.trim_fmt()
}

/// Numbers to the right.
fn cells(texts: [String; 9]) -> Vec<Cell> {
    let aligned = |(column, text)| {
        let alignment = if matches!(column, 0 | 2) {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new_owned(text).set_alignment(alignment)
    };
    texts.into_iter().enumerate().map(aligned).collect()
}
