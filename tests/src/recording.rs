//! What a recording holds, and what `headroom report` says about it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use headroom::ledger::Replay;
use headroom::mark::{self, Request, Told, tell};
use headroom::recording::event::{Body, Event, Footer};
use headroom::recording::{Reader, State};
use headroom::report::{Report, render_html, render_json, render_text};
use serde_json::Value;

use crate::program::Run;

/// All events of a recording, and in which state it is.
///
/// # Errors
/// When it cannot be read.
pub fn events(file: &Path) -> Result<(Vec<Event>, State)> {
    let mut reader = Reader::open(file)?;
    let events = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    let state = reader.summary().state;
    Ok((events, state))
}

/// Puts a mark into the recordings of all recorders that run, of which there are this many. All that was charged before is
/// then in them.
///
/// # Errors
/// When a recorder does not answer, or there are others.
pub fn mark(text: &str, recorders: usize) -> Result<()> {
    let request = Request {
        text: text.to_owned(),
        memcgs: Vec::new(),
    };
    let told = tell(&mark::folder(), &request)?;
    let all = Told {
        marked: recorders,
        ..Told::default()
    };
    ensure!(told == all, "{recorders} recorders are to be marked: {told:?}");
    Ok(())
}

/// Charged and uncharged bytes by memcg, kind and region.
pub type Sums = BTreeMap<(u64, &'static str, &'static str), (u64, u64)>;

/// The sums of all charge events.
#[must_use]
pub fn charge_sums(events: &[Event]) -> Sums {
    let mut sums = Sums::new();
    for event in events {
        if let Body::Charge(charge) = &event.body {
            let sum = sums
                .entry((charge.memcg, charge.kind.as_str(), charge.region.as_str()))
                .or_default();
            sum.0 += charge.charged;
            sum.1 += charge.uncharged;
        }
    }
    sums
}

/// Runs of programs that the kernel left out, as last told.
#[must_use]
pub fn missed_runs(events: &[Event]) -> u64 {
    let told = events.iter().rev().find_map(|event| match &event.body {
        Body::Loss(loss) => Some(loss.missed_runs),
        _ => None,
    });
    told.unwrap_or(0)
}

/// The sums that the footer holds, read from the kernel's maps.
#[must_use]
pub fn footer_sums(footer: &Footer) -> Sums {
    let totals = footer.totals.iter();
    totals
        .map(|total| {
            let key = (total.memcg, total.kind.as_str(), total.region.as_str());
            (key, (total.charged, total.uncharged))
        })
        .collect()
}

/// The footer.
///
/// # Errors
/// When the last event is none.
pub fn footer(events: &[Event]) -> Result<&Footer> {
    match events.last().map(|event| &event.body) {
        Some(Body::Footer(footer)) => Ok(footer),
        other => anyhow::bail!("a recording ends with its footer, not {other:?}"),
    }
}

/// The kernel's own reports of the kills in a recording, as a log.
///
/// # Errors
/// When there are none.
pub fn kernel_log(file: &Path) -> Result<String> {
    let (events, _) = events(file)?;
    let mut log = String::new();
    for event in events {
        if let Body::Oom(kill) = event.body {
            log.extend(kill.kernel_report.iter().flat_map(|line| [line.as_str(), "\n"]));
        }
    }
    ensure!(
        log.contains("invoked oom-killer"),
        "{} holds no report of the kernel",
        file.display()
    );
    Ok(log)
}

/// Reports on anything that is taken for a recording: no panic, and nothing of it reaches a terminal as a control character.
///
/// # Errors
/// Says what does not hold.
pub fn check(bytes: &[u8]) -> Result<()> {
    // What is no recording is refused, and that is all.
    let Ok(mut reader) = Reader::new(bytes) else {
        return Ok(());
    };
    let mut replay = Replay::default();
    for event in reader.by_ref().map_while(Result::ok) {
        replay.apply(&event);
    }
    check_report(&Report::new(replay.ledger(), Some(&reader.summary())))
}

/// The same of lines that are unpacked already.
///
/// # Errors
/// Says what does not hold.
pub fn check_lines(lines: &[u8]) -> Result<()> {
    let mut replay = Replay::default();
    for line in lines.split(|byte| *byte == b'\n') {
        if let Ok(event) = serde_json::from_slice::<Event>(line) {
            replay.apply(&event);
        }
    }
    check_report(&Report::new(replay.ledger(), None))
}

/// Takes away colours and the like: `ESC [ digits and semicolons m`.
fn without_styles(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('m') {
            Some((style, rest)) if style.bytes().all(|b| b.is_ascii_digit() || b == b';') => plain.push_str(rest),
            _ => {
                plain.push('\u{1b}');
                plain.push_str(part);
            }
        }
    }
    plain
}

fn check_report(report: &Report) -> Result<()> {
    let mut text = Vec::new();
    render_text(report, &mut text)?;
    let text = without_styles(&String::from_utf8(text)?);
    let control = text.chars().find(|c| c.is_control() && *c != '\n');
    ensure!(control.is_none(), "{control:?} in {text:?}");
    render_json(report, &mut Vec::new())?;
    render_html(report, &mut Vec::new())?;
    Ok(())
}

/// `headroom report --json` on a recording that is not damaged.
///
/// # Errors
/// When the report fails or is no JSON.
pub fn report(file: &Path) -> Result<Value> {
    let run = Run::headroom([Path::new("report"), file, Path::new("--json")])?;
    ensure!(run.status == Some(0), "report failed: {run:?}");
    serde_json::from_str(&run.stdout).context("the report is no JSON")
}
