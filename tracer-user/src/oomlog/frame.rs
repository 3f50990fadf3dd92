//! Lines of a log -> kernel messages: takes away what dmesg, journalctl, syslog or /dev/kmsg put around them.

use super::fields::Fields;
use super::objects::{Objects, Step, Verbose};
use super::prefix;
use super::report::Stamp;

/// A message of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Host that the log names.
    pub host: Option<String>,
    /// Who printed it (`T123`, `C1`), where the kernel or its log says so.
    pub caller: Option<String>,
    /// When.
    pub stamp: Option<Stamp>,
    /// What. May hold line breaks.
    pub text: String,
    /// The line had no prefix at all: it may continue the one before.
    pub bare: bool,
}

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framed {
    /// A message of the kernel.
    Message(Message),
    /// A message of another program.
    Foreign,
    /// Part of the log's own structure, or of a message that is not complete yet.
    Structure,
}

/// Longest message that is taken in; the rest of a longer line is cut off. The longest line of an OOM report holds
/// two cgroup paths, each at most 4096 bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Takes the frames off, line by line. Forms may change from line to line.
#[derive(Debug, Default)]
pub struct Framer {
    /// The journal entry (export format) that is being read.
    entry: Option<Entry>,
    /// The last line was a /dev/kmsg record, so ` KEY=value` lines belong to it.
    after_kmsg: bool,
    /// JSON with a field on each line: `journalctl -o json-pretty`, `dmesg -J`.
    objects: Objects,
    /// `journalctl -o verbose`
    verbose: Verbose,
}

#[derive(Debug, Default)]
struct Entry {
    fields: Fields,
    binary: Option<Binary>,
}

/// A field of the export format with a length before its bytes, which may hold line breaks.
#[derive(Debug, Default)]
struct Binary {
    name: String,
    bytes: Vec<u8>,
    seen: u64,
}

impl Framer {
    /// Takes one line, without its line break.
    pub fn line(&mut self, raw: &[u8]) -> Framed {
        if let Some(entry) = &mut self.entry {
            return match entry.line(raw) {
                Progress::More => Framed::Structure,
                Progress::End => self
                    .entry
                    .take()
                    .map_or(Framed::Structure, |entry| entry.fields.framed()),
            };
        }
        let raw = &raw[..raw.len().min(MAX_LINE)];
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        if raw.starts_with(b"__CURSOR=") {
            self.entry = Some(Entry::default());
            return Framed::Structure;
        }
        let line = String::from_utf8_lossy(raw);
        let step = match self.verbose.line(&line) {
            Step::Elsewhere => self.objects.line(&line),
            step => step,
        };
        match step {
            Step::Elsewhere => {}
            Step::Part => return Framed::Structure,
            Step::Entry(fields) => return fields.framed(),
        }
        // journalctl -o json-seq, json-sse
        let json = line.trim_start_matches('\u{1e}');
        let json = json.strip_prefix("data: ").unwrap_or(json);
        if json.starts_with('{')
            && let Some(fields) = Fields::from_json(json)
        {
            return fields.framed();
        }
        if self.after_kmsg && is_kmsg_dictionary(&line) {
            return Framed::Structure;
        }
        let framed = prefix::strip(&line);
        self.after_kmsg = prefix::is_kmsg(&line);
        framed
    }

    /// The entry that the log ended in.
    pub fn finish(&mut self) -> Framed {
        let entry = self.entry.take().map(|entry| entry.fields);
        entry
            .or_else(|| self.verbose.finish())
            .map_or(Framed::Structure, Fields::framed)
    }
}

/// kernel: Documentation/ABI/testing/dev-kmsg: continuation lines ` SUBSYSTEM=acpi`, ` DEVICE=+acpi:PNP0C02:00`.
fn is_kmsg_dictionary(line: &str) -> bool {
    line.strip_prefix(' ')
        .and_then(|rest| rest.split_once('='))
        .is_some_and(|(key, _)| {
            !key.is_empty()
                && key
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
}

enum Progress {
    More,
    End,
}

impl Entry {
    fn line(&mut self, raw: &[u8]) -> Progress {
        if let Some(binary) = &mut self.binary {
            binary.push(raw);
            if binary.complete() {
                let binary = self.binary.take().unwrap_or_default();
                let value = binary.bytes.get(8..).unwrap_or_default();
                let value = value.strip_suffix(b"\n").unwrap_or(value);
                self.fields.set(&binary.name, &String::from_utf8_lossy(value));
            }
            return Progress::More;
        }
        if raw.is_empty() {
            return Progress::End;
        }
        let line = String::from_utf8_lossy(&raw[..raw.len().min(MAX_LINE)]);
        match line.split_once('=') {
            Some((name, value)) => self.fields.set(name, value),
            None => {
                self.binary = Some(Binary {
                    name: line.into_owned(),
                    ..Binary::default()
                });
            }
        }
        Progress::More
    }
}

impl Binary {
    /// Takes the bytes of a line and the line break that ended it.
    fn push(&mut self, raw: &[u8]) {
        let room = (MAX_LINE + 8).saturating_sub(self.bytes.len());
        self.bytes.extend(raw.iter().chain(b"\n").take(room));
        self.seen = self.seen.saturating_add(raw.len() as u64 + 1);
    }

    /// 8 bytes of length (little-endian), the value, a line break.
    fn complete(&self) -> bool {
        self.bytes
            .first_chunk::<8>()
            .is_some_and(|length| self.seen >= u64::from_le_bytes(*length).saturating_add(9))
    }
}
