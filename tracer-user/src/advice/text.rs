//! Advice as text: what to do first, then what it rests on.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, CellAlignment, Table, presets};

use super::verdict::who;
use super::{Advice, Holding, NeedReport, Outcome};
use crate::escape;
use crate::sizing::text::{lines, parts, sentence, title};
use crate::units::{Bytes, SignedBytes};

/// Roles listed.
const TOP: usize = 12;

/// Writes advice. Colours are written as escape sequences: `out` strips them where they are not wanted.
///
/// # Errors
/// When `out` fails.
pub fn render(advice: &Advice, out: &mut impl Write) -> io::Result<()> {
    let style = match advice.outcome {
        Outcome::NoReserveWillDo => Style::new().bold().fg_color(Some(AnsiColor::Red.into())),
        Outcome::StillGrowing => Style::new().bold().fg_color(Some(AnsiColor::Yellow.into())),
        _ => Style::new().bold(),
    };
    writeln!(out, "{}: {style}{}{style:#}", name(advice), advice.verdict)?;
    recordings(advice, out)?;
    if let Some(need) = &advice.need {
        needed(need, out)?;
    }
    roles(advice, out)?;
    if let Some(budget) = &advice.budget {
        let title = advice.shape.as_ref().map_or_else(String::new, title);
        section(&title, &lines(budget), out)?;
        if !advice.kernel.is_empty() {
            let kinds = advice.kernel.iter();
            let kinds: Vec<String> = kinds.map(|(kind, bytes)| format!("{kind} {}", Bytes(*bytes))).collect();
            let kinds = kinds.join(", ");
            writeln!(
                out,
                "  page tables are held against all kernel memory, at its peak: {kinds}"
            )?;
        }
        section("In three parts", &parts(budget), out)?;
        writeln!(out, " {}", sentence(budget))?;
    }
    reserves(advice, out)?;
    if let Some(workload) = &advice.workload {
        writeln!(out, "\nWorkload: {}", workload.class.as_str())?;
        for evidence in &workload.evidence {
            writeln!(out, "  {evidence}")?;
        }
        if advice.outcome == Outcome::NoReserveWillDo {
            writeln!(out, "  Checklist: mend the growth first; then {}", workload.action)?;
        } else {
            writeln!(out, "  Checklist: {}", workload.action)?;
        }
    }
    for snippet in &advice.snippets {
        writeln!(out, "\n# {}", snippet.changes)?;
        if let Some(note) = snippet.note {
            writeln!(out, "# {note}")?;
        }
        writeln!(out, "{}", snippet.command)?;
    }
    if !advice.notes.is_empty() {
        writeln!(out)?;
    }
    advice
        .notes
        .iter()
        .try_for_each(|note| writeln!(out, "Note: {}", escape::terminal(note)))
}

fn name(advice: &Advice) -> String {
    let name = match (advice.namespace.as_str(), advice.vm.as_str()) {
        ("", "") => advice.cgroup.clone(),
        ("", vm) => vm.to_owned(),
        (namespace, vm) => format!("{namespace}/{vm}"),
    };
    escape::terminal(&name).into_owned()
}

fn recordings(advice: &Advice, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(
        &["recording", "from", "seconds", "limit", "overhead peak", "end"],
        &[2, 3, 4],
    );
    for recording in &advice.recordings {
        let end = match (recording.missing.is_empty(), recording.outcome) {
            (false, _) => recording.missing.join("; "),
            (_, Outcome::NoReserveWillDo) => "killed, still growing".to_owned(),
            (_, Outcome::StillGrowing) => "still growing".to_owned(),
            (_, _) if recording.killed => "killed, levelled off before".to_owned(),
            (_, _) => "levelled off".to_owned(),
        };
        table.add_row([
            Cell::new(escape::terminal(&recording.file)),
            Cell::new(&recording.start),
            Cell::new(format!("{:.0}", recording.seconds)),
            Cell::new(
                recording
                    .limit
                    .map_or_else(|| "none".to_owned(), |limit| Bytes(limit).to_string()),
            ),
            Cell::new(Bytes(recording.overhead_peak)),
            Cell::new(end),
        ]);
    }
    writeln!(out)?;
    print(&table, out)
}

fn needed(need: &NeedReport, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&["", "size", ""], &[1]);
    let mut row = |name: &str, bytes: u64, why: String| {
        table.add_row([Cell::new(name), Cell::new(Bytes(bytes)), Cell::new(why)]);
    };
    row("guest RAM", need.guest_ram, "the guest may touch all of it".to_owned());
    row(
        "overhead",
        need.overhead_peak,
        format!(
            "its peak, {} at the start, +/- {}; without page cache that the kernel can take back",
            Bytes(need.overhead_start),
            Bytes(need.uncertainty)
        ),
    );
    row(
        "page tables",
        need.page_tables_to_come,
        "of guest RAM that the guest has yet to touch".to_owned(),
    );
    if let (Some(minimum), Some(advised)) = (need.minimum_limit, need.advised_limit) {
        row("minimum", minimum, "the least limit that holds these".to_owned());
        let why = format!("with {}% on all but guest RAM", need.margin_percent);
        row("advised", advised, why);
    }
    section("Needed", &table, out)
}

fn roles(advice: &Advice, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(
        &["who", "at attach", "grew", "peak", "between", "levelled off"],
        &[1, 2, 3],
    );
    let noise = advice.need.as_ref().map_or(0, |need| need.uncertainty);
    for role in advice.by_role.iter().take(TOP) {
        let between = match role.high {
            Some(high) if high == role.low => "exact".to_owned(),
            Some(high) => format!("{} and {}", Bytes(role.low), Bytes(high)),
            None => format!("at least {}", Bytes(role.low)),
        };
        table.add_row([
            Cell::new(who(&role.role, &role.process)),
            Cell::new(
                role.at_attach
                    .map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string()),
            ),
            Cell::new(Bytes(role.growth)),
            Cell::new(Bytes(role.peak)),
            Cell::new(between),
            Cell::new(match role.plateau {
                _ if role.growth <= noise => "-",
                true => "yes",
                false => "no",
            }),
        ]);
    }
    section("Who held it", &table, out)?;
    let others = advice.by_role.len().saturating_sub(TOP);
    if others > 0 {
        writeln!(out, "  and {others} smaller ones")?;
    }
    Ok(())
}

fn reserves(advice: &Advice, out: &mut impl Write) -> io::Result<()> {
    let Some(reserves) = &advice.reserves else {
        return Ok(());
    };
    let mut table = table(&["reserve", "smallest", "guest gets", "limit", "costs"], &[1, 2, 3]);
    for (name, key, found) in [
        ("ratio", "ratio", &reserves.ratio),
        ("Reserved Memory", "reserved_memory", &reserves.reserved_memory),
        (
            "KubeVirt's reservedOverhead",
            "reserved_overhead",
            &reserves.reserved_overhead,
        ),
    ] {
        match found {
            Some(found) => table.add_row([
                Cell::new(name),
                Cell::new(&found.value),
                Cell::new(Bytes(found.guest)),
                Cell::new(Bytes(found.limit)),
                Cell::new(costs(key, found)),
            ]),
            None => table.add_row([
                Cell::new(name),
                Cell::new("none"),
                Cell::new(""),
                Cell::new(""),
                Cell::new(reserves.why_not.get(key).map_or("", String::as_str)),
            ]),
        };
    }
    section(
        "Reserves that would have held with the margin, each by itself",
        &table,
        out,
    )
}

fn costs(key: &str, found: &Holding) -> String {
    let every = if key == "ratio" {
        ", and as much for every like VM of the cluster"
    } else {
        ""
    };
    let node = match found.costs_node {
        0 => String::new(),
        bytes if bytes > 0 => format!("the node {}{every}", SignedBytes(bytes)),
        bytes => format!(
            "nothing: the node gets {} back{every}",
            SignedBytes(bytes.saturating_neg())
        ),
    };
    let guest = match found.costs_guest {
        0 => String::new(),
        bytes if bytes > 0 => format!("the guest {}", SignedBytes(bytes)),
        bytes => format!("the guest gets {} more", SignedBytes(bytes.saturating_neg())),
    };
    match (node.is_empty(), guest.is_empty()) {
        (true, true) => "nothing".to_owned(),
        (true, false) => guest,
        (false, true) => node,
        (false, false) => format!("{node}; {guest}"),
    }
}

fn table(header: &[&str], right: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn section(title: &str, table: &Table, out: &mut impl Write) -> io::Result<()> {
    if table.row_count() == 0 {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    print(table, out)
}

fn print(table: &Table, out: &mut impl Write) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    Ok(())
}
