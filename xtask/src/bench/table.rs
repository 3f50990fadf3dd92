//! docs/performance.md: what was measured.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use super::Figures;
use crate::paths;

/// Tells where a part of the document begins and ends that a command writes.
fn marks(part: &str) -> (String, String) {
    (
        format!("<!-- bench {part}: written by `cargo xtask bench` -->\n"),
        format!("<!-- bench {part}: end -->\n"),
    )
}

/// Puts `text` into a part of docs/performance.md.
///
/// # Errors
/// When the document has no place for it.
pub fn write(part: &str, text: &str) -> Result<()> {
    let path = paths::workspace().join("docs/performance.md");
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let new = replaced(&old, part, text).with_context(|| format!("docs/performance.md has no place for {part}"))?;
    fs::write(&path, new).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("bench: written to {}", path.display());
    Ok(())
}

fn replaced(old: &str, part: &str, text: &str) -> Option<String> {
    let (begin, end) = marks(part);
    let (head, rest) = old.split_once(&begin)?;
    let (_, tail) = rest.split_once(&end)?;
    Some(format!("{head}{begin}{text}{end}{tail}"))
}

/// Set-ups that nothing is compared to.
const BASES: [&str; 2] = ["none", "empty"];

/// Instructions that each set-up adds to each step.
#[must_use]
pub fn instructions(figures: &Figures) -> String {
    let setups: Vec<&str> = figures
        .setups()
        .into_iter()
        .filter(|setup| !BASES.contains(setup))
        .collect();
    let mut text = String::from("| work | untraced | `empty` |");
    for setup in &setups {
        let _ = write!(text, " `{setup}` |");
    }
    text.push_str("\n| --- | --- | --- |");
    text.push_str(&" --- |".repeat(setups.len()));
    text.push('\n');
    for (load, step) in figures.steps() {
        let base = figures.median("none", load, step);
        let _ = write!(
            text,
            "| `{load}`, {step} | {} | {} |",
            base.map_or_else(|| "–".to_owned(), |base| format!("{base:.0}")),
            added(figures.added("empty", "none", load, step))
        );
        for setup in &setups {
            let over_none = figures.added(setup, "none", load, step);
            let over_floor = figures.added(setup, "empty", load, step);
            let cell = match (over_none, over_floor) {
                (None, _) => "–".to_owned(),
                (Some(_), None) => added(over_none),
                (Some(_), Some(_)) => format!("{} ({})", added(over_none), added(over_floor)),
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

fn added(instructions: Option<f64>) -> String {
    instructions.map_or_else(|| "–".to_owned(), |instructions| format!("{instructions:+.0}"))
}

/// How far the batches of a step lie apart: the widest of the ranges between first and third quartile, as a share of the
/// median.
#[must_use]
pub fn widest_spread(figures: &Figures) -> f64 {
    let shares = figures
        .figures
        .iter()
        .map(|figure| (figure.quartiles[1] - figure.quartiles[0]) / figure.median.max(1.0));
    shares.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Figure;

    #[test]
    fn a_set_up_is_shown_over_nothing_and_over_the_floor() {
        let of = |setup: &str, value: f64| Figure::of(setup, "anon", "fault", &[value]).unwrap();
        let figures = Figures {
            figures: vec![of("none", 1000.0), of("empty", 1100.0), of("watched", 1350.4)],
            ..Figures::default()
        };
        let text = instructions(&figures);
        assert!(text.contains("| `anon`, fault | 1000 | +100 | +350 (+250) |"), "{text}");
    }

    #[test]
    fn only_its_part_of_the_document_changes() {
        let (begin, end) = marks("guest");
        let old = format!("head\n{begin}old\n{end}tail\n");
        assert_eq!(
            replaced(&old, "guest", "new\n"),
            Some(format!("head\n{begin}new\n{end}tail\n"))
        );
        assert_eq!(replaced("head", "guest", ""), None);
    }
}
