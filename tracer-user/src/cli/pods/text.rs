//! The overview of VM pods as text.

use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, Table};

use super::Listed;
use crate::escape;
use crate::node::overview::{Overview, Process};
use crate::sizing;
use crate::units::{Bytes, SignedBytes};

/// A table with one line for each pod; with `threads`, what runs in each below it.
pub fn render(pods: &[Listed], threads: bool) -> String {
    if pods.is_empty() {
        return "no VM pods on this node\n".to_owned();
    }
    let mut text = table(
        &[
            "VM",
            "LIMIT",
            "USAGE",
            "GUEST RAM",
            "RESIDENT",
            "OVERHEAD",
            "BUDGET",
            "HEADROOM",
        ],
        pods.iter().map(|pod| summary(&pod.overview)),
    );
    for pod in pods {
        text.push('\n');
        describe(&mut text, &pod.overview);
        if threads {
            text.push_str(&table(
                &["PID/TID", "NAME", "ROLE", "RSS"],
                pod.overview.processes.iter().flat_map(process_rows),
            ));
        }
        if let Some(budgeted) = &pod.budgeted {
            if threads {
                text.push('\n');
                text.push_str(&sizing::text::render(budgeted));
            } else {
                let _ = writeln!(text, "  budget     {}", sizing::text::sentence(&budgeted.breakdown));
            }
        }
    }
    text
}

fn summary(pod: &Overview) -> Vec<String> {
    vec![
        escape::terminal(&pod.label).into_owned(),
        bytes(pod.limit, "none"),
        bytes(pod.usage, "?"),
        bytes(pod.guest_ram.as_ref().map(|guest| guest.size), "?"),
        bytes(pod.guest_ram.as_ref().and_then(|guest| guest.resident), "?"),
        bytes(pod.overhead, "?"),
        pod.budget
            .map_or_else(|| "-".to_owned(), |budget| SignedBytes(budget).to_string()),
        bytes(pod.headroom, "-"),
    ]
}

fn describe(text: &mut String, pod: &Overview) {
    let mut line = |name: &str, value: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {name:<11}{}", escape::terminal(value));
    };
    line("vm", &pod.label);
    if !pod.pod_uid.is_empty() {
        line("pod uid", &pod.pod_uid);
    }
    line("cgroup", &pod.cgroup);
    if let Some(qemu) = pod.qemu_pid {
        line("qemu", &format!("pid {qemu}"));
    }
    let threads: usize = pod.processes.iter().map(|process| process.threads.len()).sum();
    let running = [
        plural(pod.processes.len(), "process", "es"),
        plural(threads, "thread", "s"),
    ];
    line("running", &running.join(", "));
    let kinds: Vec<String> = pod
        .stat
        .iter()
        .filter(|(_, bytes)| **bytes > 0)
        .map(|(kind, bytes)| format!("{kind} {}", Bytes(*bytes)))
        .collect();
    if !kinds.is_empty() {
        line("memory", &kinds.join(", "));
    }
}

fn process_rows(process: &Process) -> Vec<Vec<String>> {
    let name = escape::terminal(&process.name).into_owned();
    let mut rows = vec![vec![
        process.pid.to_string(),
        name,
        escape::terminal(&process.role.to_string()).into_owned(),
        Bytes(process.rss).to_string(),
    ]];
    let others = process.threads.iter().filter(|thread| thread.tid != process.pid);
    rows.extend(others.map(|thread| {
        vec![
            format!("  {}", thread.tid),
            escape::terminal(&thread.comm).into_owned(),
            escape::terminal(&thread.role.to_string()).into_owned(),
            String::new(),
        ]
    }));
    rows
}

/// Columns of sizes are right-aligned: those that end in a unit, which all but the names do.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let names = ["VM", "PID/TID", "NAME", "ROLE"];
    let alignment = |column: usize| match header.get(column) {
        Some(name) if names.contains(name) => CellAlignment::Left,
        _ => CellAlignment::Right,
    };
    let cells = |texts: Vec<String>| -> Vec<Cell> {
        let aligned = |(column, text)| Cell::new_owned(text).set_alignment(alignment(column));
        texts.into_iter().enumerate().map(aligned).collect()
    };
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(cells(header.iter().map(|name| (*name).to_owned()).collect()));
    for row in rows {
        table.add_row(cells(row));
    }
    table.trim_fmt() + "\n"
}

fn plural(count: usize, noun: &str, suffix: &str) -> String {
    let suffix = if count == 1 { "" } else { suffix };
    format!("{count} {noun}{suffix}")
}

fn bytes(value: Option<u64>, absent: &str) -> String {
    value.map_or_else(|| absent.to_owned(), |value| Bytes(value).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::overview::{GuestRam, Thread};
    use crate::role::Role;

    fn pod() -> Listed {
        let overview = Overview {
            label: "prod/web".to_owned(),
            pod_uid: "0a1b".to_owned(),
            cgroup: "/kubepods/pod0a1b".to_owned(),
            limit: Some(2 << 30),
            usage: Some(1 << 30),
            overhead: Some(100 << 20),
            budget: Some(-(5 << 20)),
            headroom: Some(1 << 30),
            guest_ram: Some(GuestRam {
                size: 1 << 30,
                resident: Some(924 << 20),
                ..GuestRam::default()
            }),
            processes: vec![Process {
                pid: 11,
                name: "qemu".to_owned(),
                role: Role::MainLoop,
                rss: 5 << 20,
                threads: vec![Thread {
                    tid: 12,
                    comm: "\u{1b}[2J".to_owned(),
                    role: Role::Other("\u{1b}[2J".to_owned()),
                }],
                ..Process::default()
            }],
            ..Overview::default()
        };
        Listed {
            overview,
            budgeted: None,
        }
    }

    #[test]
    fn a_pod_is_one_line_and_what_runs_in_it_follows() {
        let text = render(&[pod()], true);
        let line = text.lines().nth(1).unwrap();
        for part in ["prod/web", "2.0 GiB", "924.0 MiB", "100.0 MiB", "-5.0 MiB"] {
            assert!(line.contains(part), "{part} in {text}");
        }
        assert!(text.contains("main-loop") && text.contains("other \\x1b[2J"));
        assert!(!text.contains('\u{1b}'));
        assert!(!render(&[pod()], false).contains("main-loop"));
    }

    #[test]
    fn a_node_without_vms_says_so() {
        assert_eq!(render(&[], true), "no VM pods on this node\n");
    }
}
