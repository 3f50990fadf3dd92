//! Findings as sentences, for every form of the report that is read by people. Names in them are escaped.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::merged::Vm;
use super::verdict::duration;
use super::{LiveReport, MarkReport, OomReport, PodReport, Report};
use crate::escape;
use crate::units::{Bytes, SignedBytes};

/// Marks shown; of more, the first and the last.
const MARKS: usize = 20;

/// Processes shown that had memory before.
const BEFORE: usize = 8;

/// What was marked, and when.
pub(super) fn marks(pod: &PodReport) -> Vec<String> {
    let line = |mark: &MarkReport| format!("Mark at {}: {}", mark.at, escape::terminal(&mark.text));
    if pod.marks.len() <= MARKS {
        return pod.marks.iter().map(line).collect();
    }
    let (first, rest) = pod.marks.split_at(MARKS / 2);
    let (left_out, last) = rest.split_at(rest.len() - MARKS / 2);
    let between = format!("… {} more marks", left_out.len());
    let lines = first.iter().map(line).chain([between]).chain(last.iter().map(line));
    lines.collect()
}

/// What a pod is called.
pub(super) fn name(pod: &PodReport) -> String {
    let name = match (pod.namespace.as_str(), pod.vm.as_str()) {
        ("", "") => pod.cgroup.clone(),
        ("", vm) => vm.to_owned(),
        (namespace, vm) => format!("{namespace}/{vm}"),
    };
    escape::terminal(&name).into_owned()
}

/// `2026-01-31 22:41:07 UTC`.
pub(super) fn moment(rfc3339: &str) -> String {
    match rfc3339.parse::<Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => escape::terminal(rfc3339).into_owned(),
    }
}

/// `22:41:07` where it is the same day (UTC) as `day`, else as [`moment`].
pub(super) fn moment_of(day: &str, rfc3339: &str) -> String {
    let (Ok(day), Ok(time)) = (day.parse::<Timestamp>(), rfc3339.parse::<Timestamp>()) else {
        return moment(rfc3339);
    };
    let date = |time: Timestamp| time.strftime("%F").to_string();
    if date(day) == date(time) {
        time.strftime("%H:%M:%S").to_string()
    } else {
        moment(rfc3339)
    }
}

/// Whose allocation failed, by role where it is known.
pub(super) fn invoker(oom: &OomReport) -> String {
    let invoker = &oom.invoker;
    let role = invoker.role.as_ref().map(ToString::to_string);
    escape::terminal(role.as_deref().unwrap_or(&invoker.comm)).into_owned()
}

/// What the recordings of a VM add up to.
pub(super) fn sum_of_stays(vm: &Vm) -> String {
    let counted = vm.stays.iter().filter(|stay| stay.counted).count();
    format!(
        "in {}: overhead grew {}, guest RAM {}, unexplained {}",
        count(counted, "recording"),
        SignedBytes(vm.overhead_growth),
        SignedBytes(vm.guest_growth),
        SignedBytes(vm.unexplained),
    )
}

/// `1 kill`, `2 kills`.
pub(super) fn count(number: usize, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}

/// Time spent reclaiming before charges, if any was.
pub(super) fn stalls(pod: &PodReport) -> Option<String> {
    let stalls = &pod.stalls;
    (stalls.duration_ns.count > 0).then(|| {
        format!(
            "Reclaim before charges: {} times, {} in all, half below {}, longest {}",
            stalls.duration_ns.count,
            nanoseconds(stalls.total_ns),
            milliseconds(stalls.duration_ns.p50),
            milliseconds(stalls.duration_ns.max),
        )
    })
}

/// How well the accounts agree with the kernel's own figures.
pub(super) fn reconciliation(pod: &PodReport) -> Vec<String> {
    let mut sentences = vec![format!(
        "Unexplained: {} of growth (tolerance {}, worst at any sample {})",
        SignedBytes(pod.unexplained),
        Bytes(pod.tolerance),
        SignedBytes(pod.unexplained_worst),
    )];
    if pod.region_unknown != 0 {
        sentences.push(format!(
            "Guest RAM or overhead, unknown which: {} (counted as overhead)",
            SignedBytes(pod.region_unknown)
        ));
    }
    if pod.placed_by_smaps != 0 {
        sentences.push(format!(
            "Guest RAM known from smaps alone: {} (split over threads by estimate)",
            SignedBytes(pod.placed_by_smaps)
        ));
    }
    if pod.reclassified != 0 {
        sentences.push(format!(
            "Guest RAM touched before its place was known: {} (taken from QEMU's overhead by estimate)",
            SignedBytes(pod.reclassified)
        ));
    }
    sentences.extend(pod.live.iter().flat_map(live));
    sentences
}

/// What is held at the window's end of what is not in the table.
fn live(live: &LiveReport) -> Vec<String> {
    let beyond = if live.no_room > 0 {
        "charged before attaching, or not followed"
    } else {
        "charged before attaching"
    };
    let mut sentences = vec![format!(
        "Held: {} charged while recording, {} {beyond}",
        Bytes(live.bytes),
        SignedBytes(live.before_attach),
    )];
    if live.no_room > 0 {
        sentences.push(format!(
            "Not followed: {} of pages, for which there was no room; whether they are held is not known",
            Bytes(live.no_room),
        ));
    }
    if !live.not_followed.is_empty() {
        let kinds: Vec<String> = live
            .not_followed
            .iter()
            .map(|(kind, bytes)| format!("{kind} {}", Bytes(*bytes)))
            .collect();
        sentences.push(format!("Not followed, whoever holds it: {}", kinds.join(", ")));
    }
    let before: Vec<String> = live
        .processes_before
        .iter()
        .filter(|process| process.rss_anon > 0)
        .take(BEFORE)
        .map(|process| format!("{} {}", escape::terminal(&process.process), Bytes(process.rss_anon)))
        .collect();
    if !before.is_empty() {
        sentences.push(format!(
            "Memory that processes had before attaching: {}",
            before.join(", ")
        ));
    }
    sentences
}

/// What was late or lost; nothing where nothing was.
pub(super) fn losses(report: &Report) -> Vec<String> {
    let mut sentences = Vec::new();
    let loss = &report.loss.counted;
    if loss.ring_full > 0 {
        sentences.push(format!(
            "Delay: the ring buffer was full {} times, bytes waited up to {} ms; none were lost for it",
            loss.ring_full,
            loss.max_delay_ns / 1_000_000,
        ));
    }
    if loss.accounts_full > 0 || loss.lost_bytes > 0 || loss.events_dropped > 0 || loss.files_full > 0 {
        sentences.push(format!(
            "Lost: {} without an account, {} events, {} charges without a thread, {} pages of unknown files",
            Bytes(loss.lost_bytes),
            loss.events_dropped,
            loss.accounts_full,
            loss.files_full,
        ));
    }
    if loss.missed_runs > 0 {
        sentences.push(format!(
            "Missed: {} runs of programs, left out by the kernel; their bytes are in \"unexplained\"",
            loss.missed_runs,
        ));
    }
    if loss.stacks_dropped > 0 || loss.stacks_unknown > 0 {
        sentences.push(format!(
            "Stacks: {} did not fit and {} are not known; their bytes are counted, and stand with other code paths",
            loss.stacks_dropped, loss.stacks_unknown,
        ));
    }
    if let Some(count) = report.loss.disagreements.filter(|count| *count > 0) {
        sentences.push(format!(
            "Disagreement: {count} sums of records differ from the kernel's maps"
        ));
    }
    sentences
}

/// What is wrong with the recording; nothing where it is whole.
pub(super) fn state(report: &Report) -> Vec<String> {
    let recording = &report.recording;
    let mut sentences = Vec::new();
    match recording.state {
        "incomplete" => sentences.push(
            "Incomplete: the recording has no end (its recorder was killed or still runs); up to a last second is \
             missing"
                .to_owned(),
        ),
        "damaged" => sentences.push(format!(
            "Damaged: {} stretches, {} could not be read; sums lack what was in them",
            recording.damaged_stretches,
            Bytes(recording.damaged_bytes),
        )),
        _ => {}
    }
    if recording.skipped_lines > 0 {
        sentences.push(format!(
            "Skipped: {} lines that this version does not know",
            recording.skipped_lines
        ));
    }
    sentences
}

#[expect(clippy::cast_precision_loss, reason = "displayed to a digit")]
pub(super) fn milliseconds(ns: u64) -> String {
    format!("{:.1} ms", ns as f64 / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "displayed to a digit")]
pub(super) fn nanoseconds(ns: u64) -> String {
    duration(ns as f64 / 1e9)
}

/// Kinds by size, the largest three.
pub(super) fn kinds(kinds: &BTreeMap<&'static str, i64>) -> String {
    let mut sorted: Vec<_> = kinds.iter().collect();
    sorted.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.unsigned_abs()));
    let shown: Vec<String> = sorted
        .into_iter()
        .take(3)
        .map(|(kind, bytes)| format!("{kind} {}", SignedBytes(*bytes)))
        .collect();
    shown.join(", ")
}
