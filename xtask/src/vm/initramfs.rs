//! The VM's root file system, as the archive that the kernel unpacks into memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cpio::newc::{Builder, ModeFileType, Reader, trailer};

/// An archive in the making.
pub struct Initramfs {
    archive: Option<BufWriter<File>>,
    path: PathBuf,
    entries: BTreeSet<String>,
    inode: u32,
}

impl Initramfs {
    /// Starts the archive at `path`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut initramfs = Self {
            archive: Some(BufWriter::new(file)),
            path: path.to_owned(),
            entries: BTreeSet::new(),
            inode: 0,
        };
        // The kernel opens it for init before there is a devtmpfs.
        initramfs.folder("dev")?;
        let console = Builder::new("dev/console").mode(0o600).rdev_major(5).rdev_minor(1);
        initramfs.entry(console.set_mode_file_type(ModeFileType::Char), &mut io::empty(), 0)?;
        Ok(initramfs)
    }

    /// Adds an empty folder, with those above it.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn folder(&mut self, name: &str) -> Result<()> {
        let name = name.trim_matches('/');
        let ends = name.match_indices('/').map(|(end, _)| end).chain([name.len()]);
        for folder in ends.map(|end| &name[..end]).filter(|folder| !folder.is_empty()) {
            if self.entries.insert(folder.to_owned()) {
                let builder = Builder::new(folder).mode(0o755).nlink(2);
                self.entry(builder.set_mode_file_type(ModeFileType::Directory), &mut io::empty(), 0)?;
            }
        }
        Ok(())
    }

    /// Adds a file of the host, executable if it is so there. The first one of a name wins.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&mut self, host: &Path, name: &str) -> Result<()> {
        let mut file = File::open(host).with_context(|| format!("cannot read {}", host.display()))?;
        let size = file
            .metadata()
            .with_context(|| format!("cannot read {}", host.display()))?
            .len();
        self.add(name, &mut file, size)
            .with_context(|| format!("cannot pack {}", host.display()))
    }

    /// Adds a file with this content.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn content(&mut self, name: &str, mut content: &[u8]) -> Result<()> {
        let size = content.len() as u64;
        self.add(name, &mut content, size)
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        let archive = self.archive.take().context("the archive was given up after an error")?;
        trailer(archive)
            .and_then(|mut archive| archive.flush())
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn add(&mut self, name: &str, content: &mut dyn io::Read, size: u64) -> Result<()> {
        let name = name.trim_matches('/');
        if let Some((folder, _)) = name.rsplit_once('/') {
            self.folder(folder)?;
        }
        if !self.entries.insert(name.to_owned()) {
            return Ok(());
        }
        let size = u32::try_from(size).context("a file of the VM must be below 4 GiB")?;
        let builder = Builder::new(name).mode(0o755).set_mode_file_type(ModeFileType::Regular);
        self.entry(builder, content, size)
    }

    fn entry(&mut self, builder: Builder, content: &mut dyn io::Read, size: u32) -> Result<()> {
        // The kernel takes entries of the same inode for hard links.
        self.inode += 1;
        let archive = self.archive.take().context("the archive was given up after an error")?;
        let mut writer = builder.ino(self.inode).write(archive, size);
        io::copy(content, &mut writer).with_context(|| format!("cannot write {}", self.path.display()))?;
        let archive = writer
            .finish()
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.archive = Some(archive);
        Ok(())
    }
}

/// What is in an archive, in its order: names and contents.
///
/// # Errors
/// When it cannot be read.
pub fn entries(path: &Path, mut each: impl FnMut(&str, &mut dyn io::Read) -> Result<()>) -> Result<()> {
    let mut archive = BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?);
    loop {
        let mut reader = Reader::new(archive)?;
        if reader.entry().is_trailer() {
            return Ok(());
        }
        let name = reader.entry().name().to_owned();
        each(&name, &mut reader)?;
        archive = reader.finish()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("initramfs.cpio");
        let mut initramfs = Initramfs::create(&path).unwrap();
        initramfs.content("/a/b/c", b"text").unwrap();
        initramfs.content("a/b/c", b"second of the name").unwrap();
        initramfs.folder("a/b").unwrap();
        initramfs.finish().unwrap();

        let mut names = Vec::new();
        entries(&path, |name, content| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            names.push((name.to_owned(), text));
            Ok(())
        })
        .unwrap();
        let expected = [
            ("dev", ""),
            ("dev/console", ""),
            ("a", ""),
            ("a/b", ""),
            ("a/b/c", "text"),
        ];
        assert_eq!(
            names,
            expected.map(|(name, content)| (name.to_owned(), content.to_owned()))
        );
    }
}
