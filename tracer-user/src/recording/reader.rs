//! Reads a recording, whole or not.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::MAX_LINE;
use super::event::{Body, ChargeLine, Event, FORMAT, Header};
use super::frames::{Damage, Frames, begins_like_a_frame};

/// Why a recording cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is nothing in it.
    #[error("it is empty: the recorder ended before it wrote anything")]
    Empty,
    /// It is something else.
    #[error("it is not a headroom recording")]
    NotARecording,
    /// It ends within the first frame.
    #[error("it ends before its header: the recorder was killed while it started")]
    NoHeader,
    /// The frame with the header is damaged.
    #[error("it is damaged at its beginning, and nothing can be read without the header there")]
    HeaderDamaged,
    /// A later major version.
    #[error("it is written in {0}, and this headroom reads up to {FORMAT}: use a newer headroom")]
    Newer(String),
}

/// In which state a recording was found, known after its last event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It ends with its footer.
    Complete,
    /// It has no footer: the recorder was killed, or still runs.
    Incomplete,
    /// Something in it could not be read.
    Damaged,
}

/// Lines that were read but not understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Events of types that this version does not know.
    pub unknown_types: u64,
    /// Lines that are no event, or one with values that this version does not know.
    pub unreadable: u64,
    /// Lines longer than any event.
    pub too_long: u64,
    /// Lines behind the footer, or behind a second header.
    pub behind_end: u64,
}

/// What reading found, beside the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The state.
    pub state: State,
    /// What was wrong with frames.
    pub damage: Damage,
    /// What was wrong with lines.
    pub skipped: Skipped,
}

/// Reads a recording event by event, beginning with its header, in memory bounded by the size of a frame.
///
/// Only events of frames whose checksum is right are given out.
pub struct Reader<R> {
    frames: Frames<R>,
    header: Header,
    /// Start of the next line in the frame at hand.
    position: usize,
    skipped: Skipped,
    began: bool,
    footer: bool,
    ended: bool,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("header", &self.header)
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

impl Reader<File> {
    /// Opens a recording.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::new(File::open(path)?)
    }
}

impl<R: Read> Reader<R> {
    /// Reads from `source`, up to the header for now.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn new(source: R) -> Result<Self, ReadError> {
        let mut frames = Frames::new(source)?;
        match frames.first_bytes()? {
            [] => return Err(ReadError::Empty),
            bytes if !begins_like_a_frame(bytes) => return Err(ReadError::NotARecording),
            _ => {}
        }
        let mut more = frames.advance()?;
        while more && frames.lines().is_empty() {
            more = frames.advance()?;
        }
        let damaged = frames.damage().stretches > 0;
        let lines = frames.lines();
        let first = lines.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let header = match parse(first) {
            Some(Event {
                body: Body::Header(header),
                ..
            }) => header,
            _ if damaged => return Err(ReadError::HeaderDamaged),
            _ if !more => return Err(ReadError::NoHeader),
            _ => return Err(header_error(first)),
        };
        check_format(&header.format)?;
        Ok(Self {
            frames,
            header,
            position: 0,
            skipped: Skipped::default(),
            began: false,
            footer: false,
            ended: false,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What reading found so far; final once the last event was given out.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let damage = self.frames.damage();
        let skipped = self.skipped;
        let state = if damage.stretches > 0 || skipped.behind_end > 0 || (self.footer && damage.cut_off > 0) {
            State::Damaged
        } else if self.footer {
            State::Complete
        } else {
            State::Incomplete
        };
        Summary { state, damage, skipped }
    }

    /// The next event of the frame at hand.
    fn next_in_frame(&mut self) -> Option<Event> {
        while !self.ended
            && let Some(rest) = self.frames.lines().get(self.position..).filter(|rest| !rest.is_empty())
        {
            let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let line = &rest[..length];
            self.position += length + 1;
            if line.is_empty() {
                continue;
            }
            if self.footer {
                self.skipped.behind_end += 1;
                continue;
            }
            if length > MAX_LINE {
                self.skipped.too_long += 1;
                continue;
            }
            match parse(line) {
                None => self.skipped.unreadable += 1,
                Some(event) => {
                    if let Some(event) = self.admit(event) {
                        return Some(event);
                    }
                }
            }
        }
        None
    }

    /// Lets an event through, unless it is of a later version or belongs to another recording.
    fn admit(&mut self, event: Event) -> Option<Event> {
        match event.body {
            Body::Unknown => {
                self.skipped.unknown_types += 1;
                None
            }
            Body::Header(_) if self.began => {
                // Two recordings in one file: sums over both would be wrong.
                self.skipped.behind_end += 1;
                self.ended = true;
                None
            }
            _ => {
                self.began = true;
                self.footer = matches!(event.body, Body::Footer(_));
                Some(event)
            }
        }
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            if let Some(event) = self.next_in_frame() {
                return Some(Ok(event));
            }
            if self.ended {
                break;
            }
            match self.frames.advance() {
                Ok(more) => {
                    self.ended = !more;
                    self.position = 0;
                }
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error.into()));
                }
            }
        }
        None
    }
}

/// An event, if the line is one.
fn parse(line: &[u8]) -> Option<Event> {
    parse_charge(line).or_else(|| serde_json::from_slice(line).ok())
}

/// A charge, if the line is one in the order that the writer writes. Most lines are, and this takes a third of the time.
fn parse_charge(line: &[u8]) -> Option<Event> {
    let behind_t = line.strip_prefix(br#"{"t":"#)?;
    let digits = behind_t.iter().position(|byte| *byte == b',')?;
    if !behind_t.get(digits..)?.starts_with(br#","type":"charge","#) {
        return None;
    }
    serde_json::from_slice::<ChargeLine>(line).ok().map(Event::from)
}

/// The format alone, for a header whose other fields this version may not understand.
#[derive(serde::Deserialize)]
struct FormatOnly {
    #[serde(rename = "type")]
    kind: String,
    format: String,
}

fn header_error(line: &[u8]) -> ReadError {
    match serde_json::from_slice::<FormatOnly>(line) {
        Ok(first) if first.kind == "header" => check_format(&first.format).err().unwrap_or(ReadError::HeaderDamaged),
        _ => ReadError::NotARecording,
    }
}

fn check_format(format: &str) -> Result<(), ReadError> {
    let (name, ours) = FORMAT.split_once('/').unwrap_or((FORMAT, ""));
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match format.split_once('/') {
        Some((theirs, version)) if theirs == name => match (major(version), major(ours)) {
            (Some(theirs), Some(ours)) if theirs <= ours => Ok(()),
            (Some(_), _) => Err(ReadError::Newer(format.chars().take(64).collect())),
            _ => Err(ReadError::NotARecording),
        },
        _ => Err(ReadError::NotARecording),
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
