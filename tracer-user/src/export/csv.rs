//! CSV, tidy: one figure a row, with what it is a figure of in columns of their own.

use std::borrow::Cow;
use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use super::moment::{Moment, Moments};
use super::{Exporter, Source};
use crate::escape;
use crate::recording::event::Event;
use crate::units::clamp;

/// A row. Columns that do not apply are empty.
#[derive(Serialize)]
struct Row<'a> {
    time: &'a str,
    node: Cow<'a, str>,
    namespace: Cow<'a, str>,
    vm: Cow<'a, str>,
    pod_uid: Cow<'a, str>,
    cgroup: Cow<'a, str>,
    measure: &'a str,
    role: Cow<'a, str>,
    process: Cow<'a, str>,
    kind: &'a str,
    bytes: i64,
}

/// Writes a row for each figure.
pub(super) struct Csv<'a> {
    writer: csv::Writer<&'a mut dyn Write>,
    moments: Moments,
}

impl<'a> Csv<'a> {
    pub(super) fn new(out: &'a mut dyn Write, moments: Moments) -> Self {
        Self {
            writer: csv::Writer::from_writer(out),
            moments,
        }
    }

    fn write(&mut self, moment: &Moment<'_>) -> io::Result<()> {
        let nanoseconds = i128::from(moment.unix_ns());
        let time = Timestamp::from_nanosecond(nanoseconds)
            .unwrap_or(Timestamp::MAX)
            .to_string();
        let pod = &moment.pod.pod;
        let row = |measure, bytes| Row {
            time: &time,
            node: cell(moment.source.node()),
            namespace: cell(&pod.namespace),
            vm: cell(&pod.vm),
            pod_uid: cell(&pod.pod_uid),
            cgroup: cell(&pod.cgroup),
            measure,
            role: Cow::Borrowed(""),
            process: Cow::Borrowed(""),
            kind: "",
            bytes,
        };
        let unsigned = |bytes: u64| clamp(i128::from(bytes));
        let mut rows = Vec::new();
        if let Some(levels) = &moment.levels {
            rows.push(row("usage", unsigned(levels.usage)));
            rows.extend(levels.limit.map(|limit| row("limit", unsigned(limit))));
            rows.extend(
                levels
                    .guest_resident
                    .map(|bytes| row("guest_resident", unsigned(bytes))),
            );
        }
        if let Some(sample) = moment.levels.as_ref().and_then(|levels| levels.sample) {
            rows.push(row("reclaimable_file", unsigned(sample.reclaimable_file)));
            rows.extend(sample.stat.iter().map(|(kind, bytes)| Row {
                kind: kind.as_str(),
                ..row("memory_stat", unsigned(*bytes))
            }));
        }
        if let Some(growth) = &moment.growth {
            rows.push(row("guest_growth", clamp(growth.guest)));
            rows.push(row("unexplained", clamp(growth.unexplained)));
            rows.extend(growth.overhead.iter().map(|((entity, kind), bytes)| Row {
                role: owned_cell(&entity.role.to_string()),
                process: cell(&entity.process),
                kind: kind.as_str(),
                ..row("overhead_growth", clamp(*bytes))
            }));
        }
        rows.iter()
            .try_for_each(|row| self.writer.serialize(row).map_err(io_error))
    }
}

impl Exporter for Csv<'_> {
    fn event(&mut self, source: Source<'_>, event: &Event) -> io::Result<()> {
        match self.moments.of(source, event) {
            Some(moment) => self.write(&moment),
            None => Ok(()),
        }
    }

    fn finish(&mut self, sources: &[Source<'_>]) -> io::Result<()> {
        let mut moments = std::mem::take(&mut self.moments);
        moments.at_kills(sources, |moment| self.write(moment))?;
        self.writer.flush()
    }
}

/// A name that a pod chose, harmless on a terminal and in a spreadsheet, which takes what begins like a formula for one.
fn cell(name: &str) -> Cow<'_, str> {
    let escaped = escape::terminal(name);
    if escaped.starts_with(['=', '+', '-', '@']) {
        return Cow::Owned(format!("'{escaped}"));
    }
    escaped
}

fn owned_cell(name: &str) -> Cow<'static, str> {
    Cow::Owned(cell(name).into_owned())
}

fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        kind => io::Error::other(format!("{kind:?}")),
    }
}
