//! What tracing takes on this host, in time: its kernel, its CPUs, by the tracepoint backend.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Figure;
use crate::build::{BUILT, binaries};
use crate::process::{capture, cargo, run};
use crate::{paths, setup};

/// What was measured on a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release.
    pub kernel: String,
    /// CPU model.
    pub cpu: String,
    /// How many CPUs.
    pub cpus: usize,
    /// Nanoseconds of a page fault, by set-up; of the others' also how many times that of the first, pair by pair.
    pub faults: Vec<(Figure, Option<Figure>)>,
    /// Milliseconds from the start of `headroom record` until it is attached.
    pub attach: Option<Figure>,
    /// The collector at rates of records.
    pub rates: Vec<Rate>,
    /// `headroom report` of recordings.
    pub reports: Vec<Report>,
}

/// The collector at a rate of records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Records a second that the kernel side makes.
    pub records: f64,
    /// How often there was no room for one, so that it came later.
    pub full: u64,
    /// Share of one CPU, percent.
    pub cpu: f64,
    /// Resident memory, MiB, after these seconds.
    pub resident: f64,
    /// Bytes of the recording a second.
    pub bytes: f64,
}

/// A report on a recording.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How long it is.
    pub hours: u64,
    /// Its size in MiB.
    pub size: f64,
    /// Seconds that the report takes.
    pub seconds: f64,
}

/// Measures this host, with a headroom built as it is handed out. Needs root.
///
/// # Errors
/// When something cannot be built or run.
pub fn measure() -> Result<Host> {
    setup::ebpf()?;
    run(cargo().args(["build", "--quiet", "--release", "-p", "headroom"])).context("headroom does not build")?;
    let release = paths::target().join(paths::TARGET).join("release");
    let mut bench = Command::new(binaries()?.bench());
    bench.arg("host").env(BUILT, &release);
    let bpftrace = setup::peers()?.bpftrace()?;
    for word in std::iter::once(bpftrace.get_program()).chain(bpftrace.get_args()) {
        bench.arg(word);
    }
    serde_json::from_str(&capture(&mut bench)?).context("what was measured")
}

/// The tables of a host.
#[must_use]
pub fn tables(host: &Host) -> String {
    let mut text = format!("\n{}, {} CPUs, Linux {}.\n", host.cpu, host.cpus, host.kernel);
    text.push_str("\n| page fault under | ns (quartiles) | times untraced (quartiles) |\n| --- | --- | --- |\n");
    for (figure, ratio) in &host.faults {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} |",
            figure.setup,
            shown(figure, 0),
            ratio.as_ref().map_or_else(|| "1".to_owned(), |ratio| shown(ratio, 2))
        );
    }
    if let Some(attach) = &host.attach {
        let _ = writeln!(text, "\nFrom start to attached: {} ms.", shown(attach, 0));
    }
    text.push_str("\n| records/s | of one CPU | resident | ring full | recording |\n| --- | --- | --- | --- | --- |\n");
    for rate in &host.rates {
        let _ = writeln!(
            text,
            "| {:.0} | {:.2}% | {:.1} MiB | {} times | {:.1} KiB/s |",
            rate.records,
            rate.cpu,
            rate.resident,
            rate.full,
            rate.bytes / 1024.0
        );
    }
    text.push_str("\n| recording of | size | `headroom report` |\n| --- | --- | --- |\n");
    for report in &host.reports {
        let _ = writeln!(
            text,
            "| {} h | {:.1} MiB | {:.2} s |",
            report.hours, report.size, report.seconds
        );
    }
    text
}

fn shown(figure: &Figure, digits: usize) -> String {
    format!(
        "{:.digits$} ({:.digits$} to {:.digits$})",
        figure.median, figure.quartiles[0], figure.quartiles[1]
    )
}

/// The model of this host's CPU.
///
/// # Errors
/// When the kernel does not tell.
pub fn cpu_model() -> Result<String> {
    let path = Path::new("/proc/cpuinfo");
    let text = std::fs::read_to_string(path).context("cannot read /proc/cpuinfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    Ok(line
        .map_or("?", |line| line.trim_start_matches([' ', '\t', ':']))
        .to_owned())
}
