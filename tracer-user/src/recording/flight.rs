//! The last minutes of a long run in bounded memory, ready to be written as a recording of its own.
//!
//! Events are kept as they are written: packed frames of a second. When a frame is dropped, what later ones rely on is
//! kept of it: who the pods, processes and threads are, and how much had been charged. So whatever is left is whole.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{self, BufRead, Write};
use std::sync::Arc;

use tracer_common::{Kind, Region};

use super::event::{Baseline, Body, Event, Footer, Header, Live, Loss, Pod, Process, Thread, Total};
use super::{Sink, WriteError, Writer};

/// What errors call the recording while it is in memory.
const NAME: &str = "the flight recorder";

/// Threads and processes whose names are kept though all they did is dropped. Beyond that the newest stay nameless:
/// a node has no more threads than that, but whoever makes threads without end shall not fill its memory.
const MAX_NAMES: usize = 1 << 16;

/// Bytes that a frame takes beside its data.
const FRAME_OVERHEAD: usize = size_of::<Frame>() + 64;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At least this long, nanoseconds...
    pub keep_ns: u64,
    /// ... in at most this many bytes, which come first.
    pub memory: usize,
}

/// A second of events.
#[derive(Debug)]
struct Frame {
    first_t: u64,
    last_t: u64,
    /// As in the file.
    packed: Box<[u8]>,
    /// What is kept of it when it is dropped: its pod, process and thread events, and a baseline with its sums. Packed.
    rest: Box<[u8]>,
}

impl Frame {
    fn bytes(&self) -> usize {
        self.packed.len() + self.rest.len() + FRAME_OVERHEAD
    }
}

/// Takes the frames from the writer.
#[derive(Debug, Default)]
struct Packed(Vec<Box<[u8]>>);

impl Write for Packed {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        self.0.push(frame.into());
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Packed {}

/// Keeps the last events.
#[derive(Debug)]
pub struct Flight {
    limits: Limits,
    header: Header,
    attached: u64,
    writer: Writer<Packed>,
    open: Open,
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    dropped: Dropped,
    /// Frames went before their time because memory was short.
    short: bool,
}

impl Flight {
    /// An empty one.
    ///
    /// # Errors
    /// When there is no memory for a compressor.
    pub fn new(limits: Limits) -> Result<Self, WriteError> {
        Ok(Self {
            limits,
            header: Header::default(),
            attached: 0,
            writer: Writer::new(Packed::default(), NAME)?,
            open: Open::default(),
            frames: VecDeque::new(),
            bytes: 0,
            dropped: Dropped::default(),
            short: false,
        })
    }

    /// Adds an event.
    ///
    /// # Errors
    /// When it cannot be packed.
    pub fn push(&mut self, event: &Event) -> Result<(), WriteError> {
        if let Body::Header(header) = &event.body {
            self.header = header.clone();
            self.attached = event.t;
            return Ok(());
        }
        self.tick(event.t)?;
        if matches!(event.body, Body::Charge(_)) {
            // Where a charge closes a frame, it goes into the next one...
            self.writer.push(event)?;
            self.collect()?;
            self.open.note(event);
            return Ok(());
        }
        // ... and anything else into the one that it closes.
        self.open.note(event);
        self.writer.push(event)?;
        self.collect()
    }

    /// Drops what is too old. To be called a few times a second.
    ///
    /// # Errors
    /// When the last second cannot be packed.
    pub fn tick(&mut self, now_ns: u64) -> Result<(), WriteError> {
        self.writer.tick(now_ns)?;
        self.collect()?;
        let oldest = now_ns.saturating_sub(self.limits.keep_ns);
        while self.frames.front().is_some_and(|frame| frame.last_t < oldest) {
            self.drop_first()?;
        }
        Ok(())
    }

    /// Takes a closed frame from the writer, and makes room for it.
    fn collect(&mut self) -> Result<(), WriteError> {
        for packed in std::mem::take(&mut self.writer.sink_mut().0) {
            let open = std::mem::take(&mut self.open);
            let frame = Frame {
                first_t: open.first_t.unwrap_or(0),
                last_t: open.last_t,
                packed,
                rest: open.pack().map_err(failure)?.into(),
            };
            self.bytes += frame.bytes();
            self.frames.push_back(Arc::new(frame));
        }
        while self.bytes > self.limits.memory && self.frames.len() > 1 {
            self.short = true;
            self.drop_first()?;
        }
        Ok(())
    }

    fn drop_first(&mut self) -> Result<(), WriteError> {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.bytes();
            for event in events_of(&frame.rest).map_err(failure)? {
                self.dropped.take(event);
            }
        }
        Ok(())
    }

    /// How far back the kept events go.
    #[must_use]
    pub fn begins(&self) -> Option<u64> {
        self.frames.front().map(|frame| frame.first_t).or(self.open.first_t)
    }

    /// Whether events were dropped before their time because memory was short.
    #[must_use]
    pub const fn was_short(&self) -> bool {
        self.short
    }

    /// Bytes of packed events in memory.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// All that is kept as a recording that ends with this footer, which must be of now: after the last event and
    /// before the next. `past` is an earlier kill and its pod: that pod's story begins after it.
    ///
    /// # Errors
    /// When it cannot be packed.
    pub fn excerpt(&mut self, t: u64, footer: Footer, past: Option<(u32, u64)>) -> Result<Excerpt, WriteError> {
        self.writer.finish()?;
        self.collect()?;
        let begins = self.begins().unwrap_or(t);
        let mut begin = Writer::new(Vec::new(), NAME)?;
        begin.push(&Event {
            t: begins,
            body: Body::Header(self.header.clone()),
        })?;
        for body in self.dropped.events(self.attached) {
            begin.push(&Event { t: begins, body })?;
        }
        begin.finish()?;
        let mut end = Writer::new(Vec::new(), NAME)?;
        end.push(&Event {
            t,
            body: Body::Footer(footer),
        })?;
        end.finish()?;
        Ok(Excerpt {
            begin: std::mem::take(begin.sink_mut()),
            frames: self.frames.iter().cloned().collect(),
            end: std::mem::take(end.sink_mut()),
            past,
            begins,
        })
    }
}

fn failure(source: io::Error) -> WriteError {
    WriteError::Write {
        path: NAME.into(),
        source,
    }
}

/// What is noted of the frame that is being gathered.
#[derive(Debug, Default)]
struct Open {
    first_t: Option<u64>,
    last_t: u64,
    lines: Vec<u8>,
    sums: Sums,
    loss: Option<Loss>,
}

impl Open {
    fn note(&mut self, event: &Event) {
        // Charges up to a kill are told after it, so times may go back.
        self.first_t = Some(self.first_t.map_or(event.t, |first| first.min(event.t)));
        self.last_t = self.last_t.max(event.t);
        match &event.body {
            Body::Pod(_) | Body::Process(_) | Body::Thread(_) | Body::Live(_) => {
                // Writing to memory does not fail, and an event that cannot be written fails in the frame as well.
                let _ = serde_json::to_writer(&mut self.lines, event);
                self.lines.push(b'\n');
            }
            Body::Charge(charge) => {
                self.sums.add(
                    charge.memcg,
                    charge.kind,
                    charge.region,
                    charge.charged,
                    charge.uncharged,
                );
            }
            Body::Loss(loss) => self.loss = Some(*loss),
            _ => {}
        }
    }

    fn pack(mut self) -> io::Result<Vec<u8>> {
        if let Some(loss) = self.loss {
            self.line(Body::Loss(loss))?;
        }
        if !self.sums.0.is_empty() {
            let totals = self.sums.totals();
            self.line(Body::Baseline(Baseline {
                totals,
                ..Baseline::default()
            }))?;
        }
        zstd::bulk::compress(&self.lines, 1)
    }

    fn line(&mut self, body: Body) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, &Event { t: self.last_t, body })?;
        self.lines.push(b'\n');
        Ok(())
    }
}

/// Sums of charges.
#[derive(Debug, Default)]
struct Sums(BTreeMap<(u64, Kind, Region), (u64, u64)>);

impl Sums {
    fn add(&mut self, memcg: u64, kind: Kind, region: Region, charged: u64, uncharged: u64) {
        let sum = self.0.entry((memcg, kind, region)).or_default();
        sum.0 = sum.0.saturating_add(charged);
        sum.1 = sum.1.saturating_add(uncharged);
    }

    fn totals(&self) -> Vec<Total> {
        self.0
            .iter()
            .map(|(&(memcg, kind, region), &(charged, uncharged))| Total {
                memcg,
                kind,
                region,
                charged,
                uncharged,
            })
            .collect()
    }
}

/// What is kept of frames that were dropped.
#[derive(Debug, Default)]
struct Dropped {
    pods: BTreeMap<u32, Pod>,
    processes: HashMap<u32, Process>,
    threads: HashMap<(u32, u64), Thread>,
    /// What accounts hold: each is told only when it changes. By thread, then by memcg and kind.
    live: BTreeMap<(u32, u64), BTreeMap<(u64, Kind), Live>>,
    sums: Sums,
    loss: Loss,
}

impl Dropped {
    fn take(&mut self, event: Event) {
        match event.body {
            Body::Pod(pod) if pod.gone => {
                self.pods.remove(&pod.pod);
            }
            Body::Pod(pod) => {
                self.pods.insert(pod.pod, pod);
            }
            Body::Process(process) if process.exited => {
                self.processes.remove(&process.pid);
            }
            Body::Process(mut process) => {
                // As far as a reader can tell: its memory is part of the first sample.
                process.before_attach = true;
                if self.processes.len() < MAX_NAMES || self.processes.contains_key(&process.pid) {
                    self.processes.insert(process.pid, process);
                }
            }
            Body::Thread(thread) => self.thread(thread),
            Body::Live(live) => self.live(live),
            Body::Baseline(baseline) => {
                for total in baseline.totals {
                    self.sums
                        .add(total.memcg, total.kind, total.region, total.charged, total.uncharged);
                }
            }
            Body::Loss(loss) => self.loss = loss,
            _ => {}
        }
    }

    fn thread(&mut self, thread: Thread) {
        let key = (thread.tid, thread.start_ns);
        if !thread.exited || self.live.contains_key(&key) {
            // What holds memory keeps its name.
            if self.threads.len() < MAX_NAMES || self.threads.contains_key(&key) {
                self.threads.insert(key, thread);
            }
            return;
        }
        self.threads.remove(&key);
        let main = thread.tid == thread.pid;
        if main && !self.threads.values().any(|other| other.pid == thread.pid) {
            self.processes.remove(&thread.pid);
        }
    }

    fn live(&mut self, live: Live) {
        let key = (live.tid, live.start_ns);
        if live.bytes > 0 || live.not_followed > 0 {
            if self.live.len() < MAX_NAMES || self.live.contains_key(&key) {
                let accounts = self.live.entry(key).or_default();
                accounts.insert((live.memcg, live.kind), live);
            }
            return;
        }
        let Some(accounts) = self.live.get_mut(&key) else {
            return;
        };
        accounts.remove(&(live.memcg, live.kind));
        if accounts.is_empty() {
            self.live.remove(&key);
            if let Some(thread) = self.threads.get(&key).filter(|thread| thread.exited) {
                self.thread(thread.clone());
            }
        }
    }

    /// Everything, in the order in which a recording would have it.
    fn events(&self, attached: u64) -> Vec<Body> {
        let mut events = vec![Body::Baseline(Baseline {
            attached,
            totals: self.sums.totals(),
            loss: self.loss,
        })];
        events.extend(self.pods.values().cloned().map(Body::Pod));
        let mut processes: Vec<&Process> = self.processes.values().collect();
        processes.sort_by_key(|process| process.pid);
        events.extend(processes.into_iter().cloned().map(Body::Process));
        let mut threads: Vec<&Thread> = self.threads.values().collect();
        threads.sort_by_key(|thread| (thread.tid, thread.start_ns));
        events.extend(threads.into_iter().cloned().map(Body::Thread));
        let live = self.live.values().flat_map(BTreeMap::values);
        events.extend(live.cloned().map(Body::Live));
        events
    }
}

/// A recording in memory: cheap to take, since it shares its frames with the flight recorder.
#[derive(Clone, Debug)]
pub struct Excerpt {
    begin: Vec<u8>,
    frames: Vec<Arc<Frame>>,
    end: Vec<u8>,
    past: Option<(u32, u64)>,
    begins: u64,
}

impl Excerpt {
    /// When it begins, CLOCK_BOOTTIME nanoseconds.
    #[must_use]
    pub const fn begins(&self) -> u64 {
        self.begins
    }

    /// Bytes of the recording, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let frames: usize = self.frames.iter().map(|frame| frame.packed.len()).sum();
        self.begin.len() + frames + self.end.len()
    }

    /// Writes the recording.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.begin)?;
        for frame in &self.frames {
            match self.past {
                Some((pod, kill)) if frame.first_t <= kill => out.write_all(&without(&frame.packed, pod, kill)?)?,
                _ => out.write_all(&frame.packed)?,
            }
        }
        out.write_all(&self.end)
    }
}

/// The frame without a pod's samples, forecasts and kills up to then: it is told by what comes later, and its charges still count.
fn without(packed: &[u8], pod: u32, kill: u64) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), NAME).map_err(io::Error::other)?;
    for event in events_of(packed)? {
        let told = event.t <= kill
            && match &event.body {
                Body::Sample(sample) => sample.pod == pod,
                Body::Oom(oom) => oom.pod == Some(pod),
                Body::Forecast(forecast) => forecast.pod == pod,
                Body::Alert(alert) => alert.pod == pod,
                _ => false,
            };
        if !told {
            writer.push(&event).map_err(io::Error::other)?;
        }
    }
    writer.finish().map_err(io::Error::other)?;
    Ok(std::mem::take(writer.sink_mut()))
}

/// The events of lines that were packed here.
fn events_of(packed: &[u8]) -> io::Result<Vec<Event>> {
    // Grows as it goes: asking for the largest frame at once would have all of it locked in memory.
    zstd::decode_all(packed)?
        .lines()
        .map(|line| serde_json::from_str(&line?).map_err(io::Error::from))
        .collect()
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
