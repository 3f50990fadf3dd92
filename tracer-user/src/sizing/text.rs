//! Breakdowns as tables, for every command that prints one.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::breakdown::{Breakdown, Part, PartSum};
use super::quantity::Quantity;
use super::spec::{Basis, Budgeted, Shape};
use crate::escape;
use crate::units::{Bytes, SignedBytes};

/// Everything, each line behind a space.
#[must_use]
pub fn render(budgeted: &Budgeted) -> String {
    let budget = &budgeted.breakdown;
    format!(
        "{}\n{}\nIn three parts\n{}{}\n",
        title(&budgeted.shape),
        indented(&lines(budget)),
        indented(&parts(budget)),
        sentence(budget)
    )
}

fn indented(table: &Table) -> String {
    table
        .lines()
        .fold(String::new(), |text, line| format!("{text} {}\n", line.trim_end()))
}

/// QEMU as a whole stands against what is budgeted for its threads as well.
#[must_use]
pub fn part_name(budget: &Breakdown, part: Part) -> &'static str {
    let is_cpu = |sum: &PartSum| sum.part == Part::Cpu;
    match part {
        Part::Devices if !budget.parts.iter().any(is_cpu) => "CPU and threads, devices and helpers",
        part => part.as_str(),
    }
}

/// Which parts were exceeded.
#[must_use]
pub fn sentence(budget: &Breakdown) -> String {
    let exceeded: Vec<String> = budget
        .parts
        .iter()
        .filter(|part| part.exceeded_by > 0)
        .map(|part| format!("{} by {}", part_name(budget, part.part), Bytes(part.exceeded_by)))
        .collect();
    let over = budget
        .taken
        .and_then(|taken| taken.checked_sub(budget.budgeted))
        .filter(|over| *over > 0);
    let parts = match (exceeded.is_empty(), over) {
        (true, Some(over)) => {
            return format!(
                "No part by itself was exceeded, but the budget as a whole by {}",
                Bytes(over)
            );
        }
        (true, None) => "No part was exceeded".to_owned(),
        (false, _) => format!("Exceeded: {}", exceeded.join("; ")),
    };
    match (over, budget.taken) {
        (Some(over), _) => format!("{parts}; the budget as a whole by {}", Bytes(over)),
        // The kernel enforces whole pages.
        (None, Some(taken)) if budget.budgeted - taken < 4096 => format!("{parts}; all of the budget was taken"),
        (None, Some(taken)) => {
            format!(
                "{parts}; {} of the budget as a whole was left",
                Bytes(budget.budgeted - taken)
            )
        }
        (None, None) => parts,
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

/// What a table of a breakdown is called.
#[must_use]
pub fn title(shape: &Shape) -> String {
    let basis = match shape.basis {
        Basis::Given => "as in the manifest",
        Basis::Matched => "which has exactly this limit",
        Basis::Assumed => "assumed: no usual VM has this limit",
    };
    let product = shape.harvester.as_ref().map_or_else(
        || format!("KubeVirt {}", shape.kubevirt),
        |harvester| format!("Harvester {harvester} (KubeVirt {})", shape.kubevirt),
    );
    let memory = shape
        .memory
        .map_or_else(String::new, |bytes| format!("{} of memory, ", Quantity::bytes(bytes)));
    let ratio = shape
        .ratio
        .map_or_else(|| "no ratio".to_owned(), |ratio| format!("ratio {ratio}"));
    let reserved = shape
        .reserved
        .map_or_else(String::new, |bytes| format!(", {} reserved", Quantity::bytes(bytes)));
    format!(
        "Budgeted against taken: {product}, {memory}{} vCPU(s), {ratio}{reserved}, {basis}",
        shape.vcpus
    )
}

/// What was taken, and whether it is more than budgeted.
fn exceeded(taken: Option<u64>, budgeted: u64) -> String {
    match taken {
        Some(taken) if taken > budgeted => format!("{} more", Bytes(taken - budgeted)),
        _ => String::new(),
    }
}

fn or_dash(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| Bytes(bytes).to_string())
}

/// What the difference between the terms and the whole is called, where there is one.
#[must_use]
pub const fn rest_name(budget: &Breakdown) -> Option<&'static str> {
    match budget.not_told_apart {
        0 => None,
        1.. => Some("not told apart"),
        _ => Some("at other times, or charged to others"),
    }
}

/// Term by term.
#[must_use]
pub fn lines(budget: &Breakdown) -> Table {
    let mut table = table(&["term", "part", "budgeted", "taken", "exceeded"], &[2, 3, 4]);
    for line in &budget.lines {
        table.add_row([
            Cell::new(escape::terminal(&line.name)),
            Cell::new(line.part.as_str()),
            Cell::new(Bytes(line.budgeted)),
            Cell::new(or_dash(line.taken)),
            Cell::new(exceeded(line.taken, line.budgeted)),
        ]);
    }
    if let Some(rest) = rest_name(budget) {
        table.add_row([
            Cell::new(rest),
            Cell::new(""),
            Cell::new(""),
            Cell::new(SignedBytes(budget.not_told_apart)),
            Cell::new(""),
        ]);
    }
    table.add_row([
        Cell::new("overhead"),
        Cell::new(""),
        Cell::new(Bytes(budget.budgeted)),
        Cell::new(or_dash(budget.taken)),
        Cell::new(exceeded(budget.taken, budget.budgeted)),
    ]);
    table
}

/// Part by part.
#[must_use]
pub fn parts(budget: &Breakdown) -> Table {
    let mut table = table(&["part", "budgeted", "taken", "exceeded"], &[1, 2, 3]);
    for part in &budget.parts {
        let taken = if part.part == Part::Reserve { None } else { part.taken };
        table.add_row([
            Cell::new(part_name(budget, part.part)),
            Cell::new(Bytes(part.budgeted)),
            Cell::new(or_dash(taken)),
            Cell::new(exceeded(part.taken, part.budgeted)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::breakdown::{Consumer, Taken};
    use super::super::spec::{Known, budgeted};
    use super::super::{GIB, MIB};
    use super::*;

    #[test]
    fn the_parts_that_were_exceeded_are_named() {
        let mut taken = Taken {
            total: Some(300 * MIB),
            ..Taken::default()
        };
        taken.add(Consumer::Kernel, 90 * MIB);
        taken.add(Consumer::Process("\u{1b}[2J".to_owned()), 10 * MIB);
        // The limit of KubeVirt 0.54 for 16 GiB and 2 vCPUs.
        let budgeted = budgeted(&Known::default(), 16 * GIB, Some(17_024_340 << 10), None, &taken).unwrap();
        assert_eq!(budgeted.shape.basis, Basis::Matched);
        let text = render(&budgeted);
        assert!(text.contains("Exceeded: memory management by "), "{text}");
        assert!(text.contains("the budget as a whole by "), "{text}");
        assert!(text.contains("not told apart") && !text.contains('\u{1b}'), "{text}");
    }
}
