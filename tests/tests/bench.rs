//! Instructions that tracing adds, counted in an emulated machine: the same on every host, so that more of them are noticed.

use anyhow::{Context as _, Result, ensure};
use xtask::bench::{guest, table};

/// What a set-up may add to a step beyond empty programs at the same hooks, in instructions.
///
/// They are five to ten percent above what they were when this was written: a compiler may choose other instructions.
const LIMITS: [(&str, &str, &str, f64); 6] = [
    ("unwatched", "anon", "fault", 58.0),
    ("unwatched", "anon", "free", 34.0),
    ("ledger", "anon", "fault", 600.0),
    ("ledger", "anon", "free", 555.0),
    ("guest", "anon", "fault", 670.0),
    ("guest", "anon", "free", 1020.0),
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
