//! JSON Lines: what `zstd -dc` gives, less what is damaged or not known.

use std::io::{self, Write};

use super::{Exporter, Source};
use crate::escape;
use crate::recording::event::Event;

/// Writes each event as a line.
pub(super) struct Jsonl<'a> {
    out: &'a mut dyn Write,
}

impl<'a> Jsonl<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }
}

impl Exporter for Jsonl<'_> {
    fn event(&mut self, _: Source<'_>, event: &Event) -> io::Result<()> {
        let line = serde_json::to_string(event)?;
        self.out.write_all(escape::json(&line).as_bytes())?;
        self.out.write_all(b"\n")
    }

    fn finish(&mut self, _: &[Source<'_>]) -> io::Result<()> {
        self.out.flush()
    }
}
