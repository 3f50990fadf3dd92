//! `headroom report`: who grew, when, how fast, and what the kernel did.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::exit::{ExitError, Status};
use super::{progress, wholeness};
use crate::ledger::{Bounds, Excerpt, Replay};
use crate::recording::{ReadError, Reader, State, Summary};
use crate::report::{
    Merged, Report, render_html, render_json, render_merged_html, render_merged_json, render_merged_text, render_text,
};

/// Report who grew, when, how fast, and what the kernel did.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  headroom report backup-window.jsonl.zst --format html -o backup-window.html
  headroom report backup-window.jsonl.zst --from 'backup begins' --to 'backup ends'")]
pub struct Args {
    /// Recordings made by `headroom record`; several, also of several nodes, are put together VM by VM.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to write the report.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Short for --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Only what came after this mark of `headroom mark`, or after this time (2026-11-25T22:00:00Z).
    #[arg(long, value_name = "MARK")]
    from: Option<String>,
    /// Only what came before this mark, or this time; with --from, the first such mark behind that.
    #[arg(long, value_name = "MARK")]
    to: Option<String>,
    /// Write to a file instead of stdout.
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
}

/// Forms of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// To be read.
    Text,
    /// One JSON document.
    Json,
    /// One self-contained page with a timeline, to be opened in a browser, sent or printed.
    Html,
}

/// What is reported.
enum Findings {
    One(Box<Report>),
    Several(Merged),
}

/// Reads the recordings and writes their reports.
///
/// # Errors
/// When a recording cannot be read, when one is damaged (after reporting what could be read; status 5), or when the
/// report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let read = args.files.iter().map(|path| read(path, args));
    let (mut reports, states): (Vec<_>, Vec<_>) = read.collect::<anyhow::Result<Vec<_>>>()?.into_iter().unzip();
    let findings = match reports.pop() {
        Some(report) if reports.is_empty() => Findings::One(Box::new(report)),
        last => Findings::Several(Merged::new(reports.into_iter().chain(last).collect())),
    };
    let format = if args.json { Format::Json } else { args.format };
    match &args.output {
        Some(path) => {
            let create = || -> std::io::Result<()> {
                let mut out = BufWriter::new(anstream::StripStream::new(File::create(path)?));
                write(&findings, format, &mut out)?;
                out.flush()
            };
            create().with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => {
            let mut out = BufWriter::new(anstream::stdout().lock());
            write(&findings, format, &mut out)?;
            out.flush()?;
        }
    }
    wholeness::complain(&args.files, &states, "reported")
}

/// Adds a recording up, between its marks where some are given.
fn read(path: &Path, args: &Args) -> anyhow::Result<(Report, State)> {
    let bounds = bounds(path, args.from.as_deref(), args.to.as_deref())?;
    let (replay, summary) = replay_between(path, bounds)?;
    Ok((Report::new(replay.ledger(), Some(&summary)), summary.state))
}

/// Finds marks by their text. Where no bound is given, the recording is not read for it.
fn bounds(path: &Path, from: Option<&str>, to: Option<&str>) -> anyhow::Result<Bounds> {
    if from.is_none() && to.is_none() {
        return Ok(Bounds::default());
    }
    let (replay, _) = replay(path)?;
    let ledger = replay.ledger();
    Bounds::find(from, to, ledger.marks(), ledger.header().boot_unix_ns).with_context(|| path.display().to_string())
}

/// Adds a recording up.
pub(super) fn replay(path: &Path) -> anyhow::Result<(Replay, Summary)> {
    replay_between(path, Bounds::default())
}

/// Adds up what lies within these bounds.
fn replay_between(path: &Path, bounds: Bounds) -> anyhow::Result<(Replay, Summary)> {
    let file = File::open(path).map_err(|error| not_read(path, &error.into()))?;
    let files = [(path, file)];
    let progress = progress::reading(&files);
    let [(_, file)] = files;
    let mut reader = Reader::new(progress.wrap_read(file)).map_err(|error| not_read(path, &error))?;
    let mut replay = Replay::default();
    let mut excerpt = Excerpt::new(bounds);
    for event in &mut reader {
        let event = event.map_err(|error| not_read(path, &error))?;
        excerpt.take(event, |event| replay.apply(event));
    }
    progress.finish_and_clear();
    Ok((replay, reader.summary()))
}

/// Why a recording could not be read, with its name and the right status.
pub(super) fn not_read(path: &Path, error: &ReadError) -> anyhow::Error {
    let message = format!("cannot read {}: {error}", path.display());
    match error {
        ReadError::HeaderDamaged => ExitError::new(Status::Damaged, message).into(),
        _ => anyhow::Error::msg(message),
    }
}

fn write(findings: &Findings, format: Format, out: &mut impl Write) -> std::io::Result<()> {
    match (format, findings) {
        (Format::Html, Findings::One(report)) => render_html(report, out),
        (Format::Html, Findings::Several(merged)) => render_merged_html(merged, out),
        (Format::Json, Findings::One(report)) => render_json(report, out),
        (Format::Json, Findings::Several(merged)) => render_merged_json(merged, out),
        (Format::Text, Findings::One(report)) => render_text(report, out),
        (Format::Text, Findings::Several(merged)) => render_merged_text(merged, out),
    }
}
