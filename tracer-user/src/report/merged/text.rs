//! Several recordings as text: what they say together, then what each says.

use std::io::{self, Write};

use super::{Merged, Vm};
use crate::escape;
use crate::report::text::{print, render_pod, render_recording, section, table};
use crate::report::words;
use crate::units::{Bytes, SignedBytes};

/// Writes it. Colours are written as escape sequences: `out` strips them where they are not wanted.
///
/// # Errors
/// When `out` fails.
pub fn render(merged: &Merged, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", headline(merged))?;
    writeln!(out)?;
    vms(merged, out)?;
    kills(merged, out)?;
    for vm in merged.vms.iter().filter(|vm| vm.stays.len() > 1) {
        roles(merged, vm, out)?;
    }
    for stay in merged.vms.iter().flat_map(|vm| &vm.stays) {
        let Some((report, pod)) = merged.pod(stay.recording, stay.pod) else {
            continue;
        };
        writeln!(out, "\n── on {} ──", escape::terminal(&report.node.host))?;
        render_pod(pod, out)?;
    }
    for report in &merged.recordings {
        writeln!(out)?;
        render_recording(report, out)?;
    }
    Ok(())
}

/// `3 recordings of 2 nodes (a, b), 2026-01-31T... to 2026-01-31T...: 5 VMs, 1 kill`.
pub(in crate::report) fn headline(merged: &Merged) -> String {
    let nodes: Vec<_> = merged.nodes.iter().map(|node| escape::terminal(node)).collect();
    format!(
        "{} of {} ({}), {} to {}: {}, {}",
        words::count(merged.recordings.len(), "recording"),
        words::count(nodes.len(), "node"),
        nodes.join(", "),
        merged.window.start,
        merged.window.end,
        words::count(merged.vms.len(), "VM"),
        words::count(merged.kills.len(), "kill"),
    )
}

fn vms(merged: &Merged, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&["VM", "node", "from", "to", "least headroom", "overhead growth", "kills"]);
    for vm in &merged.vms {
        let mut name = vm_name(merged, vm);
        for stay in &vm.stays {
            let (from, to) = match &stay.window {
                Some(window) => (words::moment(&window.start), words::moment(&window.end)),
                None => ("no sample".to_owned(), String::new()),
            };
            let counted = if stay.counted { "" } else { " (not added)" };
            let least = stay.headroom_min;
            table.add_row([
                std::mem::take(&mut name),
                escape::terminal(&stay.host).into_owned(),
                from,
                to,
                least.map_or_else(|| "unknown".to_owned(), |bytes| Bytes(bytes).to_string()),
                format!("{}{counted}", SignedBytes(stay.overhead_growth)),
                stay.kills.to_string(),
            ]);
        }
    }
    print(&table, out)
}

fn kills(merged: &Merged, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&["at", "node", "VM", "killed", "invoked by"]);
    for kill in &merged.kills {
        let Some((report, pod)) = merged.pod(kill.recording, kill.pod) else {
            continue;
        };
        let Some(oom) = pod.oom.get(kill.oom) else { continue };
        table.add_row([
            words::moment(&kill.at),
            escape::terminal(&report.node.host).into_owned(),
            words::name(pod),
            escape::terminal(&oom.victim.comm).into_owned(),
            words::invoker(oom),
        ]);
    }
    section("Kills", &table, out)
}

/// What the roles of a VM add up to over all its recordings.
fn roles(merged: &Merged, vm: &Vm, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&["role", "overhead growth", "kinds"]);
    for role in &vm.by_role {
        table.add_row([
            escape::terminal(&role.role.to_string()).into_owned(),
            SignedBytes(role.overhead_growth).to_string(),
            words::kinds(&role.kinds),
        ]);
    }
    let title = format!("{} {}", vm_name(merged, vm), words::sum_of_stays(vm));
    section(&title, &table, out)
}

pub(in crate::report) fn vm_name(merged: &Merged, vm: &Vm) -> String {
    let first = vm.stays.first().and_then(|stay| merged.pod(stay.recording, stay.pod));
    first.map_or_else(String::new, |(_, pod)| words::name(pod))
}
