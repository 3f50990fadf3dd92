//! Puts facts together into reports.

use std::collections::VecDeque;

use super::fact::{self, Fact};
use super::frame::{Framed, Framer, Message};
use super::report::{Invoker, Report};

/// Everything that was found in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The reports, in the order in which they began.
    pub reports: Vec<Report>,
    /// Lines read.
    pub lines: u64,
    /// Reports beyond the most that are kept.
    pub reports_dropped: u64,
}

/// Reports that are kept.
const MAX_REPORTS: usize = 1000;
/// Lines and table rows that are kept over all reports.
const MAX_ITEMS: usize = 400_000;
/// Unknown lines that are kept of one report.
const MAX_UNPARSED: usize = 200;
/// Reports that are open at once: one per host and caller that the log tells apart.
const MAX_OPEN: usize = 64;
/// A report that is followed by so many unknown lines in a row has been cut off.
const MAX_UNKNOWN_RUN: u32 = 256;

/// Reads a log line by line.
#[derive(Debug, Default)]
pub struct Parser {
    framer: Framer,
    open: VecDeque<Open>,
    done: Vec<(u64, Report)>,
    last_stream: Stream,
    lines: u64,
    items: usize,
    reports_dropped: u64,
}

/// Who prints: reports of different streams may interleave.
type Stream = (Option<String>, Option<String>);

/// Where in a report its last line was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Head,
    Trace,
    Counters,
    MemInfo,
    Tasks,
    /// The dump is over; what follows is told by its words alone.
    Tail,
}

#[derive(Debug)]
struct Open {
    number: u64,
    stream: Stream,
    section: Section,
    columns: Option<Vec<String>>,
    unknown_run: u32,
    report: Report,
}

/// Reads a whole log.
#[must_use]
pub fn parse(log: &[u8]) -> Log {
    let mut parser = Parser::default();
    for line in log.split(|byte| *byte == b'\n') {
        parser.line(line);
    }
    parser.finish()
}

impl Parser {
    /// Takes one line, without its line break.
    pub fn line(&mut self, raw: &[u8]) {
        self.lines += 1;
        let framed = self.framer.line(raw);
        self.take(framed);
    }

    /// Ends every report that is still open.
    #[must_use]
    pub fn finish(mut self) -> Log {
        let framed = self.framer.finish();
        self.take(framed);
        while let Some(open) = self.open.pop_front() {
            self.close(open);
        }
        self.done.sort_by_key(|(number, _)| *number);
        Log {
            reports: self.done.into_iter().map(|(_, report)| report).collect(),
            lines: self.lines,
            reports_dropped: self.reports_dropped,
        }
    }

    fn take(&mut self, framed: Framed) {
        let Framed::Message(message) = framed else {
            return;
        };
        let stream = if message.bare {
            self.last_stream.clone()
        } else {
            (message.host.clone(), message.caller.clone())
        };
        self.last_stream.clone_from(&stream);
        if message.text.trim().is_empty() {
            return;
        }
        let fact = fact::read(&message.text);
        let at = self.place(&stream, fact.as_ref());
        let Some(at) = at else { return };
        let Some(mut open) = self.open.remove(at) else { return };
        let mut room = MAX_ITEMS.saturating_sub(self.items);
        let before = room;
        open.add(fact, &message, &mut room);
        self.items += before - room;
        if open.unknown_run > MAX_UNKNOWN_RUN {
            self.close(open);
        } else {
            self.open.insert(at.min(self.open.len()), open);
        }
    }

    /// The open report that a line belongs to, opening one where the line begins one.
    fn place(&mut self, stream: &Stream, fact: Option<&Fact>) -> Option<usize> {
        let at = self.open.iter().position(|open| open.stream == *stream);
        let fresh = match (at, fact) {
            (_, Some(Fact::Invoked(_))) => true,
            // The reaper is a thread of its own, so only the process id ties its line to a report.
            (_, Some(Fact::Reaped(reaped))) => {
                return self.open.iter().position(|open| {
                    open.stream.0 == stream.0 && open.report.victim_ids().any(|pid| pid == reaped.pid)
                });
            }
            (None, Some(fact)) => opens_headless(fact),
            (Some(at), Some(fact)) => self.open[at].is_over_for(fact) && opens_headless(fact),
            (_, None) => false,
        };
        if !fresh {
            return at.filter(|at| self.open[*at].takes(fact));
        }
        let old = at
            .or((self.open.len() >= MAX_OPEN).then_some(0))
            .and_then(|at| self.open.remove(at));
        if let Some(old) = old {
            self.close(old);
        }
        self.open.push_back(Open {
            number: self.lines,
            stream: stream.clone(),
            section: Section::Head,
            columns: None,
            unknown_run: 0,
            report: Report::default(),
        });
        Some(self.open.len() - 1)
    }

    fn close(&mut self, open: Open) {
        if self.done.len() < MAX_REPORTS {
            self.done.push((open.number, open.report));
        } else {
            self.reports_dropped += 1;
        }
    }
}

/// Lines that begin a report whose first lines are missing.
fn opens_headless(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Memory(_)
            | Fact::StatsFor(..)
            | Fact::TasksHeader
            | Fact::Columns(_)
            | Fact::Selection(_)
            | Fact::Killed(_)
    )
}

impl Open {
    /// The line begins the next report rather than going on with this one.
    fn is_over_for(&self, fact: &Fact) -> bool {
        match fact {
            Fact::Killed(_) => !self.report.kills.is_empty() && self.report.group.is_none(),
            Fact::Selection(_) => self.report.selection.is_some(),
            _ => self.section == Section::Tail,
        }
    }

    /// After the dump, other messages follow that are not part of the report.
    fn takes(&self, fact: Option<&Fact>) -> bool {
        self.section != Section::Tail
            || matches!(
                fact,
                Some(Fact::Killed(_) | Fact::Group(_) | Fact::Selection(_) | Fact::Note)
            )
    }

    fn add(&mut self, fact: Option<Fact>, message: &Message, room: &mut usize) {
        let report = &mut self.report;
        report.lines.total += 1;
        if report.stamp.is_none() {
            report.stamp.clone_from(&message.stamp);
        }
        if report.host.is_none() {
            report.host.clone_from(&message.host);
        }
        let understood = match fact {
            Some(fact) => self.add_fact(fact, message, room),
            None if self.section == Section::MemInfo => {
                keep(
                    &mut self.report.mem_info,
                    || message.text.clone(),
                    room,
                    &mut self.report.lines.dropped,
                );
                true
            }
            None => false,
        };
        let report = &mut self.report;
        if understood {
            report.lines.parsed += 1;
            self.unknown_run = 0;
            return;
        }
        report.lines.unparsed += 1;
        self.unknown_run += 1;
        if report.unparsed.len() < MAX_UNPARSED && *room > 0 {
            *room -= 1;
            report.unparsed.push(message.text.clone());
        }
    }

    /// Whether the fact could be taken in.
    fn add_fact(&mut self, fact: Fact, message: &Message, room: &mut usize) -> bool {
        let report = &mut self.report;
        let dropped = &mut report.lines.dropped;
        match fact {
            Fact::Invoked(invoker) => merge(&mut report.invoker, invoker),
            Fact::Cpu(invoker) => {
                self.section = Section::Trace;
                merge(&mut report.invoker, invoker);
            }
            Fact::Trace => {
                if matches!(self.section, Section::Head | Section::Trace) {
                    self.section = Section::Trace;
                    keep(&mut report.trace, || message.text.trim().to_owned(), room, dropped);
                } else {
                    return false;
                }
            }
            Fact::Memory(counter) => self.counter(|report| report.memory = Some(counter)),
            Fact::MemorySwap(counter) => self.counter(|report| report.memory_swap = Some(counter)),
            Fact::Kmem(counter) => self.counter(|report| report.kmem = Some(counter)),
            Fact::Swap(counter) => self.counter(|report| report.swap = Some(counter)),
            Fact::StatsFor(path, pairs) => {
                self.section = Section::Counters;
                report.stats_path = Some(path);
                return add_stats(report, pairs);
            }
            Fact::Stats(pairs) => return self.section == Section::Counters && add_stats(report, pairs),
            Fact::MemInfo => self.section = Section::MemInfo,
            Fact::TasksHeader => self.section = Section::Tasks,
            Fact::Columns(columns) => {
                self.section = Section::Tasks;
                self.columns = Some(columns);
            }
            Fact::Row(pid, row) => {
                let Some(task) = fact::row(pid, &row, self.columns.as_deref()) else {
                    return false;
                };
                self.section = Section::Tasks;
                keep(&mut report.tasks, || task, room, dropped);
            }
            Fact::Selection(selection) => {
                self.section = Section::Tail;
                report.selection = Some(selection);
            }
            Fact::Killed(mut kill) => {
                self.section = Section::Tail;
                kill.stamp.clone_from(&message.stamp);
                keep(&mut report.kills, || kill, room, dropped);
            }
            Fact::Group(path) => report.group = Some(path),
            Fact::Reaped(reaped) => keep(&mut report.reaped, || reaped, room, dropped),
            Fact::Note => keep(&mut report.notes, || message.text.trim().to_owned(), room, dropped),
            Fact::Elided => report.lines.elided += 1,
        }
        true
    }

    fn counter(&mut self, set: impl FnOnce(&mut Report)) {
        self.section = Section::Counters;
        set(&mut self.report);
    }
}

impl Report {
    fn victim_ids(&self) -> impl Iterator<Item = u32> {
        let selected = self.selection.iter().filter_map(|selection| selection.pid);
        selected.chain(self.kills.iter().map(|kill| kill.pid))
    }
}

/// Names that one memory.stat may have; 7.2 has 71.
const MAX_STATS: usize = 512;

fn add_stats(report: &mut Report, pairs: Vec<(String, u64)>) -> bool {
    let fits = report.stats.len() + pairs.len() <= MAX_STATS;
    if fits {
        report.stats.extend(pairs);
    }
    fits
}

fn keep<T>(kept: &mut Vec<T>, item: impl FnOnce() -> T, room: &mut usize, dropped: &mut u64) {
    if *room == 0 {
        *dropped += 1;
    } else {
        *room -= 1;
        kept.push(item());
    }
}

/// The head line gives the allocation, the CPU line the thread.
fn merge(slot: &mut Option<Invoker>, new: Invoker) {
    let Some(old) = slot else {
        *slot = Some(new);
        return;
    };
    old.tid = old.tid.or(new.tid);
    old.uid = old.uid.or(new.uid);
    old.cpu = old.cpu.or(new.cpu);
    old.kernel = old.kernel.take().or(new.kernel);
    old.gfp_mask = old.gfp_mask.take().or(new.gfp_mask);
    old.gfp_flags = old.gfp_flags.take().or(new.gfp_flags);
    old.order = old.order.or(new.order);
    old.oom_score_adj = old.oom_score_adj.or(new.oom_score_adj);
}
