//! `headroom explain`: what a kernel OOM report says, in a VM's terms.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

use super::exit::{ExitError, Status};
use crate::escape;
use crate::node::Node;
use crate::node::kmsg::KernelLog;
use crate::oomlog::explain::{Comparison, Explanation, Recorded, compare, explain, render};
use crate::oomlog::{Log, Parser, Report};
use crate::recording::{ReadError, Reader, State};
use crate::units::Bytes;

/// Longest line that is taken from a log; what is behind it is left out.
const MAX_LINE: usize = 256 << 10;

/// Explain a kernel OOM report: whose limit, who asked, who was killed and why, where the memory was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: journalctl -k | headroom explain --guest-memory 16GiB")]
pub struct Args {
    /// A log with the report, from dmesg, journalctl -k, syslog or /dev/kmsg; - for stdin. Without it stdin, or on a
    /// terminal the kernel's own log.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Size of guest RAM, where the limit does not tell.
    #[arg(long, value_name = "SIZE")]
    guest_memory: Option<Bytes>,
    /// Compare with a recording of the same kill.
    #[arg(long, value_name = "RECORDING")]
    recording: Option<PathBuf>,
    /// One JSON document instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    explanations: &'a [Explanation],
    reports: &'a [Report],
    reports_dropped: u64,
    recording: Option<&'a Comparison>,
}

/// Reads the log and writes what its reports say.
///
/// # Errors
/// When the log or the recording cannot be read, or when no OOM report is in the log.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (log, source) = read(args.file.as_deref())?;
    if log.reports.is_empty() {
        anyhow::bail!("no OOM report in {source}: it begins with a line that says 'invoked oom-killer'");
    }
    let guest = args.guest_memory.map(|bytes| bytes.0);
    let explanations: Vec<_> = log.reports.iter().map(|report| explain(report, guest)).collect();
    let recorded = args
        .recording
        .as_deref()
        .map(|path| against(path, &log.reports, &explanations))
        .transpose()?;
    let comparison = recorded.as_ref().map(|recorded| &recorded.0);
    let mut out = BufWriter::new(anstream::stdout().lock());
    if args.json {
        let document = Document {
            schema: "headroom.explain/1",
            explanations: &explanations,
            reports: &log.reports,
            reports_dropped: log.reports_dropped,
            recording: comparison,
        };
        serde_json::to_writer_pretty(&mut out, &document).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write_text(&log, &explanations, comparison, &mut out)?;
    }
    out.flush()?;
    match recorded {
        Some((_, State::Damaged)) => Err(ExitError::new(
            Status::Damaged,
            "the recording is damaged, what could be read was compared",
        )
        .into()),
        _ => Ok(()),
    }
}

fn write_text(
    log: &Log,
    explanations: &[Explanation],
    comparison: Option<&Comparison>,
    out: &mut impl Write,
) -> io::Result<()> {
    for (index, explanation) in explanations.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        render(explanation, out)?;
    }
    if log.reports_dropped > 0 {
        writeln!(out, "\n{} more reports were too many to keep", log.reports_dropped)?;
    }
    let Some(comparison) = comparison else { return Ok(()) };
    if comparison.disagreements.is_empty() {
        return writeln!(
            out,
            "\nThe recording agrees: {} facts compared, kills in both: {}.",
            comparison.compared, comparison.matched
        );
    }
    writeln!(
        out,
        "\nThe recording disagrees ({} facts compared, kills in both: {}):",
        comparison.compared, comparison.matched
    )?;
    for line in &comparison.disagreements {
        writeln!(out, "  {}", escape::terminal(line))?;
    }
    Ok(())
}

/// The log, and what to call it.
fn read(file: Option<&Path>) -> anyhow::Result<(Log, String)> {
    match file {
        Some(path) if path != Path::new("-") => {
            let log = File::open(path).and_then(|file| parse(BufReader::new(file)));
            let name = path.display().to_string();
            Ok((log.with_context(|| format!("cannot read {name}"))?, name))
        }
        None if io::stdin().is_terminal() => {
            let log = kernel_log().context("cannot read the kernel's log: give a file, or be root")?;
            Ok((log, "the kernel's log".to_owned()))
        }
        _ => Ok((
            parse(io::stdin().lock()).context("cannot read stdin")?,
            "stdin".to_owned(),
        )),
    }
}

fn kernel_log() -> anyhow::Result<Log> {
    let node = Node::new(Path::new("/"))?;
    let mut parser = Parser::default();
    for record in KernelLog::at_start(&node)?.read_new()? {
        // Priority and number are not kept with the record, and say nothing about a report.
        parser.line(format!("6,0,{},-;{}", record.local_us, record.text).as_bytes());
    }
    Ok(parser.finish())
}

/// Reads line by line, in bounded memory.
fn parse(mut source: impl BufRead) -> io::Result<Log> {
    let mut parser = Parser::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if source.by_ref().take(MAX_LINE as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(parser.finish());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else {
            source.skip_until(b'\n')?;
        }
        parser.line(&line);
    }
}

fn against(path: &Path, reports: &[Report], explanations: &[Explanation]) -> anyhow::Result<(Comparison, State)> {
    let failed = |error: ReadError| {
        let message = format!("cannot read {}: {error}", path.display());
        match error {
            ReadError::HeaderDamaged => ExitError::new(Status::Damaged, message).into(),
            _ => anyhow::Error::msg(message),
        }
    };
    let mut reader = Reader::open(path).map_err(failed)?;
    let mut recorded = Recorded::default();
    for event in &mut reader {
        recorded.take(event.map_err(failed)?);
    }
    Ok((compare(reports, explanations, &recorded), reader.summary().state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_without_end_takes_bounded_memory_and_hides_nothing_behind_it() {
        let mut log = vec![b'x'; MAX_LINE * 3];
        log.extend_from_slice(
            b"\n[ 1.5] CPU 1/KVM invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n",
        );
        assert_eq!(parse(&log[..]).unwrap().reports.len(), 1);
    }
}
