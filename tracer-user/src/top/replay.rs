//! Plays a recording.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::feed::Feed;
use super::view::Playing;
use crate::recording::event::{Body, Event};
use crate::recording::{ReadError, Reader, State};

/// Seconds of the recording per second.
const SPEEDS: [u32; 8] = [1, 2, 5, 10, 20, 60, 300, 1200];
/// The view shows this much of the past: what is before that need not be followed sample by sample.
const PAST_NS: u64 = 40_000_000_000;
/// Events between two looks at the clock.
const BATCH: usize = 256;

/// A recording, and where in it we are.
#[derive(Debug)]
pub struct Player {
    path: PathBuf,
    reader: Reader<File>,
    /// Read, but later than where we are.
    pending: Option<Event>,
    feed: Feed,
    span: (u64, u64),
    kills: Vec<u64>,
    state: State,
    /// Where we are, or where we are going.
    position: u64,
    /// Where a seek began, to say how far it is.
    from: u64,
    /// Time of the last event taken.
    reached: u64,
    arrived: bool,
    playing: bool,
    speed: usize,
}

impl Player {
    /// Opens a recording and stands at its end, as it is usually read after a kill.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let mut reader = Reader::open(path)?;
        let mut span: Option<(u64, u64)> = None;
        let mut kills = Vec::new();
        for event in &mut reader {
            let event = event?;
            if matches!(event.body, Body::Header(_)) {
                continue;
            }
            let (start, end) = span.unwrap_or((event.t, event.t));
            span = Some((start.min(event.t), end.max(event.t)));
            if matches!(event.body, Body::Oom(_)) {
                kills.push(event.t);
            }
        }
        let span = span.unwrap_or_default();
        let state = reader.summary().state;
        Ok(Self {
            path: path.to_owned(),
            reader: Reader::open(path)?,
            pending: None,
            feed: Feed::replay(),
            span,
            kills,
            state,
            position: span.1,
            from: span.0,
            reached: 0,
            arrived: false,
            playing: false,
            speed: 0,
        })
    }

    /// What was read so far.
    #[must_use]
    pub const fn feed(&self) -> &Feed {
        &self.feed
    }

    /// The time that is shown.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// In which state the recording is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether time goes on by itself.
    #[must_use]
    pub const fn is_playing(&self) -> bool {
        self.playing
    }

    /// Whether everything up to the position was read.
    #[must_use]
    pub const fn has_arrived(&self) -> bool {
        self.arrived
    }

    /// How it is played, for the view.
    #[must_use]
    pub fn status(&self) -> Playing {
        let way = self.position.saturating_sub(self.from).max(1);
        let done = u128::from(self.reached.clamp(self.from, self.position.max(self.from)) - self.from) * 100;
        Playing {
            span: self.span,
            kills: self.kills.clone(),
            speed: SPEEDS[self.speed],
            seeking: (!self.arrived).then(|| u8::try_from(done / u128::from(way)).unwrap_or(100)),
            state: match self.state {
                State::Complete => None,
                State::Incomplete => Some("INCOMPLETE"),
                State::Damaged => Some("DAMAGED"),
            },
        }
    }

    /// Reads on towards the position, for at most `budget`.
    ///
    /// # Errors
    /// When the file can no longer be read.
    pub fn advance(&mut self, budget: Duration) -> Result<(), ReadError> {
        let begun = Instant::now();
        while !self.arrived && begun.elapsed() < budget {
            for _ in 0..BATCH {
                let event = match self.pending.take() {
                    Some(event) => event,
                    None => match self.reader.next() {
                        Some(event) => event?,
                        None => {
                            self.arrived = true;
                            break;
                        }
                    },
                };
                if event.t > self.position {
                    self.pending = Some(event);
                    self.arrived = true;
                    break;
                }
                self.reached = self.reached.max(event.t);
                if event.t.saturating_add(PAST_NS) >= self.position {
                    self.feed.apply(&event);
                } else {
                    self.feed.apply_unseen(&event);
                }
            }
        }
        Ok(())
    }

    /// Goes to a time of CLOCK_BOOTTIME, nanoseconds. Back means to read from the beginning.
    ///
    /// # Errors
    /// When the file can no longer be read.
    pub fn seek(&mut self, t: u64) -> Result<(), ReadError> {
        let t = t.clamp(self.span.0, self.span.1);
        if t < self.position {
            self.reader = Reader::open(&self.path)?;
            self.pending = None;
            self.feed = Feed::replay();
            self.reached = 0;
            self.from = self.span.0;
        } else {
            self.from = self.position;
        }
        self.position = t;
        self.arrived = false;
        Ok(())
    }

    /// Goes on, or back, by seconds.
    ///
    /// # Errors
    /// See [`Player::seek`].
    pub fn seek_by(&mut self, seconds: i64) -> Result<(), ReadError> {
        let by = seconds.unsigned_abs().saturating_mul(1_000_000_000);
        let t = if seconds < 0 {
            self.position.saturating_sub(by)
        } else {
            self.position.saturating_add(by)
        };
        self.seek(t)
    }

    /// Goes to the beginning.
    ///
    /// # Errors
    /// See [`Player::seek`].
    pub fn seek_start(&mut self) -> Result<(), ReadError> {
        self.seek(self.span.0)
    }

    /// Goes to the end.
    ///
    /// # Errors
    /// See [`Player::seek`].
    pub fn seek_end(&mut self) -> Result<(), ReadError> {
        self.seek(self.span.1)
    }

    /// Plays or stops; at the end it begins anew.
    ///
    /// # Errors
    /// See [`Player::seek`].
    pub fn play_or_stop(&mut self) -> Result<(), ReadError> {
        self.playing = !self.playing;
        if self.playing && self.position == self.span.1 {
            self.seek_start()?;
        }
        Ok(())
    }

    /// Lets time pass; the end stops it.
    ///
    /// # Errors
    /// See [`Player::seek`].
    pub fn pass(&mut self, elapsed: Duration) -> Result<(), ReadError> {
        if !self.playing || !self.arrived {
            return Ok(());
        }
        let by = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let by = by.saturating_mul(SPEEDS[self.speed].into());
        self.seek(self.position.saturating_add(by))?;
        self.playing = self.position < self.span.1;
        Ok(())
    }

    /// Plays faster.
    pub const fn faster(&mut self) {
        if self.speed + 1 < SPEEDS.len() {
            self.speed += 1;
        }
    }

    /// Plays slower.
    pub const fn slower(&mut self) {
        self.speed = self.speed.saturating_sub(1);
    }
}
