//! What happened, in a sentence or two.

use super::{Explanation, Limited, TaskUse, Victim};
use crate::units::{Bytes, SignedBytes};

pub(super) fn verdict(explanation: &Explanation) -> Vec<String> {
    let mut sentences = vec![what_happened(explanation)];
    sentences.extend(what_stands_out(explanation));
    sentences
}

fn what_happened(explanation: &Explanation) -> String {
    let what = match (&explanation.limit, explanation.constraint.as_deref()) {
        (Some(hit), _) => match hit.limit {
            Some(limit) if hit.of == Limited::MemoryAndSwap => format!(
                "{} reached its limit of {} on memory and swap together",
                capital(hit.whose()),
                Bytes(limit)
            ),
            Some(limit) => format!("{} reached its memory limit of {}", capital(hit.whose()), Bytes(limit)),
            None => format!("{} ran out of memory without a limit of its own", capital(hit.whose())),
        },
        (None, Some("CONSTRAINT_CPUSET")) => "The NUMA nodes that the cpuset allows ran out of memory".to_owned(),
        (None, Some("CONSTRAINT_MEMORY_POLICY")) => {
            "The NUMA nodes that the memory policy allows ran out of memory".to_owned()
        }
        (None, Some("CONSTRAINT_MEMCG")) => "A memory cgroup reached its limit".to_owned(),
        (None, Some(_)) => "The node ran out of memory".to_owned(),
        (None, None) => "Something ran out of memory".to_owned(),
    };
    let when = explanation
        .invoker
        .as_ref()
        .map_or_else(String::new, |invoker| format!(" when {} asked for more", invoker.role));
    let then = match &explanation.victim {
        None => "; the log does not say who was killed".to_owned(),
        Some(victim) if explanation.group => format!(
            ", and the kernel killed {} (pid {}) and everything else in its cgroup, as memory.oom.group asks",
            victim.comm, victim.pid
        ),
        Some(victim) => format!(
            ", and the kernel killed {} (pid {}){}",
            victim.comm,
            victim.pid,
            aside(victim)
        ),
    };
    format!("{what}{when}{then}.")
}

fn aside(victim: &Victim) -> &'static str {
    match victim.is_largest {
        Some(true) => ", the largest process, which need not be the one that grew",
        Some(false) => ", which is not the largest process",
        None => "",
    }
}

/// What one snapshot can show: kernel memory or a process beyond what was planned for, the larger first.
fn what_stands_out(explanation: &Explanation) -> Option<String> {
    let kernel = explanation.memory.kernel.unwrap_or(0);
    let breaks_budget = explanation
        .overhead
        .as_ref()
        .is_some_and(|overhead| i64::try_from(kernel).is_ok_and(|kernel| kernel > overhead.budget));
    let over = explanation.tasks.iter().max_by_key(|task| task.over());
    if let Some((task, over)) = over.and_then(|task| Some((task, task.over()?)))
        && over > kernel
        && !breaks_budget
    {
        return Some(helper(task, over));
    }
    let (Some(overhead), Some(size)) = (&explanation.overhead, explanation.guest_ram.size) else {
        return explanation.memory.kernel.map(|kernel| {
            format!(
                "Processes held {}, kernel memory was {}; how much of it was overhead is unknown, because guest RAM is.",
                Bytes(explanation.memory.processes),
                Bytes(kernel)
            )
        });
    };
    let Ok(budget) = u64::try_from(overhead.budget) else {
        return Some(format!(
            "Guest RAM alone, {}, is {} more than the limit.",
            Bytes(size),
            SignedBytes(overhead.budget.saturating_neg())
        ));
    };
    let kernel = explanation.memory.kernel?;
    let share = if kernel > budget {
        "alone is more than the"
    } else {
        "is part of the"
    };
    Some(format!(
        "Kernel memory of {} {share} {} that the limit leaves beyond {} of guest RAM ({}).",
        Bytes(kernel),
        Bytes(budget),
        Bytes(size),
        explanation.guest_ram.sure.describe()
    ))
}

fn helper(task: &TaskUse, over: u64) -> String {
    if task.budget == Some(0) {
        return format!(
            "{} held {}, and KubeVirt budgets nothing for it.",
            task.comm,
            Bytes(task.rss)
        );
    }
    format!(
        "{} held {}, {} more than KubeVirt budgets for it.",
        task.comm,
        Bytes(task.rss),
        Bytes(over)
    )
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
