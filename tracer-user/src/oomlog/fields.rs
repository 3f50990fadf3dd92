//! Fields of a journal entry, whatever form they came in.

use serde_json::Value;

use super::frame::{Framed, Message};
use super::prefix;
use super::report::Stamp;

/// The fields of a journal entry that matter here.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) message: Option<String>,
    transport: Option<String>,
    identifier: Option<String>,
    host: Option<String>,
    realtime_us: Option<i64>,
    pub(super) monotonic_us: Option<u64>,
}

impl Fields {
    /// Takes a field, if it is one that matters.
    pub(super) fn set(&mut self, name: &str, value: &str) {
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
    pub(super) fn from_json(line: &str) -> Option<Self> {
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

    /// The message, if there is one and the kernel said it.
    pub(super) fn framed(self) -> Framed {
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
pub(super) fn json_text(value: &Value) -> Option<String> {
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
