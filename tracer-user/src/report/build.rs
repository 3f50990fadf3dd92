//! Builds a report from a ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracer_common::{Kind, Region};

use super::{
    CodePaths, CulpritReport, FileReport, GuestResident, KindReport, LossReport, MarkReport, Node, OomReport, Overhead,
    PodReport, Quantiles, Recording, Report, RoleReport, SCHEMA, Stalls, Task, ThreadReport, Timeline, Usage, Window,
};
use super::{foreseen, live};
use crate::advice::observe;
use crate::ledger::{Culprit, Held, Ledger, PodLedger, Resolved, Sizes, ThreadGrowth, culprit};
use crate::recording::event::{Mark, Oom, OomTask};
use crate::recording::{State, Summary};
use crate::role::Role;
use crate::sizing;
use crate::sizing::spec::{Budgeted, Known};
use crate::units::clamp;

impl Report {
    /// The findings of a ledger; `summary` is what reading the recording found, absent when live.
    #[must_use]
    pub fn new(ledger: &Ledger, summary: Option<&Summary>) -> Self {
        let header = ledger.header();
        let (start, end) = ledger.window();
        Self {
            schema: SCHEMA,
            node: Node {
                host: header.host.clone(),
                kernel: header.kernel.clone(),
                cgroup: header.cgroup.clone(),
                cpus: header.cpus,
                page_size: header.page_size,
                headroom: header.version.clone(),
            },
            window: window(ledger, (start, end)),
            backends: header.backends.clone(),
            recording: recording(ledger, summary),
            pods: ledger.pods().map(|pod| pod_report(ledger, pod)).collect(),
            loss: LossReport {
                counted: ledger.loss(),
                // Frames that could not be read are missing from the sums, so nothing follows from a difference.
                disagreements: ledger
                    .footer()
                    .filter(|_| summary.is_none_or(|summary| summary.state == State::Complete))
                    .map(|_| ledger.disagreements().len() as u64),
            },
        }
    }
}

fn recording(ledger: &Ledger, summary: Option<&Summary>) -> Recording {
    let state = match summary.map(|summary| summary.state) {
        None => "live",
        Some(State::Complete) => "complete",
        Some(State::Incomplete) => "incomplete",
        Some(State::Damaged) => "damaged",
    };
    let damage = summary.map(|summary| summary.damage).unwrap_or_default();
    let skipped = summary.map(|summary| summary.skipped).unwrap_or_default();
    Recording {
        state,
        ended: ledger.footer().map(|footer| footer.ended.clone()),
        damaged_stretches: damage.stretches,
        damaged_bytes: damage.bytes,
        cut_off_bytes: damage.cut_off,
        skipped_lines: skipped.unknown_types + skipped.unreadable + skipped.too_long + skipped.behind_end,
    }
}

/// UTC of an event's time.
#[must_use]
pub fn utc(ledger: &Ledger, t: u64) -> String {
    let nanoseconds = i128::from(ledger.header().boot_unix_ns) + i128::from(t);
    // Only a made-up recording lies behind the year 9999.
    Timestamp::from_nanosecond(nanoseconds)
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

fn window(ledger: &Ledger, (start, end): (u64, u64)) -> Window {
    Window {
        start: utc(ledger, start),
        end: utc(ledger, end),
    }
}

fn pod_report(ledger: &Ledger, pod: &PodLedger) -> PodReport {
    let resolved = ledger.resolve(pod);
    let tolerance = ledger.tolerance();
    let checked = pod.reconcile(tolerance);
    let described = &pod.pod;
    let (start, end) = pod.usage();
    let sampled_limit = pod.last.as_ref().and_then(|(_, sample)| sample.limit);
    let limit = sampled_limit.or(described.limit);
    PodReport {
        namespace: described.namespace.clone(),
        vm: described.vm.clone(),
        pod_uid: described.pod_uid.clone(),
        cgroup: described.cgroup.clone(),
        limit,
        guest_ram: described.guest_ram,
        window: pod.window().map(|bounds| window(ledger, bounds)),
        usage: Usage {
            start,
            end,
            peak: pod.usage_peak,
        },
        guest_resident: GuestResident {
            start: pod.guest_first,
            end: pod.guest_last,
        },
        guest_growth: clamp(resolved.guest_growth),
        overhead: overhead(pod, &resolved),
        budget: limit.map(|limit| clamp(i128::from(limit) - i128::from(described.guest_ram))),
        budgeted: budgeted(ledger, pod, limit),
        headroom_min: pod.headroom_min,
        unexplained: clamp(checked.unexplained),
        tolerance,
        unexplained_worst: clamp(checked.worst.unexplained),
        region_unknown: clamp(resolved.region_unknown),
        placed_by_smaps: clamp(resolved.placed_by_smaps),
        reclassified: clamp(resolved.reclassified),
        live: live::report(ledger, pod),
        kinds: checked
            .kinds
            .iter()
            .map(|check| KindReport {
                kind: check.kind,
                stat_growth: clamp(check.stat_growth),
                accounted: clamp(check.accounted),
            })
            .collect(),
        by_role: by_role(ledger, pod, &resolved),
        by_code_path: CodePaths::new(ledger, described.pod),
        by_thread: threads(ledger, pod, &resolved),
        culprit: culprit_report(ledger, pod, &resolved),
        forecasts: foreseen::forecasts(ledger, pod),
        alerts: foreseen::alerts(ledger, pod),
        marks: marks(ledger, described.pod),
        oom: pod
            .ooms
            .iter()
            .map(|(t, oom)| oom_report(ledger, pod, *t, oom))
            .collect(),
        files: files(ledger, described.pod),
        stalls: Stalls {
            total_ns: pod
                .accounts()
                .map(|(_, account)| account)
                .chain(pod.ended().map(|(_, account)| account))
                .fold(0, |sum: u64, account| sum.saturating_add(account.reclaim_ns)),
            duration_ns: quantiles(&pod.stalls),
        },
        charge_sizes: quantiles(&pod.bursts),
        timeline: Timeline::new(ledger, pod, resolved.guest_growth),
    }
}

/// KubeVirt budgets for pods alone, and says nothing of what a window without a sample took.
fn budgeted(ledger: &Ledger, pod: &PodLedger, limit: Option<u64>) -> Option<Budgeted> {
    let described = &pod.pod;
    if described.namespace.is_empty() || pod.peaks.firm.is_none() {
        return None;
    }
    let taken = observe(ledger, pod, State::Complete).taken();
    sizing::spec::budgeted(&Known::default(), described.guest_ram, limit, described.shape, &taken)
}

/// Marks that concern a pod.
fn marks(ledger: &Ledger, pod: u32) -> Vec<MarkReport> {
    let concern = |mark: &Mark| mark.pod.is_none_or(|number| number == pod);
    let marks = ledger.marks().iter().filter(|(_, mark)| concern(mark));
    marks
        .map(|(t, mark)| MarkReport {
            at: utc(ledger, *t),
            text: mark.text.clone(),
        })
        .collect()
}

fn overhead(pod: &PodLedger, resolved: &Resolved<'_>) -> Overhead {
    let guest_at_start = pod.first.as_ref().and_then(|(_, sample)| sample.guest_resident);
    let start = i128::from(pod.usage().0) - i128::from(guest_at_start.unwrap_or(0));
    let growth = pod.usage_growth() - resolved.guest_growth;
    Overhead {
        start: clamp(start),
        end: clamp(start + growth),
        peak: pod
            .overhead_peak
            .max(u64::try_from((start + growth).max(0)).unwrap_or(u64::MAX)),
        growth: clamp(growth),
    }
}

fn kinds(bytes: &BTreeMap<Kind, i128>) -> BTreeMap<&'static str, i64> {
    bytes
        .iter()
        .filter(|(_, bytes)| **bytes != 0)
        .map(|(kind, bytes)| (kind.as_str(), clamp(*bytes)))
        .collect()
}

/// What a role's threads add up to.
#[derive(Default)]
struct RoleSum {
    charged: i128,
    uncharged: u64,
    kinds: BTreeMap<Kind, i128>,
    threads: u64,
    live: BTreeMap<Kind, u64>,
}

fn by_role(ledger: &Ledger, pod: &PodLedger, resolved: &Resolved<'_>) -> Vec<RoleReport> {
    let mut sums: BTreeMap<Role, RoleSum> = BTreeMap::new();
    for thread in &resolved.threads {
        let sum = sums.entry(thread.entity.role.clone()).or_default();
        sum.charged += thread.account.cells.gross_charged();
        sum.uncharged = sum.uncharged.saturating_add(thread.account.cells.returned());
        for (kind, bytes) in &thread.kinds {
            *sum.kinds.entry(*kind).or_default() += bytes;
        }
        sum.threads += thread.threads();
    }
    let known = ledger.follows_pages();
    if known {
        for (role, held) in pod.held().by_role(ledger) {
            sums.entry(role).or_default().live = held;
        }
    }
    let mut roles: Vec<RoleReport> = sums
        .into_iter()
        .map(|(role, sum)| RoleReport {
            role,
            charged: clamp(sum.charged),
            uncharged: sum.uncharged,
            overhead_growth: clamp(sum.kinds.values().sum()),
            kinds: kinds(&sum.kinds),
            live: known.then(|| live::sum(&sum.live)),
            live_kinds: live::named(&sum.live),
            threads: sum.threads,
        })
        .collect();
    roles.sort_by_key(|role| std::cmp::Reverse(role.overhead_growth));
    roles
}

fn threads(ledger: &Ledger, pod: &PodLedger, resolved: &Resolved<'_>) -> Vec<ThreadReport> {
    let held = ledger.follows_pages().then(|| pod.held());
    let grown = resolved.threads.iter().map(|thread| by_thread(ledger, thread, held));
    let others = held.map(|held| live::other_holders(ledger, held, resolved));
    grown.chain(others.into_iter().flatten()).collect()
}

fn by_thread(ledger: &Ledger, thread: &ThreadGrowth<'_>, held: Option<&Held>) -> ThreadReport {
    let known = thread.key.and_then(|key| ledger.thread_of(key));
    let comm = match (known, thread.key) {
        (Some(known), _) => known.comm.clone(),
        (None, Some(_)) => thread.entity.process.clone(),
        (None, None) => format!("{} ended threads", thread.threads()),
    };
    let live_kinds = held.map(|held| live::of_thread(held, thread.key));
    let cells = &thread.account.cells;
    let guest_charged = Kind::ALL.into_iter().fold(0, |sum: u64, kind| {
        sum.saturating_add(cells.get(kind, Region::Guest).charged)
    });
    ThreadReport {
        tid: thread.key.map(|key| key.tid),
        tgid: known.map(|known| known.pid),
        comm,
        process: thread.entity.process.clone(),
        role: known.map_or_else(|| thread.entity.role.clone(), |known| known.role.clone()),
        charged: clamp(cells.gross_charged()),
        overhead_growth: clamp(thread.overhead_growth()),
        kinds: kinds(&thread.kinds),
        live: live_kinds.as_ref().map(live::total),
        live_kinds: live_kinds.unwrap_or_default(),
        guest_charged,
        reclaim_ns: thread.account.reclaim_ns,
        threads: thread.threads(),
    }
}

fn culprit_report(ledger: &Ledger, pod: &PodLedger, resolved: &Resolved<'_>) -> Option<CulpritReport> {
    let window = pod.window()?;
    let culprit = culprit(resolved, ledger.tolerance(), window)?;
    #[expect(clippy::cast_precision_loss, reason = "seconds are given to a few digits")]
    let seconds = window.1.saturating_sub(culprit.first_seen) as f64 / 1e9;
    let live = held_by(ledger, pod, &culprit);
    Some(CulpritReport {
        live,
        role: culprit.entity.role,
        process: culprit.entity.process,
        tid: culprit.thread.map(|key| key.tid),
        bytes: clamp(culprit.bytes),
        share: culprit.share,
        kind: culprit.kind.as_str(),
        first_seen: utc(ledger, culprit.first_seen),
        seconds,
        rate_bytes_per_s: culprit.rate,
    })
}

/// What a culprit holds, where its growth is of a kind that is followed.
fn held_by(ledger: &Ledger, pod: &PodLedger, culprit: &Culprit) -> Option<u64> {
    if !ledger.follows_pages() || !culprit.kind.is_followed() {
        return None;
    }
    let held = pod.held();
    let theirs = held.threads().filter(|key| ledger.entity(*key) == culprit.entity);
    Some(theirs.fold(0, |sum: u64, key| sum.saturating_add(live::sum(&held.of(key)))))
}

fn oom_report(ledger: &Ledger, pod: &PodLedger, t: u64, oom: &Oom) -> OomReport {
    let known = pod.pod.memcgs.iter().find(|memcg| memcg.id == oom.oom_memcg);
    let path = known
        .map(|memcg| memcg.path.clone())
        .or_else(|| (oom.oom_memcg == pod.pod.memcg).then(|| pod.pod.cgroup.clone()));
    OomReport {
        at: utc(ledger, t),
        invoker: task(&oom.invoker),
        victim: task(&oom.victim),
        oom_memcg: path.unwrap_or_else(|| format!("cgroup id {}", oom.oom_memcg)),
        usage: oom.usage,
        limit: oom.limit,
        lead_time_s: foreseen::lead_time(pod, t),
        kernel_report: oom.kernel_report.clone(),
    }
}

fn task(task: &OomTask) -> Task {
    Task {
        tid: task.tid,
        pid: task.pid,
        comm: task.comm.clone(),
        role: task.role.clone(),
    }
}

fn files(ledger: &Ledger, pod: u32) -> Vec<FileReport> {
    ledger
        .files(pod)
        .into_iter()
        .map(|file| FileReport {
            path: file.path.clone(),
            device: file.device.clone(),
            inode: file.inode,
            bytes: file.bytes,
        })
        .collect()
}

fn quantiles(sizes: &Sizes) -> Quantiles {
    Quantiles {
        count: sizes.0.len(),
        p50: sizes.0.value_at_quantile(0.5),
        p99: sizes.0.value_at_quantile(0.99),
        max: sizes.0.max(),
    }
}
