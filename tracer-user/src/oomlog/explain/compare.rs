//! The kernel's report against what was recorded of the same kill.

use serde::Serialize;

use crate::oomlog::{Report, Stamp};
use crate::recording::event::{Event, Header, Oom};

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

/// Compares the kills of a log with those of a recording. Kills belong together by the victim's process id.
#[must_use]
pub fn compare(reports: &[Report], header: &Header, kills: &[(u64, Oom)]) -> Comparison {
    let mut result = Comparison::default();
    let mut used = vec![false; kills.len()];
    for report in reports {
        let Some((pid, comm)) = report.victim() else { continue };
        let found = kills
            .iter()
            .enumerate()
            .find(|(index, (_, kill))| !used[*index] && kill.victim.pid == pid);
        match found {
            Some((index, (t, kill))) => {
                used[index] = true;
                result.matched += 1;
                facts(report, header, *t, kill, &mut result);
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

/// The kills among events.
#[must_use]
pub fn kill_of(event: Event) -> Option<(u64, Oom)> {
    match event.body {
        crate::recording::event::Body::Oom(kill) => Some((event.t, kill)),
        _ => None,
    }
}

fn facts(report: &Report, header: &Header, t: u64, kill: &Oom, result: &mut Comparison) {
    let pid = kill.victim.pid;
    let mut check = |what: &str, log: Option<String>, recorded: Option<String>, same: bool| {
        let (Some(log), Some(recorded)) = (log, recorded) else {
            return;
        };
        result.compared += 1;
        if !same {
            result.disagreements.push(format!(
                "pid {pid}: {what} is {log} in the log and {recorded} in the recording"
            ));
        }
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
