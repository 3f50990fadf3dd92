//! Reads that cannot be made to hurt: bounded in size, and silent about what vanished.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Most that is read of a small file of /proc or of a cgroup.
pub const SMALL: u64 = 64 << 10;

/// Reads at most `limit` bytes of a file. `None` when the file, its process or its cgroup is gone, or reading it is
/// not allowed: to the caller they are all "nothing to see".
#[must_use]
pub fn read(path: &Path, limit: u64) -> Option<Vec<u8>> {
    match try_read(path, limit) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            if !is_gone(&error) {
                log::debug!("cannot read {}: {error}", path.display());
            }
            None
        }
    }
}

/// As [`read`], with the error.
///
/// # Errors
/// As the file system reports them.
pub fn try_read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// As [`read`], as text; bytes that are not UTF-8 become replacement characters.
#[must_use]
pub fn text(path: &Path, limit: u64) -> Option<String> {
    read(path, limit).map(|bytes| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// The number that a file consists of.
#[must_use]
pub fn number(path: &Path) -> Option<u64> {
    text(path, 64)?.trim().parse().ok()
}

/// What it was about has vanished: a file, a process (`ESRCH`), or the cgroup behind an open file (`ENODEV`).
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::ENOTDIR)
    )
}
