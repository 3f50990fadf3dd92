//! OpenMetrics text with times: what a Prometheus would have scraped.
//!
//! The format wants all points of a series together, while a recording has them side by side.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::moment::{Moment, Moments};
use super::spool::{Point, Spool};
use super::{Exporter, Source};
use crate::escape;
use crate::ledger::Entity;
use crate::recording::event::Event;
use crate::units::clamp;

/// A metric family, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    Usage,
    Limit,
    GuestResident,
    ReclaimableFile,
    MemoryStat,
    GuestGrowth,
    OverheadGrowth,
    Unexplained,
    ReclaimStall,
    LimitHits,
    OomKills,
}

/// What a family is.
struct Described {
    name: &'static str,
    unit: &'static str,
    counter: bool,
    help: &'static str,
}

impl Family {
    const fn described(self) -> Described {
        let (name, unit, counter, help) = match self {
            Self::Usage => (
                "headroom_usage_bytes",
                "bytes",
                false,
                "Usage of the memcg that limits the pod.",
            ),
            Self::Limit => ("headroom_limit_bytes", "bytes", false, "Limit of that memcg."),
            Self::GuestResident => (
                "headroom_guest_resident_bytes",
                "bytes",
                false,
                "Guest RAM that is resident.",
            ),
            Self::ReclaimableFile => (
                "headroom_reclaimable_file_bytes",
                "bytes",
                false,
                "Page cache that the kernel could take back.",
            ),
            Self::MemoryStat => (
                "headroom_memory_stat_bytes",
                "bytes",
                false,
                "The kernel's own figure for a kind of memory.",
            ),
            Self::GuestGrowth => (
                "headroom_guest_growth_bytes",
                "bytes",
                false,
                "Growth of guest RAM since the first sample.",
            ),
            Self::OverheadGrowth => (
                "headroom_overhead_growth_bytes",
                "bytes",
                false,
                "Growth of overhead since the first sample, by who was charged.",
            ),
            Self::Unexplained => (
                "headroom_unexplained_bytes",
                "bytes",
                false,
                "Growth of usage since the first sample that no account explains.",
            ),
            Self::ReclaimStall => (
                "headroom_reclaim_stall_seconds",
                "seconds",
                true,
                "Time spent reclaiming before charges since the first sample.",
            ),
            Self::LimitHits => (
                "headroom_limit_hits",
                "",
                true,
                "How often the limit was met, by the kernel's count.",
            ),
            Self::OomKills => ("headroom_oom_kills", "", true, "OOM kills, by the kernel's count."),
        };
        Described {
            name,
            unit,
            counter,
            help,
        }
    }
}

/// Gathers series, and writes them at the end.
pub(super) struct OpenMetrics<'a> {
    out: &'a mut dyn Write,
    moments: Moments,
    spool: Spool<(Family, String)>,
}

impl<'a> OpenMetrics<'a> {
    pub(super) fn new(out: &'a mut dyn Write, moments: Moments) -> io::Result<Self> {
        Ok(Self {
            out,
            moments,
            spool: Spool::new()?,
        })
    }

    fn gather(&mut self, moment: &Moment<'_>) -> io::Result<()> {
        let of_pod = pod_labels(moment);
        let unix_ms = moment.unix_ns() / 1_000_000;
        let spool = &mut self.spool;
        let mut push = |family: Family, labels: String, value: i64| {
            // The format has no negative counter.
            let value = if family.described().counter {
                value.max(0)
            } else {
                value
            };
            spool.push((family, labels), Point { unix_ms, value })
        };
        let unsigned = |figure: u64| clamp(i128::from(figure));
        if let Some(levels) = &moment.levels {
            push(Family::Usage, of_pod.clone(), unsigned(levels.usage))?;
            if let Some(limit) = levels.limit {
                push(Family::Limit, of_pod.clone(), unsigned(limit))?;
            }
            if let Some(bytes) = levels.guest_resident {
                push(Family::GuestResident, of_pod.clone(), unsigned(bytes))?;
            }
        }
        if let Some(sample) = moment.levels.as_ref().and_then(|levels| levels.sample) {
            push(
                Family::ReclaimableFile,
                of_pod.clone(),
                unsigned(sample.reclaimable_file),
            )?;
            for (kind, bytes) in &sample.stat {
                let labels = with(&of_pod, &[("kind", kind.as_str())]);
                push(Family::MemoryStat, labels, unsigned(*bytes))?;
            }
            push(Family::LimitHits, of_pod.clone(), unsigned(sample.limit_hits))?;
            push(Family::OomKills, of_pod.clone(), unsigned(sample.oom_kills))?;
        }
        if let Some(growth) = &moment.growth {
            push(Family::GuestGrowth, of_pod.clone(), clamp(growth.guest))?;
            push(Family::Unexplained, of_pod.clone(), clamp(growth.unexplained))?;
            for ((entity, kind), bytes) in &growth.overhead {
                let labels = with(&with_entity(&of_pod, entity), &[("kind", kind.as_str())]);
                push(Family::OverheadGrowth, labels, clamp(*bytes))?;
            }
            for (entity, nanoseconds) in &growth.stalls {
                push(
                    Family::ReclaimStall,
                    with_entity(&of_pod, entity),
                    unsigned(*nanoseconds),
                )?;
            }
        }
        Ok(())
    }
}

impl Exporter for OpenMetrics<'_> {
    fn event(&mut self, source: Source<'_>, event: &Event) -> io::Result<()> {
        match self.moments.of(source, event) {
            Some(moment) => self.gather(&moment),
            None => Ok(()),
        }
    }

    fn finish(&mut self, sources: &[Source<'_>]) -> io::Result<()> {
        let mut moments = std::mem::take(&mut self.moments);
        moments.at_kills(sources, |moment| self.gather(moment))?;
        let mut before = None;
        let Self { out, spool, .. } = self;
        spool.drain(|(family, labels), points| {
            if before != Some(*family) {
                head(out, *family)?;
                before = Some(*family);
            }
            series(out, *family, labels, points)
        })?;
        self.out.write_all(b"# EOF\n")?;
        self.out.flush()
    }
}

fn head(out: &mut dyn Write, family: Family) -> io::Result<()> {
    let Described {
        name,
        unit,
        counter,
        help,
    } = family.described();
    let kind = if counter { "counter" } else { "gauge" };
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    if unit.is_empty() {
        return Ok(());
    }
    writeln!(out, "# UNIT {name} {unit}")
}

fn series(out: &mut dyn Write, family: Family, labels: &str, points: &[Point]) -> io::Result<()> {
    let described = family.described();
    let total = if described.counter { "_total" } else { "" };
    for Point { unix_ms, value } in points {
        write!(out, "{}{total}{{{labels}}} ", described.name)?;
        if described.unit == "seconds" {
            write!(out, "{}.{:09}", value / 1_000_000_000, value % 1_000_000_000)?;
        } else {
            write!(out, "{value}")?;
        }
        writeln!(out, " {}.{:03}", unix_ms / 1000, unix_ms % 1000)?;
    }
    Ok(())
}

fn pod_labels(moment: &Moment<'_>) -> String {
    let pod = &moment.pod.pod;
    with(
        "",
        &[
            ("node", moment.source.node()),
            ("namespace", &pod.namespace),
            ("vm", &pod.vm),
            ("pod_uid", &pod.pod_uid),
            ("cgroup", &pod.cgroup),
        ],
    )
}

fn with_entity(labels: &str, entity: &Entity) -> String {
    with(
        labels,
        &[("role", &entity.role.to_string()), ("process", &entity.process)],
    )
}

/// More labels. Control characters, which a pod may have put into a name, are made visible.
fn with(labels: &str, more: &[(&str, &str)]) -> String {
    let mut all = labels.to_owned();
    for (label, value) in more {
        let comma = if all.is_empty() { "" } else { "," };
        let value = escape::terminal(value).replace('\\', "\\\\").replace('"', "\\\"");
        let result = write!(all, "{comma}{label}=\"{value}\"");
        debug_assert!(result.is_ok(), "writing to a String does not fail");
    }
    all
}
