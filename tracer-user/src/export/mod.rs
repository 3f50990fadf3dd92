//! Recordings in the forms of other tools, event by event and in bounded memory.
//!
//! One file per form. Each gets every event after the [`Ledger`] took it, so that all forms show the figures that a
//! report of the same recording shows. Events of several recordings come in the order in which they happened.

mod csv;
mod folded;
mod hlog;
mod jsonl;
mod merge;
mod moment;
mod openmetrics;
mod perfetto;
mod pprof;
mod spool;
mod stacks;

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::ledger::Ledger;
use crate::recording::event::Event;
use crate::recording::{ReadError, Reader, Summary};
use merge::{Merge, Order};

pub(crate) use folded::frame as folded_frame;

/// Forms that a recording is exported to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// HdrHistogram interval log (V2, compressed): sizes of charges, reclaim stalls, growth per second, headroom
    Hlog,
    /// A row per time, pod, role and kind
    Csv,
    /// The events of the recording that are whole, as JSON Lines
    Jsonl,
    /// Series with their times, to be loaded into Prometheus (promtool tsdb create-blocks-from openmetrics)
    Openmetrics,
    /// A trace for ui.perfetto.dev: counters by pod and role, reclaim stalls, kills
    Perfetto,
    /// Stacks that overhead was charged from, for flame graph programs (of `record --stacks`)
    Folded,
    /// The same for go tool pprof and its kind
    Pprof,
}

impl Format {
    /// Whether what is written is no text.
    #[must_use]
    pub const fn is_binary(self) -> bool {
        match self {
            Self::Perfetto | Self::Pprof => true,
            Self::Hlog | Self::Csv | Self::Jsonl | Self::Openmetrics | Self::Folded => false,
        }
    }

    /// In which order recordings go into it.
    const fn order(self) -> Order {
        match self {
            // A line's time and numbers are those of the header before it.
            Self::Jsonl => Order::OneAfterAnother,
            Self::Hlog | Self::Csv | Self::Openmetrics | Self::Perfetto | Self::Folded | Self::Pprof => Order::ByTime,
        }
    }
}

/// Threads that ended are kept apart while there are at most this many: exports go by role, and each sample is
/// resolved.
const THREADS_APART: usize = 256;

/// Length of an interval of histograms unless told otherwise.
const INTERVAL: Duration = Duration::from_secs(10);

/// Why recordings could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// One of them could not be read.
    #[error("{error}")]
    Read {
        /// Which one, counted from 0.
        recording: usize,
        /// Why not.
        error: ReadError,
    },
    /// The form could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// A recording as far as it was read.
#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    /// Which of the recordings, counted from 0.
    number: usize,
    /// What it adds up to.
    ledger: &'a Ledger,
}

impl Source<'_> {
    /// Nanoseconds since the Unix epoch of an event's time. Only a made-up recording lies behind the year 2554.
    fn unix_ns(&self, t: u64) -> u64 {
        self.ledger.header().boot_unix_ns.saturating_add(t)
    }

    /// Where it was recorded.
    fn node(&self) -> &str {
        &self.ledger.header().host
    }
}

/// Writes one form.
trait Exporter {
    /// Takes an event that the source's ledger has just taken.
    fn event(&mut self, source: Source<'_>, event: &Event) -> io::Result<()>;

    /// Writes what is left, and flushes.
    fn finish(&mut self, sources: &[Source<'_>]) -> io::Result<()>;
}

/// Writes recordings as `format` to `out`, and says in which state each was.
///
/// `interval` is the least time between two points, and the length of an interval of [`Format::Hlog`]. Without it every
/// sample is a point, and intervals are 10 s.
///
/// # Errors
/// When a recording cannot be read or `out` fails.
pub fn export<R: Read>(
    readers: Vec<Reader<R>>,
    format: Format,
    interval: Option<Duration>,
    out: &mut dyn Write,
) -> Result<Vec<Summary>, ExportError> {
    let mut merge = Merge::new(readers, format.order(), || Ledger::with_threads_apart(THREADS_APART));
    let mut exporter = exporter(format, interval, out)?;
    while let Some((source, event)) = merge.next()? {
        exporter.event(source, &event)?;
    }
    exporter.finish(&merge.sources())?;
    Ok(merge.summaries())
}

fn exporter<'a>(
    format: Format,
    interval: Option<Duration>,
    out: &'a mut dyn Write,
) -> io::Result<Box<dyn Exporter + 'a>> {
    let moments = moment::Moments::every(interval.map_or(0, nanoseconds));
    Ok(match format {
        Format::Hlog => Box::new(hlog::Hlog::new(out, nanoseconds(interval.unwrap_or(INTERVAL)))),
        Format::Csv => Box::new(csv::Csv::new(out, moments)),
        Format::Jsonl => Box::new(jsonl::Jsonl::new(out)),
        Format::Openmetrics => Box::new(openmetrics::OpenMetrics::new(out, moments)?),
        Format::Perfetto => Box::new(perfetto::Perfetto::new(out, moments)),
        Format::Folded => Box::new(folded::Folded::new(out)),
        Format::Pprof => Box::new(pprof::Pprof::new(out)),
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
