//! Lines of a log -> kernel messages: takes away what dmesg, journalctl, syslog or /dev/kmsg put around them.

use serde_json::Value;

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
}

#[derive(Debug, Default)]
struct Entry {
    fields: Fields,
    binary: Option<Binary>,
}

/// The fields of a journal entry that matter here.
#[derive(Debug, Default)]
struct Fields {
    message: Option<String>,
    transport: Option<String>,
    identifier: Option<String>,
    host: Option<String>,
    realtime_us: Option<i64>,
    monotonic_us: Option<u64>,
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
        let json = line.trim_start_matches('\u{1e}');
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
        self.entry
            .take()
            .map_or(Framed::Structure, |entry| entry.fields.framed())
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

impl Fields {
    fn set(&mut self, name: &str, value: &str) {
        let text = || Some(value.to_owned());
        match name {
            "MESSAGE" => self.message = text(),
            "_TRANSPORT" => self.transport = text(),
            "SYSLOG_IDENTIFIER" => self.identifier = text(),
            "_HOSTNAME" => self.host = text(),
            "__REALTIME_TIMESTAMP" => self.realtime_us = value.parse().ok(),
            // The kernel's own time is nearer to the event than the journal's.
            "_SOURCE_MONOTONIC_TIMESTAMP" => self.monotonic_us = value.parse().ok(),
            _ => {}
        }
    }

    /// `None` when the line is no journal entry.
    fn from_json(line: &str) -> Option<Self> {
        let Value::Object(object) = serde_json::from_str(line).ok()? else {
            return None;
        };
        let mut fields = Self::default();
        for (name, value) in &object {
            if let Some(value) = json_text(value) {
                fields.set(name, &value);
            }
        }
        fields.message.is_some().then_some(fields)
    }

    fn framed(self) -> Framed {
        let Some(text) = self.message else {
            return Framed::Structure;
        };
        let kernel = |name: &Option<String>| name.as_deref().map(|name| name == "kernel");
        if !kernel(&self.transport)
            .or_else(|| kernel(&self.identifier))
            .unwrap_or(true)
            && kernel(&self.identifier) != Some(true)
        {
            return Framed::Foreign;
        }
        let stamp = (self.realtime_us.is_some() || self.monotonic_us.is_some()).then(|| Stamp {
            printed: prefix::show_time(self.realtime_us, self.monotonic_us),
            boot_us: self.monotonic_us,
            unix_us: self.realtime_us,
        });
        let (caller, text) = prefix::take_caller(&text);
        Framed::Message(Message {
            host: self.host,
            caller,
            stamp,
            text: text.to_owned(),
            bare: false,
        })
    }
}

/// journalctl writes a field that is no printable text as an array of byte values.
fn json_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(bytes) => {
            let bytes: Option<Vec<u8>> = bytes
                .iter()
                .map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
                .collect();
            Some(String::from_utf8_lossy(&bytes?).into_owned())
        }
        _ => None,
    }
}
