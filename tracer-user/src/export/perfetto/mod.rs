//! A trace for Perfetto: counters by pod and role, reclaim stalls as slices, kills and alerts as instants.
//!
//! Times are CLOCK_BOOTTIME of the node whose recording begins first, so that a trace of one recording goes together
//! with other traces of that node; those of other nodes are brought there by UTC.

mod lanes;
mod proto;

use std::collections::HashMap;
use std::io::{self, Write};

use prost::Message as _;

use super::moment::{Moment, Moments, PodKey};
use super::{Exporter, Source};
use crate::escape;
use crate::ledger::{Entity, PodLedger, ThreadKey};
use crate::recording::event::{Alert, Body, Event, Oom, OomTask, Reclaim};
use crate::units::clamp;
use lanes::{Lanes, Placed};
use proto::{
    Clock, ClockSnapshot, CounterDescriptor, Data, DebugAnnotation, TracePacket, TrackDescriptor, TrackEvent, Value,
};

/// The one sequence that all packets belong to.
const SEQUENCE: u32 = 1;

/// `Trace.packet`: field 1, with its length.
const PACKET: u8 = 1 << 3 | 2;

/// Where numbers of tracks begin, so that they are unlikely to be those of a trace this one is put together with.
const FIRST_UUID: u64 = 0x6865_6164_726f_0000;

/// Roles whose stalls are told apart in a pod.
const MAX_ROLES: usize = 256;

/// A line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Track {
    Node(String),
    Pod(PodKey),
    Counter(PodKey, &'static str),
    /// What the lines of roles are below.
    Group(PodKey, &'static str),
    Overhead(PodKey, Entity),
    /// Kills and alerts.
    Moments(PodKey),
}

/// Overhead by role.
const OVERHEAD: &str = "overhead growth";
/// Stalls by role.
const STALLS: &str = "reclaim stalls";

/// Writes packets as events come.
pub(super) struct Perfetto<'a> {
    out: &'a mut dyn Write,
    moments: Moments,
    /// UTC of the boot that times are counted from; absent before the first packet.
    boot_unix_ns: Option<u64>,
    tracks: HashMap<Track, u64>,
    last_uuid: u64,
    /// What a counter was last said to be: it stays so until it is said to be something else.
    values: HashMap<u64, i64>,
    stalls: HashMap<PodKey, HashMap<String, Lanes>>,
}

impl<'a> Perfetto<'a> {
    pub(super) fn new(out: &'a mut dyn Write, moments: Moments) -> Self {
        Self {
            out,
            moments,
            boot_unix_ns: None,
            tracks: HashMap::new(),
            last_uuid: FIRST_UUID,
            values: HashMap::new(),
            stalls: HashMap::new(),
        }
    }

    fn packet(&mut self, timestamp: Option<u64>, data: Data) -> io::Result<()> {
        let packet = TracePacket {
            timestamp,
            trusted_packet_sequence_id: Some(SEQUENCE),
            data: Some(data),
            ..TracePacket::default()
        };
        self.write(&packet)
    }

    fn write(&mut self, packet: &TracePacket) -> io::Result<()> {
        self.out.write_all(&[PACKET])?;
        self.out.write_all(&packet.encode_length_delimited_to_vec())
    }

    /// The time of an event on the clock of the trace, which begins with the first one.
    fn time(&mut self, source: Source<'_>, t: u64) -> io::Result<u64> {
        if let Some(boot_unix_ns) = self.boot_unix_ns {
            return Ok(source.unix_ns(t).saturating_sub(boot_unix_ns));
        }
        self.boot_unix_ns = Some(source.unix_ns(0));
        let clock = |clock_id, timestamp| Clock {
            clock_id: Some(clock_id),
            timestamp: Some(timestamp),
        };
        let clocks = vec![clock(proto::BOOTTIME, t), clock(proto::REALTIME, source.unix_ns(t))];
        self.write(&TracePacket {
            timestamp: Some(t),
            trusted_packet_sequence_id: Some(SEQUENCE),
            sequence_flags: Some(proto::SEQ_INCREMENTAL_STATE_CLEARED),
            data: Some(Data::ClockSnapshot(ClockSnapshot { clocks })),
        })?;
        Ok(t)
    }

    fn new_uuid(&mut self) -> u64 {
        self.last_uuid += 1;
        self.last_uuid
    }

    fn describe(&mut self, uuid: u64, name: &str, parent_uuid: Option<u64>, counter: bool) -> io::Result<()> {
        let descriptor = TrackDescriptor {
            uuid: Some(uuid),
            name: Some(escape::terminal(name).into_owned()),
            parent_uuid,
            counter: counter.then_some(CounterDescriptor {
                unit: Some(proto::UNIT_SIZE_BYTES),
            }),
            child_ordering: Some(proto::EXPLICIT),
            // In the order in which they were first needed.
            sibling_order_rank: i32::try_from(uuid - FIRST_UUID).ok(),
        };
        self.packet(None, Data::TrackDescriptor(descriptor))
    }

    /// The number of a line, described when it is first needed.
    fn track(&mut self, track: Track, source: Source<'_>, pod: &PodLedger) -> io::Result<u64> {
        if let Some(uuid) = self.tracks.get(&track) {
            return Ok(*uuid);
        }
        let (name, parent, counter) = match &track {
            Track::Node(node) => (format!("node {node}"), None, false),
            Track::Pod(_) => (pod_name(pod), Some(Track::Node(source.node().to_owned())), false),
            Track::Counter(key, name) => ((*name).to_owned(), Some(Track::Pod(*key)), true),
            Track::Group(key, name) => ((*name).to_owned(), Some(Track::Pod(*key)), false),
            Track::Overhead(key, entity) => (entity_name(entity), Some(Track::Group(*key, OVERHEAD)), true),
            Track::Moments(key) => ("kills and alerts".to_owned(), Some(Track::Pod(*key)), false),
        };
        let parent = match parent {
            Some(parent) => Some(self.track(parent, source, pod)?),
            None => None,
        };
        let uuid = self.new_uuid();
        self.describe(uuid, &name, parent, counter)?;
        self.tracks.insert(track, uuid);
        Ok(uuid)
    }

    fn counter(&mut self, moment: &Moment<'_>, track: Track, value: i64) -> io::Result<()> {
        let t = self.time(moment.source, moment.t)?;
        let uuid = self.track(track, moment.source, moment.pod)?;
        if self.values.insert(uuid, value) == Some(value) {
            return Ok(());
        }
        let event = TrackEvent {
            r#type: Some(proto::TYPE_COUNTER),
            track_uuid: Some(uuid),
            counter_value: Some(value),
            ..TrackEvent::default()
        };
        self.packet(Some(t), Data::TrackEvent(event))
    }

    fn moment(&mut self, moment: &Moment<'_>) -> io::Result<()> {
        let key = moment.key();
        let unsigned = |bytes: u64| clamp(i128::from(bytes));
        if let Some(levels) = &moment.levels {
            self.counter(moment, Track::Counter(key, "usage"), unsigned(levels.usage))?;
            if let Some(limit) = levels.limit {
                self.counter(moment, Track::Counter(key, "limit"), unsigned(limit))?;
                let headroom = unsigned(limit.saturating_sub(levels.usage));
                self.counter(moment, Track::Counter(key, "headroom"), headroom)?;
            }
            if let Some(bytes) = levels.guest_resident {
                self.counter(moment, Track::Counter(key, "guest RAM resident"), unsigned(bytes))?;
            }
        }
        if let Some(sample) = moment.levels.as_ref().and_then(|levels| levels.sample) {
            let bytes = unsigned(sample.reclaimable_file);
            self.counter(moment, Track::Counter(key, "reclaimable page cache"), bytes)?;
        }
        if let Some(growth) = &moment.growth {
            for (entity, bytes) in growth.by_entity() {
                self.counter(moment, Track::Overhead(key, entity.clone()), clamp(bytes))?;
            }
            self.counter(moment, Track::Counter(key, "guest RAM growth"), clamp(growth.guest))?;
            self.counter(
                moment,
                Track::Counter(key, "unexplained growth"),
                clamp(growth.unexplained),
            )?;
        }
        Ok(())
    }

    fn stall(&mut self, source: Source<'_>, t: u64, reclaim: &Reclaim) -> io::Result<()> {
        let ledger = source.ledger;
        let Some(pod) = ledger.pod_of_memcg(reclaim.memcg).and_then(|number| ledger.pod(number)) else {
            return Ok(());
        };
        let thread = ThreadKey {
            tid: reclaim.tid,
            start_ns: reclaim.start_ns,
        };
        let key = (source.number, pod.pod.pod);
        let entity = ledger.entity(thread);
        let end = self.time(source, t)?;
        let group = self.track(Track::Group(key, STALLS), source, pod)?;
        let roles = self.stalls.entry(key).or_default();
        let mut name = entity_name(&entity);
        if roles.len() >= MAX_ROLES && !roles.contains_key(&name) {
            name = entity_name(&Entity::others());
        }
        let next = self.last_uuid + 1;
        let begin = end.saturating_sub(reclaim.duration_ns);
        let Placed { uuid, begin, new } = roles.entry(name.clone()).or_default().place(begin, end, || next);
        if new {
            self.last_uuid = next;
            // Lines of one name are drawn as one.
            self.describe(uuid, &name, Some(group), false)?;
        }
        let comm = ledger.thread_of(thread).map_or("", |thread| thread.comm.as_str());
        let slice = TrackEvent {
            r#type: Some(proto::TYPE_SLICE_BEGIN),
            track_uuid: Some(uuid),
            name: Some(format!("{} ({})", escape::terminal(comm), reclaim.tid)),
            categories: vec!["reclaim".to_owned()],
            debug_annotations: vec![
                number("tid", u64::from(reclaim.tid)),
                number("duration_ns", reclaim.duration_ns),
                number("pages", reclaim.pages),
                number("order", u64::from(reclaim.order)),
            ],
            ..TrackEvent::default()
        };
        self.packet(Some(begin), Data::TrackEvent(slice))?;
        let slice = TrackEvent {
            r#type: Some(proto::TYPE_SLICE_END),
            track_uuid: Some(uuid),
            ..TrackEvent::default()
        };
        self.packet(Some(end.max(begin)), Data::TrackEvent(slice))
    }

    fn instant(
        &mut self,
        source: Source<'_>,
        t: u64,
        pod: u32,
        name: String,
        debug_annotations: Vec<DebugAnnotation>,
    ) -> io::Result<()> {
        // Of a pod that no event described there is no line.
        let Some(ledger) = source.ledger.pod(pod) else {
            return Ok(());
        };
        let t = self.time(source, t)?;
        let track = self.track(Track::Moments((source.number, pod)), source, ledger)?;
        let event = TrackEvent {
            r#type: Some(proto::TYPE_INSTANT),
            track_uuid: Some(track),
            name: Some(name),
            debug_annotations,
            ..TrackEvent::default()
        };
        self.packet(Some(t), Data::TrackEvent(event))
    }

    fn kill(&mut self, source: Source<'_>, t: u64, oom: &Oom) -> io::Result<()> {
        let Some(pod) = source.ledger.pod_of_oom(oom) else {
            return Ok(());
        };
        let annotations = vec![
            text("victim", &task_name(&oom.victim)),
            text("invoker", &task_name(&oom.invoker)),
            number("usage", oom.usage),
            number("limit", oom.limit),
        ];
        let name = format!("OOM kill: {}", escape::terminal(&oom.victim.comm));
        self.instant(source, t, pod, name, annotations)
    }

    fn alert(&mut self, source: Source<'_>, t: u64, alert: &Alert) -> io::Result<()> {
        let state = if alert.raised { "raised" } else { "ended" };
        let mut annotations = vec![number("threshold", alert.threshold)];
        annotations.extend(alert.value.map(|value| number("value", value)));
        annotations.extend(alert.driver.as_ref().map(|driver| text("driver", &driver.process)));
        let name = format!("alert {} {state}", alert.alert.as_str());
        self.instant(source, t, alert.pod, name, annotations)
    }
}

impl Exporter for Perfetto<'_> {
    fn event(&mut self, source: Source<'_>, event: &Event) -> io::Result<()> {
        if let Some(moment) = self.moments.of(source, event) {
            self.moment(&moment)?;
        }
        match &event.body {
            Body::Reclaim(reclaim) => self.stall(source, event.t, reclaim),
            Body::Oom(oom) => self.kill(source, event.t, oom),
            Body::Alert(alert) => self.alert(source, event.t, alert),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, sources: &[Source<'_>]) -> io::Result<()> {
        let mut moments = std::mem::take(&mut self.moments);
        moments.at_kills(sources, |moment| self.moment(moment))?;
        if let (None, [source, ..]) = (self.boot_unix_ns, sources) {
            // A trace of nothing is a trace all the same.
            self.time(*source, source.ledger.window().0)?;
        }
        self.out.flush()
    }
}

fn pod_name(pod: &PodLedger) -> String {
    let pod = &pod.pod;
    match (pod.namespace.as_str(), pod.vm.as_str()) {
        (_, "") => pod.cgroup.clone(),
        ("", vm) => vm.to_owned(),
        (namespace, vm) => format!("{namespace}/{vm}"),
    }
}

fn entity_name(entity: &Entity) -> String {
    format!("{} ({})", entity.role, entity.process)
}

fn task_name(task: &OomTask) -> String {
    let role = task.role.as_ref().map_or_else(String::new, |role| format!(", {role}"));
    format!("{} ({}{role})", task.comm, task.tid)
}

fn number(name: &str, value: u64) -> DebugAnnotation {
    DebugAnnotation {
        name: Some(name.to_owned()),
        value: Some(Value::Uint(value)),
    }
}

fn text(name: &str, value: &str) -> DebugAnnotation {
    DebugAnnotation {
        name: Some(name.to_owned()),
        value: Some(Value::Text(escape::terminal(value).into_owned())),
    }
}
