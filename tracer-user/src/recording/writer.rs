//! Writes a recording.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::{BufMut as _, BytesMut};
use zstd::bulk::Compressor;

use super::event::{Body, Event};
use super::gather::Gather;

/// A frame is closed when it is this old...
const FRAME_NS: u64 = 1_000_000_000;

/// ... or holds this many bytes of lines.
const FRAME_BYTES: usize = 1 << 20;

/// Higher levels cost more than the tracer's budget of CPU and gain a few percent.
const LEVEL: i32 = 3;

/// Where a recording goes.
pub trait Sink: Write {
    /// Makes what was written survive a crash of the node, where that is possible.
    ///
    /// # Errors
    /// When the medium refuses.
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for File {
    fn sync(&mut self) -> io::Result<()> {
        // Pipes and devices have nothing to sync and refuse with EINVAL.
        if self.metadata()?.is_file() {
            self.sync_data()
        } else {
            Ok(())
        }
    }
}

impl Sink for Vec<u8> {}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn sync(&mut self) -> io::Result<()> {
        (**self).sync()
    }
}

/// Whether a file of that name may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// An existing file is an error.
    Refuse,
    /// An existing file is replaced (`--force`).
    Replace,
}

/// Why a recording could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is such a file.
    #[error("{} exists: choose another name or overwrite it with --force", path.display())]
    Exists {
        /// The recording.
        path: PathBuf,
    },
    /// The file could not be created.
    #[error("cannot create {}: {source}", path.display())]
    Create {
        /// The recording.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk is full.
    #[error("no space left for {}: it ends here and reads up to its last whole second", path.display())]
    Full {
        /// The recording.
        path: PathBuf,
    },
    /// Writing failed.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The recording.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An earlier write failed; whatever came after would stand behind half a frame.
    #[error("{} was given up after an earlier failure", path.display())]
    GivenUp {
        /// The recording.
        path: PathBuf,
    },
}

/// Writes events as JSON lines in Zstandard frames.
///
/// A frame is gathered in memory and written at once: after the header, when it is a second old (by the times of the
/// events, or of [`tick`](Self::tick) when there are none), when it passes 1 MiB, at every mark and OOM, and at the end. Only the
/// OOM and the end are also synced (fdatasync): the page cache outlives a killed tracer, and syncing every second
/// would make the recorder wait for the very disk whose backup it watches.
///
/// Charges of the same account are added up until the next sample, kill, pod or end of the frame.
pub struct Writer<S: Sink> {
    sink: S,
    path: PathBuf,
    compressor: Compressor<'static>,
    /// Charges that are still added up.
    gather: Gather,
    lines: BytesMut,
    opened_ns: Option<u64>,
    failed: bool,
}

impl<S: Sink> std::fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("path", &self.path)
            .field("gathered", &self.lines.len())
            .finish_non_exhaustive()
    }
}

impl Writer<File> {
    /// Creates a recording that only its owner can read: it names processes and files of other people's pods.
    ///
    /// # Errors
    /// [`WriteError::Exists`] or [`WriteError::Create`].
    pub fn create(path: &Path, overwrite: Overwrite) -> Result<Self, WriteError> {
        let file = create(path, overwrite).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => WriteError::Exists { path: path.to_owned() },
            _ => WriteError::Create {
                path: path.to_owned(),
                source,
            },
        })?;
        Self::new(file, path)
    }
}

fn create(path: &Path, overwrite: Overwrite) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match overwrite {
        Overwrite::Refuse => options.create_new(true),
        Overwrite::Replace => options.create(true).truncate(true),
    };
    let file = options.open(path)?;
    if file.metadata()?.is_file() {
        // A replaced file keeps its old mode otherwise.
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

impl<S: Sink> Writer<S> {
    /// Writes to `sink`; `path` is what errors call it.
    ///
    /// # Errors
    /// [`WriteError::Create`] when there is no memory for a compressor.
    pub fn new(sink: S, path: impl Into<PathBuf>) -> Result<Self, WriteError> {
        let path = path.into();
        match compressor() {
            Ok(compressor) => Ok(Self {
                sink,
                path,
                compressor,
                gather: Gather::default(),
                lines: BytesMut::with_capacity(FRAME_BYTES),
                opened_ns: None,
                failed: false,
            }),
            Err(source) => Err(WriteError::Create { path, source }),
        }
    }

    /// Adds an event.
    ///
    /// # Errors
    /// When a frame could not be written: [`WriteError::Full`] or [`WriteError::Write`]. What was written before stays
    /// readable; every later call fails with [`WriteError::GivenUp`].
    pub fn push(&mut self, event: &Event) -> Result<(), WriteError> {
        self.tick(event.t)?;
        self.opened_ns.get_or_insert(event.t);
        if let Body::Charge(charge) = &event.body {
            if !self.gather.take(event.t, charge) {
                self.close_frame()?;
                self.opened_ns = Some(event.t);
                self.gather.take(event.t, charge);
            }
            return Ok(());
        }
        if Gather::is_bound(&event.body) {
            self.write_gathered()?;
        }
        self.write_line(event)?;
        match event.body {
            Body::Oom(_) => {
                self.gather.kill(event.t);
                self.close_frame()?;
                self.sync()
            }
            // Whoever put the mark is told that it is in the recording.
            Body::Header(_) | Body::Mark(_) => self.close_frame(),
            _ if self.lines.len() >= FRAME_BYTES => self.close_frame(),
            _ => Ok(()),
        }
    }

    /// Closes the frame if it is a second old at `now_ns` (CLOCK_BOOTTIME). To be called at least a few times a second.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn tick(&mut self, now_ns: u64) -> Result<(), WriteError> {
        match self.opened_ns {
            Some(opened) if now_ns.saturating_sub(opened) >= FRAME_NS => self.close_frame(),
            _ => Ok(()),
        }
    }

    /// Closes the last frame and syncs. A footer, if there is to be one, was pushed before.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self) -> Result<(), WriteError> {
        self.close_frame()?;
        self.sync()
    }

    fn write_line(&mut self, event: &Event) -> Result<(), WriteError> {
        serde_json::to_writer((&mut self.lines).writer(), event).map_err(|error| self.failure(error.into()))?;
        self.lines.put_u8(b'\n');
        Ok(())
    }

    fn write_gathered(&mut self) -> Result<(), WriteError> {
        let gathered = self.gather.drain();
        for event in gathered {
            self.write_line(&event)?;
        }
        Ok(())
    }

    /// What was written to.
    pub(super) const fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
    }

    fn close_frame(&mut self) -> Result<(), WriteError> {
        if self.failed {
            return Err(WriteError::GivenUp {
                path: self.path.clone(),
            });
        }
        self.write_gathered()?;
        self.opened_ns = None;
        if self.lines.is_empty() {
            return Ok(());
        }
        let written = self
            .compressor
            .compress(&self.lines)
            .and_then(|frame| self.sink.write_all(&frame))
            .and_then(|()| self.sink.flush());
        self.lines.clear();
        written.map_err(|error| self.failure(error))
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        self.sink.sync().map_err(|error| self.failure(error))
    }

    fn failure(&mut self, source: io::Error) -> WriteError {
        self.failed = true;
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::Full { path },
            _ => WriteError::Write { path, source },
        }
    }
}

/// The last second must not go missing when a recorder ends by an error of something else.
impl<S: Sink> Drop for Writer<S> {
    fn drop(&mut self) {
        let nothing_left = self.lines.is_empty() && self.gather.is_empty();
        if !self.failed && !nothing_left {
            // There is nobody left to tell; `finish` is the way to know.
            let _ = self.finish();
        }
    }
}

fn compressor() -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    Ok(compressor)
}

#[cfg(test)]
mod tests {
    use super::super::event::{Header, Loss, Mark, Oom};
    use super::*;

    fn event(t: u64, body: Body) -> Event {
        Event { t, body }
    }

    fn unpacked(bytes: &[u8]) -> String {
        String::from_utf8(zstd::decode_all(bytes).unwrap()).unwrap()
    }

    #[test]
    fn a_frame_is_written_after_the_header_each_second_at_a_mark_and_at_an_oom() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "test").unwrap();
        writer.push(&event(5, Body::Header(Header::default()))).unwrap();
        assert_eq!(unpacked(writer.sink).lines().count(), 1);
        writer.push(&event(10, Body::Loss(Loss::default()))).unwrap();
        writer.tick(10 + FRAME_NS - 1).unwrap();
        assert_eq!(unpacked(writer.sink).lines().count(), 1);
        writer.tick(10 + FRAME_NS).unwrap();
        assert_eq!(unpacked(writer.sink).lines().count(), 2);
        writer.push(&event(20 + FRAME_NS, Body::Loss(Loss::default()))).unwrap();
        writer
            .push(&event(20 + 2 * FRAME_NS, Body::Loss(Loss::default())))
            .unwrap();
        assert_eq!(unpacked(writer.sink).lines().count(), 3);
        writer
            .push(&event(30 + 2 * FRAME_NS, Body::Oom(Oom::default())))
            .unwrap();
        assert_eq!(unpacked(writer.sink).lines().count(), 5);
        writer
            .push(&event(31 + 2 * FRAME_NS, Body::Mark(Mark::default())))
            .unwrap();
        assert_eq!(unpacked(writer.sink).lines().count(), 6);
    }

    #[test]
    fn what_was_gathered_is_written_when_the_writer_goes() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "test").unwrap();
        writer.push(&event(1, Body::Loss(Loss::default()))).unwrap();
        drop(writer);
        assert_eq!(
            unpacked(&file),
            "{\"t\":1,\"type\":\"loss\",\"ring_full\":0,\"accounts_full\":0,\"lost_bytes\":0,\
            \"events_dropped\":0,\"files_full\":0,\"missed_runs\":0,\"stacks_dropped\":0,\
            \"stacks_unknown\":0,\"max_delay_ns\":0}\n"
        );
    }

    #[test]
    fn a_recording_is_private_and_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl.zst");
        std::fs::write(&path, "someone's").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let error = Writer::create(&path, Overwrite::Refuse).unwrap_err();
        assert!(matches!(error, WriteError::Exists { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"someone's");
        let mut writer = Writer::create(&path, Overwrite::Replace).unwrap();
        writer.push(&event(1, Body::Loss(Loss::default()))).unwrap();
        writer.finish().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(unpacked(&std::fs::read(&path).unwrap()).lines().count(), 1);
    }

    #[test]
    fn a_full_disk_is_named_and_nothing_follows_half_a_frame() {
        let mut writer = Writer::create(Path::new("/dev/full"), Overwrite::Replace).unwrap();
        let error = writer.push(&event(1, Body::Header(Header::default()))).unwrap_err();
        assert!(matches!(error, WriteError::Full { .. }), "{error}");
        assert!(error.to_string().contains("/dev/full"), "{error}");
        let error = writer.push(&event(2, Body::Oom(Oom::default()))).unwrap_err();
        assert!(matches!(error, WriteError::GivenUp { .. }), "{error}");
    }
}
