//! The finding about a pod in one sentence.

use super::{CulpritReport, OomReport, PodReport, Task};
use crate::escape;
use crate::role::Role;
use crate::units::{Bytes, SignedBytes};

/// Who grew, by how much of what, how fast, and what the kernel did. Safe to print to a terminal.
#[must_use]
pub fn verdict(pod: &PodReport) -> String {
    if pod.window.is_none() {
        return "nothing can be said: no sample of its memory was taken".to_owned();
    }
    let guest = SignedBytes(pod.guest_growth);
    let mut sentence = match &pod.culprit {
        Some(culprit) => format!("{}; guest RAM took {guest}", blame(culprit)),
        None if pod.unexplained > i64::try_from(pod.tolerance).unwrap_or(i64::MAX) => format!(
            "no thread to blame, but {} of growth is unexplained (tolerance {}); guest RAM took {guest}",
            SignedBytes(pod.unexplained),
            SignedBytes(i64::try_from(pod.tolerance).unwrap_or(i64::MAX)),
        ),
        None => format!(
            "nothing to blame: overhead grew {}, no more than batching ({}) and the page tables of guest RAM explain, \
             while guest RAM took {guest}",
            SignedBytes(pod.overhead.growth),
            SignedBytes(i64::try_from(pod.tolerance).unwrap_or(i64::MAX)),
        ),
    };
    if let Some(oom) = pod.oom.first() {
        sentence.push_str("; ");
        sentence.push_str(&kill(oom));
    }
    sentence
}

fn blame(culprit: &CulpritReport) -> String {
    let kind = match culprit.kind {
        "file" => "page cache (file, which the kernel can reclaim)",
        kind => kind,
    };
    format!(
        "{} grew {} of {kind} in {}, {:.0}% of overhead growth{}",
        who(culprit),
        SignedBytes(culprit.bytes),
        duration(culprit.seconds),
        culprit.share * 100.0,
        holds(culprit),
    )
}

/// Whether what it was charged is still there, or was given back, by whomever.
fn holds(culprit: &CulpritReport) -> String {
    let grown = u64::try_from(culprit.bytes).unwrap_or(0);
    match culprit.live {
        None => String::new(),
        Some(live) if live >= grown / 2 => format!(", and still holds {}", Bytes(live)),
        Some(0) => ", and holds none of it: others gave it back".to_owned(),
        Some(live) => format!(", and holds {} of it: others gave back the rest", Bytes(live)),
    }
}

fn who(culprit: &CulpritReport) -> String {
    match &culprit.role {
        Role::Helper(name) => format!("{} (helper daemon)", escape::terminal(name)),
        Role::Kernel(name) => format!("{} (kernel thread)", escape::terminal(name)),
        Role::Other(name) => format!("{} (of {})", escape::terminal(name), escape::terminal(&culprit.process)),
        Role::BlockWorker if culprit.process == "qemu" => "QEMU's block workers".to_owned(),
        role if culprit.process == "qemu" => format!("QEMU's {}", role_name(role)),
        role => format!("{} of {}", role_name(role), escape::terminal(&culprit.process)),
    }
}

/// A role as it stands in a sentence.
fn role_name(role: &Role) -> String {
    match role {
        Role::Vcpu(n) => format!("vCPU {n}"),
        Role::Helper(name) | Role::Kernel(name) | Role::Other(name) => escape::terminal(name).into_owned(),
        role => escape::terminal(&role.to_string()).into_owned(),
    }
}

fn kill(oom: &OomReport) -> String {
    let invoker = |task: &Task| match &task.role {
        Some(role) => role_name(role),
        None => escape::terminal(&task.comm).into_owned(),
    };
    format!(
        "the kernel killed {} at {}, invoked by {}",
        escape::terminal(&oom.victim.comm),
        time_of_day(&oom.at),
        invoker(&oom.invoker),
    )
}

/// `22:41:07` of `2026-01-31T22:41:07.123Z`.
pub(super) fn time_of_day(rfc3339: &str) -> &str {
    rfc3339.get(11..19).unwrap_or(rfc3339)
}

/// A duration at the precision that a reader wants.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 0.95 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}
