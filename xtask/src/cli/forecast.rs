//! `cargo xtask forecast`: the tables of docs/forecast.md, from real runs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use nix::unistd::geteuid;
use serde_json::Value;
use xtask::build::binaries;
use xtask::paths;

/// Run scenarios of the lab on this host and the simulated ledgers, and write the tables of docs/forecast.md. Needs root.
#[derive(Debug, Args)]
pub struct Forecast {}

const DOCUMENT: &str = "docs/forecast.md";
/// Where a table stands in the document: its name in a comment, before and after it.
const TABLES: [&str; 3] = ["lab", "recordings", "simulated"];

/// Growth at constant rate until a kill, slow enough for a sample a second to tell something.
const CONSTANT: [&[&str]; 6] = [
    &["daemon-leak", "--rate", "4MiB/s"],
    &["vcpu-overhead", "--rate", "4MiB/s"],
    &["memhold", "--rate", "4MiB/s", "--limit", "420MiB"],
    &["worker-storm", "--rate", "3MiB/s", "--limit", "370MiB"],
    &["backup-io", "--rate", "512KiB/s", "--limit", "298MiB"],
    &["kernel-memory", "--rate", "2MiB/s", "--limit", "316MiB"],
];
/// The scenarios as they are: some grow within a few samples, some by changing rates, some are not killed.
const OWN: [&[&str]; 7] = [
    &["memhold"],
    &["daemon-leak"],
    &["vcpu-overhead"],
    &["backup-io"],
    &["kernel-memory"],
    &["worker-storm"],
    &["guest-only"],
];
/// Recordings that are kept with the source.
const RECORDINGS: [&str; 2] = ["memhold", "backup-io"];

impl Forecast {
    pub fn run(self) -> Result<()> {
        if !geteuid().is_root() {
            bail!("the lab makes cgroups and loads BPF programs: run as root");
        }
        let tables = [lab()?, recordings()?, simulated()?];
        let path = paths::workspace().join(DOCUMENT);
        let mut text = fs::read_to_string(&path)?;
        for (name, table) in TABLES.iter().zip(tables) {
            text = replaced(&text, name, &table)?;
        }
        fs::write(&path, text)?;
        eprintln!("forecast: written to {}", path.display());
        Ok(())
    }
}

fn replaced(text: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("<!-- {name}: written by `cargo xtask forecast` -->\n");
    let end = format!("<!-- {name}: end -->\n");
    let (head, rest) = text
        .split_once(&begin)
        .with_context(|| format!("no place for {name}"))?;
    let (_, tail) = rest.split_once(&end).with_context(|| format!("{name} has no end"))?;
    Ok(format!("{head}{begin}{table}{end}{tail}"))
}

fn lab() -> Result<String> {
    let mut table = String::from(
        "| scenario | rate | at half headroom: forecast (real) | off by | between | driver | first alert ahead (most possible) | alerts |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (constant, words) in CONSTANT
        .iter()
        .map(|words| (true, words))
        .chain(OWN.iter().map(|words| (false, words)))
    {
        eprintln!("forecast: lab {}", words.join(" "));
        let output = Command::new(binaries()?.headroom())
            .arg("lab")
            .args(*words)
            .arg("--json")
            .stderr(Stdio::null())
            .output()
            .context("cannot run headroom")?;
        let result: Value = serde_json::from_slice(&output.stdout).context("`headroom lab --json` printed no JSON")?;
        lab_row(&mut table, words, constant, &result["foreseen"])?;
    }
    Ok(table)
}

fn lab_row(table: &mut String, words: &[&str], constant: bool, foreseen: &Value) -> Result<()> {
    ensure!(foreseen.is_object(), "{}: nothing was traced", words.join(" "));
    let rate = if constant { "constant" } else { "the scenario's own" };
    let half = &foreseen["half"];
    let real = half["real_s"].as_f64();
    let expected = half["expected_s"].as_f64();
    let seconds = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), |value| format!("{value:.1} s"));
    let (at_half, off) = match (real, expected) {
        (None, _) => ("–".to_owned(), "–".to_owned()),
        (Some(real), None) => (format!("none ({real:.1} s)"), "–".to_owned()),
        (Some(real), Some(expected)) => (
            format!("{expected:.1} s ({real:.1} s)"),
            format!("{:+.0}%", (expected - real) / real * 100.0),
        ),
    };
    let between = match half["low_s"].as_f64() {
        None => "–".to_owned(),
        low => format!(
            "{} and {}",
            seconds(low),
            half["high_s"]
                .as_f64()
                .map_or_else(|| "later".to_owned(), |high| seconds(Some(high)))
        ),
    };
    let driver = match (half["driver"].as_str(), half["driver_right"].as_bool()) {
        (Some(driver), Some(true)) => format!("{driver}: right"),
        (Some(driver), _) => format!("{driver}: wrong"),
        (None, _) => "–".to_owned(),
    };
    let ahead = match foreseen["most_lead_s"].as_f64() {
        None => "not killed".to_owned(),
        Some(most) => match foreseen["lead_s"].as_f64() {
            None => format!("none ({most:.1} s)"),
            Some(lead) => format!("{lead:.1} s ({most:.1} s): {:.0}%", lead / most * 100.0),
        },
    };
    writeln!(
        table,
        "| `{}` | {rate} | {at_half} | {off} | {between} | {driver} | {ahead} | {} |",
        words.join(" "),
        foreseen["alerts"]
    )?;
    Ok(())
}

/// Recordings have no truth beside them: what was forecast first, and when, against the kill.
fn recordings() -> Result<String> {
    let mut table = String::from(
        "| recording | window | first forecast: in (really in) | foreseen without a break | driver |\n| --- | --- | --- | --- | --- |\n",
    );
    for name in RECORDINGS {
        let file = paths::workspace().join(format!("tests/fixtures/recordings/{name}.jsonl.zst"));
        let report = report(&file)?;
        let pod = &report["pods"][0];
        let window = between(&report["window"]["start"], &report["window"]["end"])?;
        let first = &pod["forecasts"][0];
        let forecast = match (first["left_s"].as_f64(), pod["oom"][0]["at"].as_str()) {
            (Some(left), Some(_)) => {
                format!("{left:.1} s ({:.1} s)", between(&first["at"], &pod["oom"][0]["at"])?)
            }
            (Some(left), None) => format!("{left:.1} s (never)"),
            (None, _) => "none".to_owned(),
        };
        let lead = match (pod["oom"][0]["lead_time_s"].as_f64(), pod["oom"][0].is_object()) {
            (Some(lead), _) => format!("{lead:.1} s ahead"),
            (None, true) => "no".to_owned(),
            (None, false) => "not killed".to_owned(),
        };
        let driver = first["driver"].as_str().unwrap_or("–");
        writeln!(table, "| `{name}` | {window:.1} s | {forecast} | {lead} | {driver} |")?;
    }
    Ok(table)
}

fn report(file: &Path) -> Result<Value> {
    let output = Command::new(binaries()?.headroom())
        .arg("report")
        .arg(file)
        .arg("--json")
        .output()
        .context("cannot run headroom")?;
    serde_json::from_slice(&output.stdout).context("`headroom report --json` printed no JSON")
}

/// Seconds between two moments of a report.
fn between(from: &Value, to: &Value) -> Result<f64> {
    let moment = |value: &Value| -> Result<jiff::Timestamp> { Ok(value.as_str().context("no time")?.parse()?) };
    Ok(moment(to)?.duration_since(moment(from)?).as_secs_f64())
}

/// What the tests with simulated ledgers measure. They print it as rows of a table.
fn simulated() -> Result<String> {
    const MARK: &str = "measured: ";
    eprintln!("forecast: simulated ledgers");
    let output = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "-p", "headroom", "--lib", "simulated_tests", "--"])
        .args(["--nocapture", "--test-threads=1"])
        .current_dir(paths::workspace())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut rows: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(MARK))
        .map(|(_, row)| row)
        .collect();
    rows.sort_unstable();
    ensure!(
        output.status.success() && rows.len() >= 3,
        "the tests with simulated ledgers failed: {text}"
    );
    let mut table = String::from(
        "| growth | forecasts | real time within the bounds | with an upper bound | within both | bounds narrower than four times the time left |\n\
         | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows {
        writeln!(table, "{row}")?;
    }
    Ok(table)
}
