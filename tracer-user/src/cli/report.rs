//! `headroom report`: who grew, when, how fast, and what the kernel did.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::exit::{ExitError, Status};
use super::progress;
use crate::ledger::{Bounds, Excerpt, Replay};
use crate::recording::{ReadError, Reader, Summary};
use crate::report::{Report, render_html, render_json, render_json_all, render_text};

/// Report who grew, when, how fast, and what the kernel did.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  headroom report backup-window.jsonl.zst --format html -o backup-window.html
  headroom report backup-window.jsonl.zst --from 'backup begins' --to 'backup ends'")]
pub struct Args {
    /// Recordings made by `headroom record`; several are reported one after another.
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
    /// One JSON document; an array when there are several recordings.
    Json,
    /// One self-contained page with a timeline, to be opened in a browser, sent or printed.
    Html,
}

/// Reads the recordings and writes their reports.
///
/// # Errors
/// When a recording cannot be read, when one is damaged (after reporting what could be read; status 5), or when the
/// report cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let reports = args
        .files
        .iter()
        .map(|path| read(path, args))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let format = if args.json { Format::Json } else { args.format };
    match &args.output {
        Some(path) => {
            let create = || -> std::io::Result<()> {
                let mut out = BufWriter::new(anstream::StripStream::new(File::create(path)?));
                write(&reports, format, &mut out)?;
                out.flush()
            };
            create().with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => {
            let mut out = BufWriter::new(anstream::stdout().lock());
            write(&reports, format, &mut out)?;
            out.flush()?;
        }
    }
    complain(args, &reports)
}

fn read(path: &Path, args: &Args) -> anyhow::Result<Report> {
    let bounds = bounds(path, args.from.as_deref(), args.to.as_deref())?;
    let (replay, summary) = replay_between(path, bounds)?;
    Ok(Report::new(replay.ledger(), Some(&summary)))
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

fn write(reports: &[Report], format: Format, out: &mut impl Write) -> std::io::Result<()> {
    match (format, reports) {
        (Format::Html, reports) => render_html(reports, out),
        (Format::Json, [report]) => render_json(report, out),
        (Format::Json, reports) => render_json_all(reports, out),
        (Format::Text, reports) => {
            for (index, report) in reports.iter().enumerate() {
                if index > 0 {
                    writeln!(out)?;
                }
                render_text(report, out)?;
            }
            Ok(())
        }
    }
}

/// Says on stderr which recordings were not whole; a damaged one decides the exit status.
fn complain(args: &Args, reports: &[Report]) -> anyhow::Result<()> {
    let mut damaged = Vec::new();
    for (path, report) in args.files.iter().zip(reports) {
        match report.recording.state {
            "damaged" => damaged.push(path.display().to_string()),
            "incomplete" => anstream::eprintln!("headroom: {} is incomplete: it has no footer", path.display()),
            _ => {}
        }
    }
    if damaged.is_empty() {
        return Ok(());
    }
    let message = format!("damaged, what could be read was reported: {}", damaged.join(", "));
    Err(ExitError::new(Status::Damaged, message).into())
}
