//! Instructions that tracing adds, counted in an emulated machine: the same on every host, so that more of them are noticed.

use anyhow::{Context as _, Result, ensure};
use xtask::bench::{guest, table};

/// What a set-up may add to a step beyond empty programs at the same hooks, in instructions.
///
/// They are five to ten percent above what they were when this was written: a compiler may choose other instructions.
const LIMITS: [(&str, &str, &str, f64); 7] = [
    ("unwatched", "anon", "fault", 51.0),
    ("unwatched", "anon", "free", 31.0),
    ("watched", "anon", "fault", 318.0),
    ("ledger", "anon", "fault", 430.0),
    ("ledger", "anon", "free", 480.0),
    ("guest", "anon", "fault", 520.0),
    ("guest", "anon", "free", 950.0),
];

#[test]
fn tracing_adds_no_more_instructions_than_it_did() -> Result<()> {
    let figures = guest::measure("6.12", &["anon"])?;
    println!("{}\n{}", figures.kernel, table::instructions(&figures));
    for (setup, load, step, limit) in LIMITS {
        let added = figures.added(setup, "empty", load, step);
        let added = added.with_context(|| format!("{setup}: no {load} {step} was measured"))?;
        ensure!(
            added <= limit,
            "{setup} adds {added:.0} instructions to {load} {step}, {limit} are enough\n{}",
            table::instructions(&figures)
        );
    }
    Ok(())
}
