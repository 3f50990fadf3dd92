//! What an incident's folder holds.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::name;
use super::store::{Draft, MARK, Store, StoreError};
use super::watcher::Trigger;
use crate::export::{ExportError, Format, export};
use crate::ledger::Replay;
use crate::node::Node;
use crate::node::kmsg;
use crate::recording::Reader;
use crate::recording::event::Pod;
use crate::recording::flight::Excerpt;
use crate::report::{Report, render_html, render_json, render_text, verdict};

/// Most of the kernel's log that is kept, bytes: OOM reports of pods with hundreds of threads are some 50 KiB.
const KERNEL_LOG: usize = 1 << 20;
/// Name and major version of `incident.json`.
const SCHEMA: &str = "headroom.incident/1";
/// The recording's name.
const RECORDING: &str = "recording.jsonl.zst";
/// The name of the recording's histograms.
const HISTOGRAMS: &str = "histograms.hlog";

/// An incident, ready to be written.
#[derive(Clone, Debug)]
pub struct Incident {
    /// What made one of it.
    pub trigger: Trigger,
    /// When.
    pub at: Timestamp,
    /// Start of the recording.
    pub begins: Timestamp,
    /// The pod, as last described; empty when no pod is known.
    pub pod: Pod,
    /// What happened.
    pub recording: Excerpt,
    /// Memory was short, so that the recording is shorter than asked for.
    pub shortened: bool,
    /// Files of the memcg whose limit was hit, read right after the kill.
    pub memory_files: Vec<(&'static str, Vec<u8>)>,
}

/// `incident.json`: what this folder is about, for scripts.
#[derive(Debug, Serialize)]
struct Mark<'a> {
    schema: &'static str,
    trigger: Trigger,
    at: String,
    namespace: &'a str,
    vm: &'a str,
    pod_uid: &'a str,
    cgroup: &'a str,
    /// The report's first line.
    verdict: Option<String>,
    recording_begins: String,
    /// The recording is shorter than `--keep` because `--memory` was used up.
    recording_shortened: bool,
    /// Files that are not here, and why.
    left_out: Vec<LeftOut>,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    file: &'static str,
    reason: String,
}

impl Incident {
    /// The name of its folder.
    #[must_use]
    pub fn folder(&self) -> String {
        let pod = &self.pod;
        let last = pod.cgroup.rsplit('/').find(|part| !part.is_empty()).unwrap_or("node");
        let vm = if pod.vm.is_empty() { last } else { &pod.vm };
        name::folder(self.at, &pod.namespace, vm)
    }

    /// Writes it. The recording must be whole; what else cannot be had is named in `incident.json`.
    ///
    /// # Errors
    /// When the folder cannot be written; nothing is left of it then.
    pub fn write(&self, store: &Store, node: &Node) -> Result<PathBuf, StoreError> {
        let mut draft = store.begin(&self.folder())?;
        let mut left_out = Vec::new();
        draft.file(RECORDING, |mut out| self.recording.write(&mut out))?;
        for (file, bytes) in &self.memory_files {
            draft.file(file, |out| out.write_all(bytes))?;
        }
        if self.memory_files.is_empty() && self.trigger == Trigger::Kill {
            left_out.push(LeftOut {
                file: "memory.stat",
                reason: "the memcg was gone".to_owned(),
            });
        }
        match kmsg::tail(node, KERNEL_LOG) {
            Ok(records) => optional(&mut draft, "kernel.log", &mut left_out, |out| {
                records
                    .iter()
                    .try_for_each(|record| writeln!(out, "{}", record.dmesg()))
            })?,
            Err(error) => left_out.push(LeftOut {
                file: "kernel.log",
                reason: error.to_string(),
            }),
        }
        histograms(&mut draft, &mut left_out)?;
        let report = self.report(&draft);
        match &report {
            Ok(report) => {
                let mut text = anstream::StripStream::new(Vec::new());
                let rendered = render_text(report, &mut text);
                optional(&mut draft, "report.txt", &mut left_out, |out| {
                    rendered.and_then(|()| out.write_all(text.as_inner()))
                })?;
                optional(&mut draft, "report.json", &mut left_out, |mut out| {
                    render_json(report, &mut out)
                })?;
                optional(&mut draft, "report.html", &mut left_out, |mut out| {
                    render_html(report, &mut out)
                })?;
            }
            Err(error) => left_out.push(LeftOut {
                file: "report.json",
                reason: error.to_string(),
            }),
        }
        let mark = self.mark(report.as_ref().ok(), left_out);
        draft.file(MARK, |out| {
            serde_json::to_writer_pretty(&mut *out, &mark)?;
            out.write_all(b"\n")
        })?;
        draft.finish()
    }

    /// The report on the recording as it was written, this pod first: what `headroom report` makes of it.
    fn report(&self, draft: &Draft<'_>) -> anyhow::Result<Report> {
        let mut reader = Reader::new(File::open(draft.path(RECORDING))?)?;
        let mut replay = Replay::default();
        for event in &mut reader {
            replay.apply(&event?);
        }
        let mut report = Report::new(replay.ledger(), Some(&reader.summary()));
        report.pods.sort_by_key(|pod| pod.cgroup != self.pod.cgroup);
        Ok(report)
    }

    fn mark(&self, report: Option<&Report>, left_out: Vec<LeftOut>) -> Mark<'_> {
        Mark {
            schema: SCHEMA,
            trigger: self.trigger,
            at: self.at.to_string(),
            namespace: &self.pod.namespace,
            vm: &self.pod.vm,
            pod_uid: &self.pod.pod_uid,
            cgroup: &self.pod.cgroup,
            verdict: report.and_then(|report| report.pods.first()).map(verdict),
            recording_begins: self.begins.to_string(),
            recording_shortened: self.shortened,
            left_out,
        }
    }
}

/// Writes the histograms of the recording as it was written.
fn histograms(draft: &mut Draft<'_>, left_out: &mut Vec<LeftOut>) -> Result<(), StoreError> {
    let mut unread = None;
    match Reader::open(&draft.path(RECORDING)) {
        Ok(reader) => optional(draft, HISTOGRAMS, left_out, |out| {
            match export(vec![reader], Format::Hlog, None, out) {
                Ok(_) => Ok(()),
                Err(ExportError::Write(error)) => Err(error),
                Err(ExportError::Read { error, .. }) => {
                    unread = Some(error);
                    Ok(())
                }
            }
        })?,
        Err(error) => unread = Some(error),
    }
    left_out.extend(unread.map(|error| LeftOut {
        file: HISTOGRAMS,
        reason: format!("not whole: {error}"),
    }));
    Ok(())
}

/// Writes a file that an incident can do without when it does not fit below `--max-disk`. A full disk is another matter.
fn optional(
    draft: &mut Draft<'_>,
    file: &'static str,
    left_out: &mut Vec<LeftOut>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), StoreError> {
    match draft.file(file, write) {
        Err(error @ StoreError::TooLarge(_)) => {
            left_out.push(LeftOut {
                file,
                reason: error.to_string(),
            });
            Ok(())
        }
        result => result,
    }
}
