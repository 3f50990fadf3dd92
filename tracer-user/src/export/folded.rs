//! Folded stacks, as flame graph programs read them: a line for each stack, outermost first, and its bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::stacks::Sampled;
use super::{Exporter, Source};
use crate::escape;
use crate::recording::event::{Body, Event};

/// What a stack of which nothing is known is called.
const UNKNOWN: &str = "[unknown]";

/// Writes a line for each pod, role, thread and stack.
pub(super) struct Folded<'a> {
    out: &'a mut dyn Write,
    sampled: Sampled,
}

impl<'a> Folded<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            sampled: Sampled::default(),
        }
    }
}

impl Exporter for Folded<'_> {
    fn event(&mut self, source: Source<'_>, event: &Event) -> io::Result<()> {
        if let Body::StackCharge(charge) = &event.body {
            self.sampled.take(source, charge);
        }
        Ok(())
    }

    fn finish(&mut self, sources: &[Source<'_>]) -> io::Result<()> {
        // Kinds are not told apart, and pods of the same name in several recordings are one.
        let mut lines: BTreeMap<String, u64> = BTreeMap::new();
        for (row, charged) in self.sampled.rows() {
            let (recording, pod) = row.pod;
            let Some(ledger) = sources.get(recording).map(|source| source.ledger) else {
                continue;
            };
            let pod = ledger.pod(pod).map_or_else(String::new, |pod| pod.pod.label());
            let mut line = frame(&pod);
            for part in [&row.entity.role.to_string(), &row.thread] {
                line.push(';');
                line.push_str(&frame(part));
            }
            for name in names(&ledger.paths().path(row.stack)) {
                line.push(';');
                line.push_str(&name);
            }
            let bytes = lines.entry(line).or_default();
            *bytes = bytes.saturating_add(charged.bytes);
        }
        for (line, bytes) in lines {
            writeln!(self.out, "{line} {bytes}")?;
        }
        self.out.flush()
    }
}

/// Names of a stack's frames, outermost first; those of the kernel end in `_[k]`, as flame graph programs have it.
fn names(path: &crate::ledger::Path<'_>) -> Vec<String> {
    let user = path.user.iter().rev().map(|place| frame(&place.label()));
    let kernel = path.kernel.iter().rev();
    let kernel = kernel.map(|place| format!("{}_[k]", frame(&place.label())));
    let names: Vec<String> = user.chain(kernel).collect();
    if names.is_empty() {
        return vec![UNKNOWN.to_owned()];
    }
    names
}

/// A name as one frame of a line.
pub(crate) fn frame(name: &str) -> String {
    escape::terminal(name).replace(';', ":")
}
