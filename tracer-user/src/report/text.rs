//! A report as text: the verdict first, then the tables it rests on.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, Table, presets};

use super::verdict::verdict;
use super::{PodReport, Report, foreseen, words};
use crate::escape;
use crate::sizing;
use crate::units::{Bytes, SignedBytes};

/// Threads and files listed; the rest is added up.
const TOP: usize = 20;

/// Code paths listed, and how many callers of each.
const PATHS: usize = 10;
const CALLERS: usize = 3;

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

pub(super) fn render_pod(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    let style = match (&pod.culprit, pod.oom.is_empty()) {
        (Some(_), false) => Style::new().bold().fg_color(Some(AnsiColor::Red.into())),
        (Some(_), true) => Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())),
        (None, _) => Style::new().bold(),
    };
    writeln!(out, "{}: {style}{}{style:#}", words::name(pod), verdict(pod))?;
    writeln!(out)?;
    summary(pod, out)?;
    roles(pod, out)?;
    threads(pod, out)?;
    code_paths(pod, out)?;
    files(pod, out)?;
    if let Some(budgeted) = &pod.budgeted {
        writeln!(out)?;
        write!(out, "{}", sizing::text::render(budgeted))?;
    }
    paragraph(&words::marks(pod), out)?;
    paragraph(&foreseen::sentences(pod), out)?;
    paragraph(words::stalls(pod).as_slice(), out)?;
    paragraph(&words::reconciliation(pod), out)
}

fn paragraph(sentences: &[String], out: &mut impl Write) -> io::Result<()> {
    if !sentences.is_empty() {
        writeln!(out)?;
    }
    sentences.iter().try_for_each(|sentence| writeln!(out, "{sentence}"))
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
    let mut table = table(&columns(
        pod,
        &[
            "role",
            "threads",
            "overhead growth",
            "live",
            "charged",
            "given back",
            "kinds",
        ],
    ));
    for role in &pod.by_role {
        let mut row = vec![
            escape::terminal(&role.role.to_string()).into_owned(),
            role.threads.to_string(),
            SignedBytes(role.overhead_growth).to_string(),
        ];
        row.extend(role.live.map(|live| Bytes(live).to_string()));
        row.extend([
            SignedBytes(role.charged).to_string(),
            Bytes(role.uncharged).to_string(),
            words::kinds(&role.kinds),
        ]);
        table.add_row(row);
    }
    section("By role", &table, out)
}

fn code_paths(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&["charged", "role", "function", "called by"]);
    let paths = pod.by_code_path.iter().flat_map(|paths| &paths.paths);
    for path in paths.take(PATHS) {
        let callers = path
            .user
            .iter()
            .skip(1)
            .take(CALLERS)
            .map(|name| escape::terminal(name));
        table.add_row([
            Bytes(path.charged).to_string(),
            escape::terminal(&path.role.to_string()).into_owned(),
            escape::terminal(path.function().unwrap_or("not known")).into_owned(),
            callers.collect::<Vec<_>>().join(" < "),
        ]);
    }
    section("Charged by code path", &table, out)
}

fn threads(pod: &PodReport, out: &mut impl Write) -> io::Result<()> {
    let all = [
        "tid",
        "thread",
        "process",
        "role",
        "overhead growth",
        "live",
        "guest RAM",
        "kinds",
    ];
    let mut table = table(&columns(pod, &all));
    for thread in pod.by_thread.iter().take(TOP) {
        let mut row = vec![
            thread.tid.map_or_else(|| "-".to_owned(), |tid| tid.to_string()),
            escape::terminal(&thread.comm).into_owned(),
            escape::terminal(&thread.process).into_owned(),
            escape::terminal(&thread.role.to_string()).into_owned(),
            SignedBytes(thread.overhead_growth).to_string(),
        ];
        row.extend(thread.live.map(|live| Bytes(live).to_string()));
        row.extend([Bytes(thread.guest_charged).to_string(), words::kinds(&thread.kinds)]);
        table.add_row(row);
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
        let mut row = vec![
            String::new(),
            format!("{count} others"),
            String::new(),
            String::new(),
            SignedBytes(growth).to_string(),
        ];
        if pod.live.is_some() {
            let live = others.iter().filter_map(|other| other.live);
            row.push(Bytes(live.fold(0, u64::saturating_add)).to_string());
        }
        row.extend([Bytes(guest).to_string(), String::new()]);
        table.add_row(row);
    }
    section("By thread", &table, out)
}

/// The columns, without what is not known.
fn columns<'a>(pod: &PodReport, all: &[&'a str]) -> Vec<&'a str> {
    let shown = |column: &&str| *column != "live" || pod.live.is_some();
    all.iter().copied().filter(shown).collect()
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

pub(super) fn render_recording(report: &Report, out: &mut impl Write) -> io::Result<()> {
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
    words::losses(report)
        .iter()
        .chain(&words::state(report))
        .try_for_each(|sentence| writeln!(out, "{sentence}"))
}

pub(super) fn table(header: &[&str]) -> Table {
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
            "live",
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

pub(super) fn section(title: &str, table: &Table, out: &mut impl Write) -> io::Result<()> {
    if table.row_count() == 0 {
        return Ok(());
    }
    writeln!(out)?;
    writeln!(out, "{title}")?;
    print(table, out)
}

pub(super) fn print(table: &Table, out: &mut impl Write) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    Ok(())
}
