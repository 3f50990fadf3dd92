//! What a recording holds, and what `headroom report` says about it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use headroom::recording::event::{Body, Event, Footer};
use headroom::recording::{Reader, State};
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

/// `headroom report --json` on a recording that is not damaged.
///
/// # Errors
/// When the report fails or is no JSON.
pub fn report(file: &Path) -> Result<Value> {
    let run = Run::headroom([Path::new("report"), file, Path::new("--json")])?;
    ensure!(run.status == Some(0), "report failed: {run:?}");
    serde_json::from_str(&run.stdout).context("the report is no JSON")
}
