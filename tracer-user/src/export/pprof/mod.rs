//! A profile for pprof: overhead that was charged, by stack, with the pod, role, thread and kind as labels.

mod proto;

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use super::stacks::{Charged, Row, Sampled};
use super::{Exporter, Source};
use crate::escape;
use crate::recording::event::{Body, Event, Frame};
use crate::units::clamp;
use proto::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType};

/// Gathers stacks, and writes them as a profile at the end.
pub(super) struct Pprof<'a> {
    out: &'a mut dyn Write,
    sampled: Sampled,
}

impl<'a> Pprof<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            sampled: Sampled::default(),
        }
    }
}

impl Exporter for Pprof<'_> {
    fn event(&mut self, source: Source<'_>, event: &Event) -> io::Result<()> {
        if let Body::StackCharge(charge) = &event.body {
            self.sampled.take(source, charge);
        }
        Ok(())
    }

    fn finish(&mut self, sources: &[Source<'_>]) -> io::Result<()> {
        let mut builder = Builder::new(sources);
        for (row, charged) in self.sampled.rows() {
            if let Some(source) = sources.get(row.pod.0) {
                builder.add(*source, row, charged);
            }
        }
        let mut packed = GzEncoder::new(&mut *self.out, Compression::default());
        packed.write_all(&builder.profile.encode_to_vec())?;
        packed.finish()?;
        self.out.flush()
    }
}

/// A profile being made.
struct Builder {
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<i64, u64>,
    mappings: HashMap<(i64, i64), u64>,
    /// By mapping, and function or offset.
    locations: HashMap<(u64, u64, u64), u64>,
}

impl Builder {
    fn new(sources: &[Source<'_>]) -> Self {
        let mut this = Self {
            profile: Profile {
                string_table: vec![String::new()],
                ..Profile::default()
            },
            strings: HashMap::from([(String::new(), 0)]),
            functions: HashMap::new(),
            mappings: HashMap::new(),
            locations: HashMap::new(),
        };
        let charged = ValueType {
            r#type: this.string("charged"),
            unit: this.string("bytes"),
        };
        let samples = ValueType {
            r#type: this.string("samples"),
            unit: this.string("count"),
        };
        this.profile.sample_type = vec![samples, charged];
        this.profile.default_sample_type = charged.r#type;
        this.profile.period_type = Some(charged);
        let window = |source: &Source<'_>| {
            let (start, end) = source.ledger.window();
            (source.unix_ns(start), source.unix_ns(end))
        };
        let start = sources.iter().map(|source| window(source).0).min().unwrap_or(0);
        let end = sources.iter().map(|source| window(source).1).max().unwrap_or(0);
        let granularity = sources.first().map_or(0, |source| source.ledger.header().granularity);
        this.profile.period = clamp(i128::from(granularity));
        this.profile.time_nanos = clamp(i128::from(start));
        this.profile.duration_nanos = clamp(i128::from(end) - i128::from(start));
        this
    }

    /// Number of a text, with what acts on a terminal made visible.
    fn string(&mut self, text: &str) -> i64 {
        let text = escape::terminal(text);
        if let Some(number) = self.strings.get(text.as_ref()) {
            return *number;
        }
        let number = i64::try_from(self.profile.string_table.len()).unwrap_or(0);
        self.profile.string_table.push(text.clone().into_owned());
        self.strings.insert(text.into_owned(), number);
        number
    }

    fn add(&mut self, source: Source<'_>, row: &Row, charged: Charged) {
        let path = source.ledger.paths().path(row.stack);
        let frames = path.kernel.iter().chain(&path.user);
        let location_id = frames.map(|frame| self.location(frame)).collect();
        let pod = source.ledger.pod(row.pod.1);
        let labels = [
            ("pod", pod.map_or_else(String::new, |pod| pod.pod.label())),
            ("role", row.entity.role.to_string()),
            ("process", row.entity.process.clone()),
            ("thread", row.thread.clone()),
            ("kind", row.kind.as_str().to_owned()),
            ("node", source.node().to_owned()),
        ];
        let label = labels
            .iter()
            .map(|(key, value)| Label {
                key: self.string(key),
                str: self.string(value),
            })
            .collect();
        self.profile.sample.push(Sample {
            location_id,
            value: vec![clamp(i128::from(charged.samples)), clamp(i128::from(charged.bytes))],
            label,
        });
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        let mapping = self.mapping(frame);
        let function = frame
            .symbol
            .as_deref()
            .map_or(0, |symbol| self.function(mapping, symbol));
        // Addresses are offsets in the file: no two processes have it at the same place.
        let address = frame.offset.unwrap_or(0);
        let next = self.profile.location.len() as u64 + 1;
        let id = *self.locations.entry((mapping, function, address)).or_insert(next);
        if id == next {
            self.profile.location.push(Location {
                id,
                mapping_id: mapping,
                address,
                line: (function != 0)
                    .then_some(Line { function_id: function })
                    .into_iter()
                    .collect(),
            });
        }
        id
    }

    fn function(&mut self, mapping: u64, symbol: &str) -> u64 {
        let index = usize::try_from(mapping).unwrap_or(0).checked_sub(1);
        if let Some(mapping) = index.and_then(|index| self.profile.mapping.get_mut(index)) {
            mapping.has_functions = true;
        }
        let name = self.string(symbol);
        let next = self.profile.function.len() as u64 + 1;
        let id = *self.functions.entry(name).or_insert(next);
        if id == next {
            self.profile.function.push(Function {
                id,
                name,
                system_name: name,
            });
        }
        id
    }

    fn mapping(&mut self, frame: &Frame) -> u64 {
        let filename = self.string(&frame.module);
        let build_id = self.string(frame.build_id.as_deref().unwrap_or_default());
        let next = self.profile.mapping.len() as u64 + 1;
        let id = *self.mappings.entry((filename, build_id)).or_insert(next);
        if id == next {
            self.profile.mapping.push(Mapping {
                id,
                memory_start: 0,
                // Offsets of any file.
                memory_limit: 1 << 48,
                filename,
                build_id,
                has_functions: false,
            });
        }
        id
    }
}
