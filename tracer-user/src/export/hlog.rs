//! HdrHistogram interval log, format V2, compressed: histograms by interval, one for each measure, pod and role.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};

use super::moment::{Growth, Moment, Moments, PodKey};
use super::{Exporter, Source};
use crate::ledger::{PodLedger, ThreadKey};
use crate::recording::event::{Body, Event, Reclaim};
use crate::role::Role;

/// Significant digits of values: what the ledger's own histograms have.
const DIGITS: u8 = 2;

/// Histograms kept at once; a recording with more roles has the others together in [`OTHERS`].
const MAX_TAGS: usize = 1024;

/// Stands for roles beyond [`MAX_TAGS`].
const OTHERS: &str = "others";

/// What a line of column names looks like in logs of the reference implementation.
const LEGEND: &[u8] = b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// What is measured, with its unit.
#[derive(Clone, Copy, Debug)]
enum Measure {
    /// Bytes that a thread was charged from one sample to the next, where it was charged any.
    ChargeBurst,
    /// Nanoseconds that a thread spent reclaiming before a charge.
    ReclaimStall,
    /// How fast a role's overhead grew from one sample to the next; 0 where it shrank.
    OverheadGrowth,
    /// Limit less usage at a sample; 0 where usage ran ahead.
    Headroom,
}

impl Measure {
    const fn name(self) -> &'static str {
        match self {
            Self::ChargeBurst => "charge_burst_bytes",
            Self::ReclaimStall => "reclaim_stall_ns",
            Self::OverheadGrowth => "overhead_growth_bytes_per_s",
            Self::Headroom => "headroom_bytes",
        }
    }
}

/// Growth of a pod's overhead at its last sample, by role.
#[derive(Debug, Default)]
struct Before {
    t: u64,
    growth: BTreeMap<Role, i128>,
}

/// Writes the histograms of an interval when the next one begins.
pub(super) struct Hlog<'a> {
    out: &'a mut dyn Write,
    serializer: V2DeflateSerializer,
    moments: Moments,
    /// Length of an interval, nanoseconds.
    interval: u64,
    /// When the log begins, nanoseconds since the Unix epoch; absent before the first value.
    begin: Option<u64>,
    /// Number of the interval at hand.
    number: u64,
    histograms: BTreeMap<String, Histogram<u64>>,
    before: HashMap<PodKey, Before>,
}

impl<'a> Hlog<'a> {
    pub(super) fn new(out: &'a mut dyn Write, interval: u64) -> Self {
        Self {
            out,
            serializer: V2DeflateSerializer::new(),
            moments: Moments::every(0),
            interval: interval.max(1),
            begin: None,
            number: 0,
            histograms: BTreeMap::new(),
            before: HashMap::new(),
        }
    }

    /// Goes on to the interval that this time (since the Unix epoch) lies in. What comes late counts in the interval at
    /// hand.
    fn advance(&mut self, unix_ns: u64) -> io::Result<()> {
        let Some(begin) = self.begin else {
            self.begin = Some(unix_ns);
            return self.head(SystemTime::UNIX_EPOCH + Duration::from_nanos(unix_ns));
        };
        let number = unix_ns.saturating_sub(begin) / self.interval;
        if number > self.number {
            self.flush()?;
            self.number = number;
        }
        Ok(())
    }

    fn head(&mut self, begin: SystemTime) -> io::Result<()> {
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(
                "[Logged with headroom: tags are MEASURE/NODE/NAMESPACE/VM/ROLE, percent-encoded, + for a space]",
            )
            .with_start_time(begin)
            .with_base_time(begin)
            .begin_log_with(&mut self.out, &mut self.serializer)?;
        self.out.write_all(LEGEND)
    }

    fn flush(&mut self) -> io::Result<()> {
        let start = Duration::from_nanos(self.number.saturating_mul(self.interval));
        let length = Duration::from_nanos(self.interval);
        let mut writer = IntervalLogWriterBuilder::new().begin_log_with(&mut self.out, &mut self.serializer)?;
        for (tag, histogram) in std::mem::take(&mut self.histograms) {
            writer
                .write_histogram(&histogram, start, length, Tag::new(&tag))
                .map_err(io_error)?;
        }
        Ok(())
    }

    fn record(
        &mut self,
        measure: Measure,
        (source, pod): Place<'_>,
        role: Option<&Role>,
        value: u64,
    ) -> io::Result<()> {
        let mut tag = tag(measure, source.node(), pod, role.map(ToString::to_string).as_deref());
        if self.histograms.len() >= MAX_TAGS && !self.histograms.contains_key(&tag) {
            tag = format!("{}/{OTHERS}", measure.name());
        }
        let histogram = match self.histograms.get_mut(&tag) {
            Some(histogram) => histogram,
            None => {
                let empty = Histogram::new(DIGITS).map_err(io::Error::other)?;
                self.histograms.entry(tag).or_insert(empty)
            }
        };
        histogram.record(value.min(i64::MAX as u64)).map_err(io::Error::other)
    }

    /// What each thread was charged since the sample before.
    fn bursts(&mut self, place: Place<'_>) -> io::Result<()> {
        let (source, pod) = place;
        for (key, cells) in pod.recent() {
            let bytes = cells.placed();
            if bytes > 0 {
                let role = source.ledger.entity(*key).role;
                self.record(Measure::ChargeBurst, place, Some(&role), bytes)?;
            }
        }
        Ok(())
    }

    fn growth(&mut self, moment: &Moment<'_>, growth: &Growth) -> io::Result<()> {
        let mut by_role: BTreeMap<Role, i128> = BTreeMap::new();
        for (entity, bytes) in growth.by_entity() {
            *by_role.entry(entity.role.clone()).or_default() += bytes;
        }
        let t = moment.t;
        let now = Before {
            t,
            growth: by_role.clone(),
        };
        let before = self.before.insert(moment.key(), now);
        let Some(before) = before.filter(|before| before.t < t) else {
            return Ok(());
        };
        for (role, bytes) in by_role {
            let grown = bytes - before.growth.get(&role).copied().unwrap_or(0);
            let rate = grown.max(0).saturating_mul(1_000_000_000) / i128::from(t - before.t);
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            self.record(Measure::OverheadGrowth, (moment.source, moment.pod), Some(&role), rate)?;
        }
        Ok(())
    }

    fn stall(&mut self, t: u64, reclaim: &Reclaim, source: Source<'_>) -> io::Result<()> {
        let ledger = source.ledger;
        let Some(pod) = ledger.pod_of_memcg(reclaim.memcg).and_then(|number| ledger.pod(number)) else {
            return Ok(());
        };
        if pod.kill_t().is_some_and(|kill| t > kill) {
            return Ok(());
        }
        let entity = ledger.entity(ThreadKey {
            tid: reclaim.tid,
            start_ns: reclaim.start_ns,
        });
        self.advance(source.unix_ns(t))?;
        self.record(
            Measure::ReclaimStall,
            (source, pod),
            Some(&entity.role),
            reclaim.duration_ns,
        )
    }
}

/// A pod and where it was recorded.
type Place<'a> = (Source<'a>, &'a PodLedger);

impl Exporter for Hlog<'_> {
    fn event(&mut self, source: Source<'_>, event: &Event) -> io::Result<()> {
        if let Body::Reclaim(reclaim) = &event.body {
            return self.stall(event.t, reclaim, source);
        }
        let Some(moment) = self.moments.of(source, event) else {
            return Ok(());
        };
        let place = (source, moment.pod);
        self.advance(moment.unix_ns())?;
        if let Some((levels, limit)) = moment.levels.as_ref().and_then(|levels| Some((levels, levels.limit?))) {
            self.record(Measure::Headroom, place, None, limit.saturating_sub(levels.usage))?;
        }
        if moment.growth.is_some() || moment.pod.kill_t() == Some(moment.t) {
            self.bursts(place)?;
        }
        match &moment.growth {
            Some(growth) => self.growth(&moment, growth),
            None => Ok(()),
        }
    }

    fn finish(&mut self, sources: &[Source<'_>]) -> io::Result<()> {
        if self.begin.is_none() {
            let begins = sources.iter().map(|source| source.unix_ns(source.ledger.window().0));
            self.advance(begins.min().unwrap_or(0))?;
        }
        self.flush()?;
        self.out.flush()
    }
}

/// `MEASURE/NODE/NAMESPACE/VM/ROLE`; the cgroup's path stands for a machine without a name.
fn tag(measure: Measure, node: &str, pod: &PodLedger, role: Option<&str>) -> String {
    let pod = &pod.pod;
    let vm = if pod.vm.is_empty() { &pod.cgroup } else { &pod.vm };
    let parts = [Some(node), Some(pod.namespace.as_str()), Some(vm.as_str()), role];
    let mut tag = measure.name().to_owned();
    for part in parts.into_iter().flatten() {
        tag.push('/');
        push_encoded(&mut tag, part);
    }
    tag
}

/// Percent-encodes what could end a tag or be taken for its structure, the space as `+`.
fn push_encoded(tag: &mut String, part: &str) {
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b':' => tag.push(char::from(byte)),
            b' ' => tag.push('+'),
            byte => {
                let result = write!(tag, "%{byte:02X}");
                debug_assert!(result.is_ok(), "writing to a String does not fail");
            }
        }
    }
}

fn io_error<E: std::fmt::Debug>(error: IntervalLogWriterError<E>) -> io::Error {
    match error {
        IntervalLogWriterError::IoError(error) => error,
        IntervalLogWriterError::SerializeError(error) => io::Error::other(format!("{error:?}")),
    }
}
