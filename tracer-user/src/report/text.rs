//! A report as text: the verdict first, then the tables it rests on.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};

use super::verdict::{duration, verdict};
use super::{PodReport, Report};
use crate::escape;
use crate::units::{Bytes, SignedBytes};

/// Threads and files listed; the rest is added up.
const TOP: usize = 20;

/// Writes a report. Colours are written as escape sequences: `out` strips them where they are not wanted.
///
/// # Errors
/// When `out` fails.
pub fn render(report: &Report, out: &mut impl Write) -> io::Result<()> {
    if report.pods.is_empty() {
        writeln!(out, "no VM pod was seen")?;
    }
    for pod in &report.pods {
        render_pod(pod, out)?;
        writeln!(out)?;
    }
    render_recording(report, out)
}

fn render_pod(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    let style = match (&pod.culprit, pod.oom.is_empty()) {
        (Some(_), false) => Style::new().bold().fg_color(Some(AnsiColor::Red.into())),
        (Some(_), true) => Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())),
        (None, _) => Style::new().bold(),
    };
    writeln!(out, "{}: {style}{}{style:#}", name(pod), verdict(pod))?;
    writeln!(out)?;
    summary(pod, out)?;
    roles(pod, out)?;
    threads(pod, out)?;
    files(pod, out)?;
    stalls(pod, out)?;
    reconciliation(pod, out)
}

fn name(pod: &PodReport) -> String {
    let name = match (pod.namespace.as_str(), pod.vm.as_str()) {
        ("", "") => pod.cgroup.clone(),
        ("", vm) => vm.to_owned(),
        (namespace, vm) => format!("{namespace}/{vm}"),
    };
    escape::terminal(&name).into_owned()
}

fn summary(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&["", "start", "end", "peak"]);
    let or_unknown = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string());
    let usage = &pod.usage;
    table.add_row([
        "usage".to_owned(),
        Bytes(usage.start).to_string(),
        Bytes(usage.end).to_string(),
        Bytes(usage.peak).to_string(),
    ]);
    table.add_row([
        "guest RAM".to_owned(),
        or_unknown(pod.guest_resident.start),
        or_unknown(pod.guest_resident.end),
        String::new(),
    ]);
    table.add_row([
        "overhead".to_owned(),
        SignedBytes(pod.overhead.start).to_string(),
        SignedBytes(pod.overhead.end).to_string(),
        Bytes(pod.overhead.peak).to_string(),
    ]);
    print(&table, out)?;
    let limit = pod
        .limit
        .map_or_else(|| "none".to_owned(), |limit| Bytes(limit).to_string());
    let budget = pod
        .budget
        .map_or_else(|| "none".to_owned(), |budget| SignedBytes(budget).to_string());
    writeln!(
        out,
        "  limit {limit}, guest RAM size {}, budget for overhead {budget}, least headroom {}",
        Bytes(pod.guest_ram),
        or_unknown(pod.headroom_min),
    )?;
    for oom in &pod.oom {
        writeln!(
            out,
            "  killed {} (pid {}) at {}: {} of {} in {}",
            escape::terminal(&oom.victim.comm),
            oom.victim.pid,
            oom.at,
            Bytes(oom.usage),
            Bytes(oom.limit),
            escape::terminal(&oom.oom_memcg),
        )?;
    }
    Ok(())
}

fn roles(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&["role", "threads", "overhead growth", "charged", "given back", "kinds"]);
    for role in &pod.by_role {
        table.add_row([
            escape::terminal(&role.role.to_string()).into_owned(),
            role.threads.to_string(),
            SignedBytes(role.overhead_growth).to_string(),
            SignedBytes(role.charged).to_string(),
            Bytes(role.uncharged).to_string(),
            kinds(&role.kinds),
        ]);
    }
    section("By role", &table, out)
}

fn threads(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&[
        "tid",
        "thread",
        "process",
        "role",
        "overhead growth",
        "guest RAM",
        "kinds",
    ]);
    for thread in pod.by_thread.iter().take(TOP) {
        table.add_row([
            thread.tid.map_or_else(|| "-".to_owned(), |tid| tid.to_string()),
            escape::terminal(&thread.comm).into_owned(),
            escape::terminal(&thread.process).into_owned(),
            escape::terminal(&thread.role.to_string()).into_owned(),
            SignedBytes(thread.overhead_growth).to_string(),
            Bytes(thread.guest_charged).to_string(),
            kinds(&thread.kinds),
        ]);
    }
    let others = pod.by_thread.get(TOP..).unwrap_or_default();
    if !others.is_empty() {
        let growth = others
            .iter()
            .fold(0, |sum: i64, other| sum.saturating_add(other.overhead_growth));
        let guest = others
            .iter()
            .fold(0, |sum: u64, other| sum.saturating_add(other.guest_charged));
        let count: u64 = others.iter().map(|other| other.threads).sum();
        table.add_row([
            String::new(),
            format!("{count} others"),
            String::new(),
            String::new(),
            SignedBytes(growth).to_string(),
            Bytes(guest).to_string(),
            String::new(),
        ]);
    }
    section("By thread", &table, out)
}

fn files(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&["added", "file"]);
    for file in pod.files.iter().take(TOP) {
        let name = file
            .path
            .clone()
            .unwrap_or_else(|| format!("inode {} on {}", file.inode, file.device));
        table.add_row([Bytes(file.bytes).to_string(), escape::terminal(&name).into_owned()]);
    }
    section("Page cache by file", &table, out)
}

fn stalls(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "displayed to a digit")]
    let milliseconds = |ns: u64| format!("{:.1} ms", ns as f64 / 1e6);
    let stalls = &pod.stalls;
    if stalls.duration_ns.count == 0 {
        return Ok(());
    }
    #[expect(clippy::cast_precision_loss, reason = "displayed to a digit")]
    let total = duration(stalls.total_ns as f64 / 1e9);
    writeln!(out)?;
    writeln!(
        out,
        "Reclaim before charges: {} times, {total} in all, half below {}, longest {}",
        stalls.duration_ns.count,
        milliseconds(stalls.duration_ns.p50),
        milliseconds(stalls.duration_ns.max),
    )
}

fn reconciliation(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    writeln!(
        out,
        "Unexplained: {} of growth (tolerance {}, worst at any sample {})",
        SignedBytes(pod.unexplained),
        Bytes(pod.tolerance),
        SignedBytes(pod.unexplained_worst),
    )?;
    if pod.region_unknown != 0 {
        writeln!(
            out,
            "Guest RAM or overhead, unknown which: {} (counted as overhead)",
            SignedBytes(pod.region_unknown)
        )?;
    }
    if pod.placed_by_smaps != 0 {
        writeln!(
            out,
            "Guest RAM known from smaps alone: {} (split over threads by estimate)",
            SignedBytes(pod.placed_by_smaps)
        )?;
    }
    if pod.reclassified != 0 {
        writeln!(
            out,
            "Guest RAM touched before its place was known: {} (taken from QEMU's overhead by estimate)",
            SignedBytes(pod.reclassified)
        )?;
    }
    Ok(())
}

fn render_recording(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let node = &report.node;
    writeln!(
        out,
        "Recorded on {} (Linux {}, cgroup {}, {} CPUs) from {} to {}",
        escape::terminal(&node.host),
        escape::terminal(&node.kernel),
        escape::terminal(&node.cgroup),
        node.cpus,
        report.window.start,
        report.window.end,
    )?;
    let backends: Vec<String> = report
        .backends
        .iter()
        .map(|(probe, backend)| format!("{probe} {backend}"))
        .collect();
    writeln!(out, "Probes: {}", escape::terminal(&backends.join(", ")))?;
    losses(report, out)?;
    let recording = &report.recording;
    match recording.state {
        "incomplete" => writeln!(
            out,
            "Incomplete: the recording has no end (its recorder was killed or still runs); up to a last second is missing"
        )?,
        "damaged" => writeln!(
            out,
            "Damaged: {} stretches, {} could not be read; sums lack what was in them",
            recording.damaged_stretches,
            Bytes(recording.damaged_bytes),
        )?,
        _ => {}
    }
    if recording.skipped_lines > 0 {
        writeln!(
            out,
            "Skipped: {} lines that this version does not know",
            recording.skipped_lines
        )?;
    }
    Ok(())
}

fn losses(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let loss = &report.loss.counted;
    if loss.ring_full > 0 {
        writeln!(
            out,
            "Delay: the ring buffer was full {} times, bytes waited up to {} ms; none were lost for it",
            loss.ring_full,
            loss.max_delay_ns / 1_000_000,
        )?;
    }
    if loss.accounts_full > 0 || loss.lost_bytes > 0 || loss.events_dropped > 0 || loss.files_full > 0 {
        writeln!(
            out,
            "Lost: {} without an account, {} events, {} charges without a thread, {} pages of unknown files",
            Bytes(loss.lost_bytes),
            loss.events_dropped,
            loss.accounts_full,
            loss.files_full,
        )?;
    }
    if loss.missed_runs > 0 {
        writeln!(
            out,
            "Missed: {} runs of programs, left out by the kernel; their bytes are in \"unexplained\"",
            loss.missed_runs,
        )?;
    }
    if let Some(count) = report.loss.disagreements.filter(|count| *count > 0) {
        writeln!(
            out,
            "Disagreement: {count} sums of records differ from the kernel's maps"
        )?;
    }
    Ok(())
}

/// Kinds by size, the largest three.
fn kinds(kinds: &BTreeMap<&'static str, i64>) -> String {
    let mut sorted: Vec<_> = kinds.iter().collect();
    sorted.sort_by_key(|(_, bytes)| std::cmp::Reverse(bytes.unsigned_abs()));
    let shown: Vec<String> = sorted
        .into_iter()
        .take(3)
        .map(|(kind, bytes)| format!("{kind} {}", SignedBytes(*bytes)))
        .collect();
    shown.join(", ")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for (index, name) in header.iter().enumerate() {
        let sizes = [
            "start",
            "end",
            "peak",
            "threads",
            "overhead growth",
            "charged",
            "given back",
            "guest RAM",
            "added",
        ];
        if sizes.contains(name)
            && let Some(column) = table.column_mut(index)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn section(title: &str, table: &Table, out: &mut impl Write) -> io::Result<()> {
    if table.row_count() == 0 {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(out, "{title}")?;
    print(table, out)
}

fn print(table: &Table, out: &mut impl Write) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    Ok(())
}
