//! A recording: where it was made, by which probes, what is missing.

use super::anchor;
use super::cell::{name, stretch};
use super::pod::PodView;
use crate::report::{Report, words};
use crate::units::Bytes;

/// What the template shows of a recording.
pub(super) struct RecordingView {
    pub host: String,
    pub kernel: String,
    pub cgroup: String,
    pub cpus: u32,
    pub window: String,
    /// What the reader must know before believing anything.
    pub warnings: Vec<String>,
    pub pods: Vec<PodView>,
    pub losses: Vec<String>,
    pub nothing_lost: &'static str,
    pub counters: [(&'static str, String); 9],
    pub state: String,
    pub probes: Vec<Probe>,
}

/// A probe and what it got.
pub(super) struct Probe {
    pub name: String,
    pub backend: String,
    pub detail: String,
    pub missing: bool,
}

impl RecordingView {
    /// The recording with number `index` on a page that shows `pods` pods in all.
    pub(super) fn new(index: usize, report: &Report, pods: usize) -> Self {
        let node = &report.node;
        let state = words::state(report);
        let losses = words::losses(report);
        Self {
            host: name(&node.host),
            kernel: name(&node.kernel),
            cgroup: name(&node.cgroup),
            cpus: node.cpus,
            window: stretch(&report.window.start, &report.window.end),
            pods: report
                .pods
                .iter()
                .enumerate()
                .map(|(number, pod)| PodView::new(anchor(index, number), pod, pods))
                .collect(),
            nothing_lost: match report.loss.disagreements {
                Some(_) => "every record arrived in time, and their sums equal the kernel's maps.",
                None => "no loss was counted, but without a whole recording the sums cannot be checked.",
            },
            counters: counters(report),
            state: describe(report),
            probes: report
                .backends
                .iter()
                .map(|(probe, backend)| Probe::new(probe, backend))
                .collect(),
            warnings: state.into_iter().chain(losses.iter().cloned()).collect(),
            losses,
        }
    }
}

fn counters(report: &Report) -> [(&'static str, String); 9] {
    let loss = &report.loss.counted;
    [
        ("bytes without an account", Bytes(loss.lost_bytes).to_string()),
        ("charges without a thread", loss.accounts_full.to_string()),
        ("events dropped", loss.events_dropped.to_string()),
        ("pages of unknown files", loss.files_full.to_string()),
        ("runs of programs missed", loss.missed_runs.to_string()),
        ("times the ring buffer was full", loss.ring_full.to_string()),
        ("stacks that did not fit", loss.stacks_dropped.to_string()),
        ("stacks that are not known", loss.stacks_unknown.to_string()),
        (
            "sums that differ from the kernel's maps",
            report
                .loss
                .disagreements
                .map_or_else(|| "not checked".to_owned(), |count| count.to_string()),
        ),
    ]
}

fn describe(report: &Report) -> String {
    let recording = &report.recording;
    let ended = recording
        .ended
        .as_ref()
        .map_or_else(String::new, |ended| format!(", ended by: {}", name(ended)));
    let cut_off = match recording.cut_off_bytes {
        0 => String::new(),
        bytes => format!(", {} cut off at its end", Bytes(bytes)),
    };
    format!(
        "Made by headroom {}: {}{ended}{cut_off}.",
        name(&report.node.headroom),
        recording.state
    )
}

impl Probe {
    /// `fentry __mem_cgroup_charge`, or `none: why`.
    fn new(probe: &str, got: &str) -> Self {
        let (backend, detail) = match got.split_once(": ") {
            Some(("none", why)) => ("none", why),
            _ => got.split_once(' ').unwrap_or((got, "")),
        };
        Self {
            name: name(probe),
            backend: name(backend),
            detail: name(detail),
            missing: backend == "none",
        }
    }
}
