//! The folder that incident folders are in: each is whole or hidden, and together they stay below a size.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};

use super::name;

/// Every file that an incident folder may hold. A folder with anything else in it is somebody's work and stays.
pub const FILES: [&str; 11] = [
    MARK,
    "recording.jsonl.zst",
    "report.txt",
    "report.json",
    "report.html",
    "histograms.hlog",
    "kernel.log",
    "memory.stat",
    "memory.events",
    "memory.failcnt",
    "memory.oom_control",
];
/// The file that tells our folders from others of such a name, written last.
pub const MARK: &str = "incident.json";
/// How its schema begins.
pub const MARK_SCHEMA: &str = "headroom.incident/";
/// What a file system takes for a file or folder at least, and its step.
const BLOCK: u64 = 4096;
/// Folders of one second and VM that are told apart.
const SAME_NAME: u32 = 1000;

/// Why an incident was not written, or cannot be.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be used.
    #[error("cannot keep incidents in {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else uses it.
    #[error("another headroom keeps incidents in {}: choose another folder with --output", .0.display())]
    InUse(PathBuf),
    /// The disk is full.
    #[error("no space left for {}", .0.display())]
    Full(PathBuf),
    /// It is larger than all incidents together may be.
    #[error("{} would take more than --max-disk allows", .0.display())]
    TooLarge(PathBuf),
    /// Writing failed.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A folder of incident folders, locked for as long as this lives.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    handle: File,
    max_bytes: u64,
}

impl Store {
    /// Makes the folder where it is not there, locks it, and removes what an earlier run left unfinished.
    ///
    /// # Errors
    /// When the folder cannot be used, or is in use.
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Self, StoreError> {
        let refused = |source| StoreError::Folder {
            path: folder.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(refused)?;
        let handle = File::open(folder).map_err(refused)?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(StoreError::InUse(folder.to_owned())),
            Err(fs::TryLockError::Error(source)) => return Err(refused(source)),
        }
        let store = Self {
            folder: folder.to_owned(),
            handle,
            max_bytes,
        };
        for unfinished in store.names(name::is_partial).map_err(refused)? {
            remove(&folder.join(unfinished));
        }
        Ok(store)
    }

    /// Makes sure that incidents can be written with the privileges that this process has now.
    ///
    /// # Errors
    /// When they cannot.
    pub fn check_writable(&self) -> Result<(), StoreError> {
        eaccess(&self.folder, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| StoreError::Folder {
            path: self.folder.clone(),
            source: error.into(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn names(&self, wanted: fn(&str) -> bool) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(&self.folder)?
            .filter_map(Result::ok)
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| wanted(name))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The incident folders, the oldest first, with the bytes that they take.
    fn incidents(&self) -> io::Result<Vec<(PathBuf, u64)>> {
        let paths = self
            .names(name::is_folder)?
            .into_iter()
            .map(|name| self.folder.join(name));
        Ok(paths
            .filter_map(|path| size_of_ours(&path).map(|size| (path, size)))
            .collect())
    }

    /// Begins a folder of this name; where there is one already, of this name with a number.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&self, name: &str) -> Result<Draft<'_>, StoreError> {
        let free = (1..SAME_NAME)
            .map(|number| match number {
                1 => name.to_owned(),
                number => format!("{name}-{number}"),
            })
            .find(|name| fs::symlink_metadata(self.folder.join(name)).is_err());
        let name = free.unwrap_or_else(|| name.to_owned());
        let partial = self.folder.join(name::partial(&name));
        remove(&partial);
        let draft = Draft {
            store: self,
            whole: self.folder.join(&name),
            partial,
            used: BLOCK,
            others: self.incidents().map_err(|source| failure(&self.folder, source))?.into(),
            finished: false,
        };
        let made = DirBuilder::new().mode(0o700).create(&draft.partial);
        made.map_err(|source| failure(&draft.whole, source))?;
        Ok(draft)
    }
}

/// An incident folder that is being written, hidden until it is whole, and removed if it never is.
#[derive(Debug)]
pub struct Draft<'a> {
    store: &'a Store,
    whole: PathBuf,
    partial: PathBuf,
    used: u64,
    /// The other incidents, the oldest first.
    others: std::collections::VecDeque<(PathBuf, u64)>,
    finished: bool,
}

impl Draft<'_> {
    /// Where a file of it is while it is being written.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.partial.join(file)
    }

    /// Writes a file, to the disk. Older incidents go where there is no room for it below the limit. A file that fails
    /// is removed.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when it does not fit even alone; else the disk's.
    pub fn file(&mut self, file: &str, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), StoreError> {
        let path = self.path(file);
        let shown = self.whole.join(file);
        let used = self.used;
        let result = self.write_file(&path, write);
        result.map_err(|source| {
            // The room that it took is free again, or is counted too high: never too low.
            if fs::remove_file(&path).is_ok() {
                self.used = used;
            }
            failure(&shown, source)
        })
    }

    fn write_file(&mut self, path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut out = BufWriter::new(Bounded {
            file,
            draft: self,
            reserved: 0,
            written: 0,
        });
        write(&mut out)?;
        out.flush()?;
        out.get_ref().file.sync_all()
    }

    /// Makes room for so many bytes more by removing the oldest incidents.
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let sum =
            |others: &std::collections::VecDeque<(PathBuf, u64)>| -> u64 { others.iter().map(|(_, size)| size).sum() };
        while self.used + bytes + sum(&self.others) > self.store.max_bytes {
            let Some((oldest, _)) = self.others.pop_front() else {
                return Err(io::Error::other(TooLarge));
            };
            log::info!("removing {} to stay below --max-disk", oldest.display());
            remove(&oldest);
        }
        self.used += bytes;
        Ok(())
    }

    /// Shows the folder under its name. From here on it is whole, whatever happens to the node.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(mut self) -> Result<PathBuf, StoreError> {
        let show = || {
            File::open(&self.partial)?.sync_all()?;
            fs::rename(&self.partial, &self.whole)?;
            self.store.handle.sync_all()
        };
        show().map_err(|source| failure(&self.whole, source))?;
        self.finished = true;
        Ok(self.whole.clone())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.finished {
            remove(&self.partial);
        }
    }
}

/// Marks an error of the file system that is none.
#[derive(Debug, thiserror::Error)]
#[error("it does not fit")]
struct TooLarge;

fn failure(path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(path),
        _ if matches!(source.get_ref(), Some(inner) if inner.is::<TooLarge>()) => StoreError::TooLarge(path),
        _ => StoreError::Write { path, source },
    }
}

/// Reserves room block by block before it writes.
struct Bounded<'a, 'b> {
    file: File,
    draft: &'a mut Draft<'b>,
    reserved: u64,
    written: u64,
}

impl Write for Bounded<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let needed = (self.written + bytes.len() as u64).next_multiple_of(BLOCK);
        if let Some(more) = needed.checked_sub(self.reserved).filter(|more| *more > 0) {
            self.draft.reserve(more)?;
            self.reserved = needed;
        }
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Bytes that one of our incident folders takes; `None` for anything that is not surely one of ours.
fn size_of_ours(path: &Path) -> Option<u64> {
    let mark = crate::node::bounded::read(&path.join(MARK), 64 << 10)?;
    let mark: serde_json::Value = serde_json::from_slice(&mark).ok()?;
    mark["schema"].as_str()?.starts_with(MARK_SCHEMA).then_some(())?;
    let mut size = BLOCK;
    for entry in entries_of_ours(path)? {
        size += fs::symlink_metadata(path.join(entry))
            .ok()?
            .len()
            .next_multiple_of(BLOCK);
    }
    Some(size)
}

/// The files in a folder (no link to one), if they are all files that we write.
fn entries_of_ours(path: &Path) -> Option<Vec<&'static str>> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir)?;
    fs::read_dir(path)
        .ok()?
        .map(|entry| {
            let entry = entry.ok()?;
            let ours = FILES.into_iter().find(|file| entry.file_name() == *file)?;
            entry.file_type().ok()?.is_file().then_some(ours)
        })
        .collect()
}

/// Removes a folder with nothing in it but files of ours, file by file. Anything else stays as it is. The mark goes
/// last: until then the folder is known as ours, should this be cut short.
fn remove(path: &Path) {
    let Some(files) = entries_of_ours(path) else {
        return;
    };
    let (mark, others): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| *file == MARK);
    let removed = others
        .into_iter()
        .chain(mark)
        .try_for_each(|file| fs::remove_file(path.join(file)))
        .and_then(|()| fs::remove_dir(path));
    if let Err(error) = removed {
        log::warn!("cannot remove {}: {error}", path.display());
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
