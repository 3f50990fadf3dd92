//! Sizes as tables.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::Sized;
use crate::sizing::budget::as_enforced;
use crate::sizing::fit::Fit;
use crate::sizing::matrix::Row;
use crate::sizing::quantity::Quantity;
use crate::sizing::version::KubeVirt;
use crate::sizing::vm::Vm;
use crate::units::Bytes;

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn lines(table: &Table) -> String {
    table
        .lines()
        .fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// Hundredths of a MiB, as the products' documentation counts.
fn mib(bytes: u64) -> String {
    let hundredths = (u128::from(bytes) * 100 + (1 << 19)) >> 20;
    format!("{}.{:02} MiB", hundredths / 100, hundredths % 100)
}

/// Every VM with its terms.
pub(super) fn sized(vms: &[Sized]) -> String {
    vms.iter().map(one).collect::<Vec<_>>().join("\n")
}

fn one(sized: &Sized) -> String {
    let mut head = format!("KubeVirt {}", sized.kubevirt);
    if let Some(harvester) = &sized.harvester {
        head = format!("Harvester {harvester}, {head}");
    }
    if !sized.name.is_empty() {
        head = format!("{}: {head}", sized.name);
    }
    let mut text = format!("{head}, {} vCPU(s), ratio {}\n\n", sized.vm.vcpus.max(1), sized.ratio);
    let budget = &sized.budget;
    let mut terms = table(&["TERM", "SIZE", "BYTES", "WHY"]);
    for term in &budget.overhead.terms {
        terms.add_row([
            Cell::new(term.name),
            right(mib(term.bytes)),
            right(term.bytes),
            Cell::new(&term.why),
        ]);
    }
    terms.add_row([
        Cell::new("overhead"),
        right(mib(budget.overhead.bytes)),
        right(budget.overhead.bytes),
        Cell::new("their sum"),
    ]);
    text += &lines(&terms);
    text.push('\n');
    text += &lines(&limits(sized));
    text
}

fn limits(sized: &Sized) -> Table {
    let budget = &sized.budget;
    let mut rows = table(&["", "SIZE", "BYTES", "WHY"]);
    let mut row = |name: &str, bytes: u64, why: &str| {
        rows.add_row([Cell::new(name), right(mib(bytes)), right(bytes), Cell::new(why)]);
    };
    row("guest memory", budget.guest, "what the guest sees");
    if sized.reserved > 0 {
        row("reserved memory", sized.reserved, "Harvester keeps it from the guest");
    }
    if let Some(request) = sized.vm.request {
        row("memory request", request, "what the page tables are sized by");
    }
    match budget.container_limit {
        Some(limit) => {
            let kernel = format!(
                "Kubernetes: {}; the kernel: {}kB",
                Quantity::bytes(limit),
                as_enforced(limit) / 1024
            );
            row("compute limit", limit, &kernel);
        }
        None => row("compute limit", 0, "none: the VM has no memory limit"),
    }
    for (name, bytes) in &budget.other_containers {
        row(name, *bytes, "raises the pod's limit, not compute's");
    }
    if let Some(pod) = budget.pod_limit {
        row("pod limit", pod, &format!("the kernel: {}kB", as_enforced(pod) / 1024));
    }
    if let Some(total) = budget.total {
        let why = if sized.vm.hugepages {
            "compute limit: guest RAM is in hugepages"
        } else {
            "compute limit - guest memory"
        };
        row("total overhead", total, why);
    }
    rows
}

/// The six rows.
pub(super) fn matrix(vm: &Vm, kubevirt: KubeVirt, rows: &[Row]) -> String {
    let mut text = String::new();
    let memory = Bytes(vm.limit.unwrap_or(0));
    writeln!(
        text,
        "VM memory {memory}, {} vCPU(s), KubeVirt {}\n",
        vm.vcpus, kubevirt.0
    )
    .ok();
    let mut table = table(&[
        "RESERVED",
        "RATIO",
        "GUEST",
        "POD LIMIT",
        "TOTAL",
        "EXACT POD LIMIT",
        "EXACT TOTAL",
        "TOTAL BYTES",
    ]);
    for row in rows {
        table.add_row([
            right(
                row.reserved
                    .map_or_else(|| "-".to_owned(), |bytes| Quantity::bytes(bytes).to_string()),
            ),
            right(row.ratio),
            right(Quantity::bytes(row.guest)),
            right(format!("~{}Mi", row.rounded_limit)),
            right(format!("~{}Mi", row.rounded_total)),
            right(mib(row.limit)),
            right(mib(row.total)),
            right(row.total),
        ]);
    }
    text += &lines(&table);
    text += "\nPOD LIMIT is the compute container's, as in the documentation; other containers come on top.\n";
    text
}

/// What explains a limit.
pub(super) fn fits(limit: u64, shown: &[Fit], found: usize) -> String {
    if shown.is_empty() {
        return format!(
            "{limit} bytes: no usual VM has this limit. Devices, probes and other ratios are not tried; compare with \
             headroom size\n"
        );
    }
    let mut text = format!(
        "{limit} bytes ({}kB for the kernel): shapes found: {found}, the most usual first\n\n",
        as_enforced(limit) / 1024
    );
    let mut table = table(&[
        "FIRST KUBEVIRT",
        "MEMORY",
        "REQUEST",
        "OVERCOMMIT",
        "VCPUS",
        "RATIO",
        "LIMIT OF",
    ]);
    for fit in shown {
        table.add_row([
            Cell::new(&fit.kubevirt),
            right(Quantity::bytes(fit.memory)),
            right(Quantity::bytes(fit.request)),
            right(format!("{}%", fit.overcommit)),
            right(fit.vcpus),
            right(fit.ratio),
            Cell::new(fit.scope),
        ]);
    }
    text += &lines(&table);
    text
}
