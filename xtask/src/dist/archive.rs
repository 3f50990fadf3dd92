//! Archives that are the same, byte for byte, whoever makes them and whenever.

use std::collections::BTreeSet;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

/// A file to be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path in the archive, without `/` or `./` in front.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Contents.
    pub data: Vec<u8>,
}

impl Entry {
    /// A file that everybody may read.
    #[must_use]
    pub fn file(path: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.into(),
            mode: 0o644,
            data: data.into(),
        }
    }

    /// A program that everybody may run.
    #[must_use]
    pub fn program(path: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self {
            mode: 0o755,
            ..Self::file(path, data)
        }
    }
}

/// A tar archive with these files and the folders that they are in, sorted, all owned by root and of one time (seconds
/// since 1970).
///
/// # Errors
/// When a path does not fit.
pub fn tar(entries: &[Entry], time: u64) -> Result<Vec<u8>> {
    let mut sorted: Vec<&Entry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut archive = tar::Builder::new(Vec::new());
    for folder in folders(&sorted) {
        let path = format!("{folder}/");
        let mut header = header(EntryType::Directory, 0o755, 0, time)?;
        archive
            .append_data(&mut header, &path, std::io::empty())
            .with_context(|| path.clone())?;
    }
    for entry in sorted {
        let mut header = header(EntryType::Regular, entry.mode, entry.data.len(), time)?;
        archive
            .append_data(&mut header, &entry.path, entry.data.as_slice())
            .with_context(|| entry.path.clone())?;
    }
    Ok(archive.into_inner()?)
}

/// Every folder that some file is in, the outer before the inner.
fn folders(entries: &[&Entry]) -> BTreeSet<String> {
    let above = |path: &str| -> Vec<String> {
        let slashes = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
        slashes.collect()
    };
    entries.iter().flat_map(|entry| above(&entry.path)).collect()
}

fn header(kind: EntryType, mode: u32, size: usize, time: u64) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_username("root")?;
    header.set_groupname("root")?;
    header.set_mtime(time);
    header.set_size(size.try_into()?);
    Ok(header)
}

/// Compressed by gzip, without name and time.
///
/// # Errors
/// Only for want of memory.
pub fn gzip(data: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    packed.write_all(data)?;
    Ok(packed.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_order_of_files_does_not_matter() {
        let files = [
            Entry::file("usr/share/b", "b"),
            Entry::program("usr/bin/a", "a"),
            Entry::file("usr/share/doc/c", "c"),
        ];
        let mut turned = files.clone();
        turned.reverse();
        let archive = tar(&files, 7).unwrap();
        assert_eq!(archive, tar(&turned, 7).unwrap());
        assert_eq!(gzip(&archive).unwrap(), gzip(&archive).unwrap());
        let mut reader = tar::Archive::new(archive.as_slice());
        let found: Vec<(String, u32, u64, u64)> = reader
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                (
                    path,
                    header.mode().unwrap(),
                    header.uid().unwrap(),
                    header.mtime().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/share/", 0o755),
            ("usr/share/doc/", 0o755),
            ("usr/bin/a", 0o755),
            ("usr/share/b", 0o644),
            ("usr/share/doc/c", 0o644),
        ]
        .map(|(path, mode)| (path.to_owned(), mode, 0, 7));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let mut text = String::new();
        let packed = gzip(b"headroom").unwrap();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "headroom");
    }
}
